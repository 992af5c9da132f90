"""The pages of the store, as one process sees them: mapped twice, once to write and once to read.

All of a node's processes map one memfd, which has no name: nothing is left of it when the last of them is
gone, however that ended. It is as long as the store may become; a page takes memory from its first use on.

What a reader is handed lies in the read-only mapping: nothing can write there, whatever it is cast to. Each
view keeps a pin alive, until the last slice of the last array over it is gone.

Large copies go through ``memmove``, which lets the interpreter go meanwhile; a slice assignment does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from _thread import start_new_thread
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..wire.frames import Buffer

_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_NORESERVE: Final = 0x4000
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_MADV_HUGEPAGE: Final = 14
_MADV_DONTDUMP: Final = 16
#: A crash of a process does not write the store down; and where the kernel gives huge pages to shared memory
#: that asks for them (shmem_enabled: advise), a store that grows does so by 2 MiB a fault.
_ADVICE: Final = (_MADV_DONTDUMP, _MADV_HUGEPAGE)
_PYBUF_SIMPLE: Final = 0
#: Bytes whose copy takes long enough for a thread to be worth it.
_PARALLEL_BYTES: Final = 16 << 20
_PART_BYTES: Final = 4 << 20
#: Threads that copy together, at most: more than a few add nothing.
_COPIERS: Final = min(4, len(os.sched_getaffinity(0)))


def make_memory(size: int) -> int:
    """A new memfd of *size* bytes; it takes memory as it is used.

    Raises:
        OSError: when there can be none.
    """
    fd = os.memfd_create("asyncray-store", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


def new_arena(size: int) -> Arena:
    """A store of its own, for processes that share an address space.

    Raises:
        OSError: when there can be none.
    """
    fd = make_memory(size)
    try:
        return Arena(fd, size)
    finally:
        os.close(fd)


class _Libc:
    """The calls that Python's own mmap does not give: its mappings end with the object, or not at all."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.mmap = libc.mmap
        self.mmap.restype = ctypes.c_void_p
        self.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self.munmap = libc.munmap
        self.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.madvise = libc.madvise
        self.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _PyBuffer(ctypes.Structure):
    """Py_buffer, of which only the first field is looked at."""

    _fields_ = (("buf", ctypes.c_void_p), ("rest", ctypes.c_byte * 256))


def _copy(to: int, source: int, size: int) -> None:
    """Copy; a lot of memory by several threads, because one alone does not use all that the memory can do.

    Each takes the next part when it has done one: where a neighbour holds one of them up, the others go on.
    """
    if size < _PARALLEL_BYTES or _COPIERS == 1:
        ctypes.memmove(to, source, size)
        return
    parts = deque(range(0, size, _PART_BYTES))

    def copy_parts(done: threading.Lock | None = None) -> None:
        with contextlib.suppress(IndexError):
            while True:
                at = parts.popleft()
                ctypes.memmove(to + at, source + at, min(_PART_BYTES, size - at))
        if done is not None:
            done.release()

    helpers = []
    with contextlib.suppress(RuntimeError):  # no thread can be had: fewer copy, then
        for _ in range(_COPIERS - 1):
            done = threading.Lock()
            done.acquire()
            # Not a threading.Thread: nobody waits here until it has started.
            start_new_thread(copy_parts, (done,))
            helpers.append(done)
    copy_parts()
    for done in helpers:
        done.acquire()


class Arena:
    """One process's mappings of the store.

    Args:
        fd: The memfd; the caller may close it afterwards.
        size: Its bytes.

    Raises:
        OSError: when it cannot be mapped.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self._libc = _Libc()
        self._write = self._map(fd, _PROT_READ | _PROT_WRITE)
        self._read = self._map(fd, _PROT_READ)
        self._carrier = _carrier_type(self._read, size)

    def _map(self, fd: int, protection: int) -> int:
        address: int = self._libc.mmap(None, self.size, protection, _MAP_SHARED | _MAP_NORESERVE, fd, 0)
        if address == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), f"cannot map the {self.size} bytes of the object store")
        for advice in _ADVICE:
            # A kernel that does not know it goes on without.
            self._libc.madvise(address, self.size, advice)
        return address

    def write(self, at: int, piece: Buffer) -> int:
        """Copy a contiguous piece to *at*; returns where it ends. Lets the interpreter go meanwhile."""
        size = piece.nbytes if type(piece) is memoryview else len(piece)
        if size < _PARALLEL_BYTES and type(piece) is bytes:
            ctypes.memmove(self._write + at, piece, size)
        elif size:
            self._copy_buffer(at, piece, size)
        return at + size

    def _copy_buffer(self, at: int, piece: Buffer, size: int) -> None:
        buffer = _PyBuffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(piece), ctypes.byref(buffer), _PYBUF_SIMPLE)
        try:
            _copy(self._write + at, buffer.buf, size)
        finally:
            ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))

    def place(self, at: int, size: int) -> memoryview:
        """A part to write to."""
        return memoryview((ctypes.c_ubyte * size).from_address(self._write + at)).cast("B")

    def view(self, pin: object) -> memoryview:
        """All of the store, read-only; *pin* lives as long as the view and whatever was cut from it."""
        view: memoryview = self._carrier(pin)
        return view

    def __del__(self) -> None:
        # Whoever holds a view holds its pin, and through that this object.
        for name in ("_write", "_read"):
            address = getattr(self, name, None)
            if address is not None:
                self._libc.munmap(address, self.size)


if sys.version_info >= (3, 12):

    class _Carrier:
        """Hands out its memory as a buffer (PEP 688): who holds the buffer holds this, and so the pin."""

        __slots__ = ("_memory", "_pin")

        def __init__(self, memory: memoryview, pin: object) -> None:
            self._memory = memory
            self._pin = pin

        def __buffer__(self, flags: int, /) -> memoryview:
            return memoryview(self._memory)

    def _carrier_type(address: int, size: int) -> Any:
        memory = memoryview((ctypes.c_ubyte * size).from_address(address)).toreadonly().cast("B")
        return lambda pin: memoryview(_Carrier(memory, pin))

else:

    def _carrier_type(address: int, size: int) -> Any:
        # An array has a place for attributes of its own, and every buffer over it holds the array.
        kind: Any = type("StoreMemory", (ctypes.c_ubyte * size,), {})

        def carry(pin: object) -> memoryview:
            array = kind.from_address(address)
            array.pin = pin
            return memoryview(array).toreadonly().cast("B")

        return carry
