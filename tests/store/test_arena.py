"""The mapped memory: what is written is read, reading cannot write, views keep their pins."""

from __future__ import annotations

import _thread
import gc
import os
import random
import signal
import weakref
from mmap import MADV_HUGEPAGE
from typing import Any

import pytest

from asyncray.store import arena as arena_module
from asyncray.store.arena import Arena, make_memory, new_arena
from asyncray.store.holes import punch_hole

SIZE = 1 << 20


class Pin:
    """Something that a view keeps."""


def test_pieces_of_every_kind_are_copied() -> None:
    arena = new_arena(SIZE)
    at = 100
    pieces = (
        b"bytes",
        bytearray(b" array"),
        memoryview(b" view"),
        memoryview(b"? read-only").toreadonly(),
        b"",
    )
    for piece in pieces:
        at = arena.write(at, piece)
    assert bytes(arena.view(None)[100:at]) == b"bytes array view? read-only"


def test_a_view_of_numpy_memory_is_copied() -> None:
    numpy = pytest.importorskip("numpy")
    arena = new_arena(SIZE)
    array = numpy.arange(1000)
    array.flags.writeable = False
    arena.write(64, memoryview(array).cast("B"))
    assert (numpy.frombuffer(arena.view(None)[64 : 64 + array.nbytes], array.dtype) == array).all()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_large_pieces_are_copied_whole_by_as_many_threads_as_can_be_had(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    started: list[object] = []

    def start(*arguments: Any) -> int:
        if len(started) == threads:
            raise RuntimeError("can't start new thread")
        started.append(arguments)
        return _thread.start_new_thread(*arguments)

    monkeypatch.setattr(arena_module, "_COPIERS", 4)
    monkeypatch.setattr(arena_module, "start_new_thread", start)
    piece = random.Random(1).randbytes(arena_module._PARALLEL_BYTES + 12_345)
    arena = new_arena(len(piece) + 100)
    assert arena.write(7, piece) == len(piece) + 7
    memory = arena.view(None)
    assert memory[7 : len(piece) + 7] == piece
    assert bytes(memory[:7]) + bytes(memory[len(piece) + 7 :]) == bytes(100)
    assert len(started) == threads


def test_what_one_mapping_writes_another_reads() -> None:
    fd = make_memory(SIZE)
    one, other = Arena(fd, SIZE), Arena(fd, SIZE)
    os.close(fd)
    one.write(5, b"hello")
    assert bytes(other.view(None)[5:10]) == b"hello"


def test_views_are_read_only_however_they_are_cast() -> None:
    view = new_arena(SIZE).view(None)
    for shape in (view, view[10:20], view.cast("B"), memoryview(view), view[:64].cast("d")):
        assert shape.readonly
        with pytest.raises(TypeError, match="read-only"):
            shape[0] = 1


def test_a_write_past_python_kills_the_writer_and_changes_nothing() -> None:
    arena = new_arena(SIZE)
    pid = os.fork()
    if pid == 0:
        import ctypes

        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.memset(arena._read, 1, 1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGSEGV
    assert arena.view(None)[0] == 0


def test_a_pin_lives_as_long_as_the_last_slice_of_the_last_view() -> None:
    arena = new_arena(SIZE)
    pin = Pin()
    gone = weakref.ref(pin)
    view = arena.view(pin)
    del pin
    part = view[10:100]
    del view
    last = memoryview(part)[5:6].cast("b")
    del part
    gc.collect()
    assert gone() is not None
    del last
    assert gone() is None


def test_an_array_over_a_view_keeps_its_pin() -> None:
    numpy = pytest.importorskip("numpy")
    pin = Pin()
    gone = weakref.ref(pin)
    array = numpy.frombuffer(new_arena(SIZE).view(pin)[:80], "u8")
    del pin
    row = array.reshape(2, 5)[1]
    del array
    gc.collect()
    assert gone() is not None
    assert not row.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        row.flags.writeable = True
    del row
    assert gone() is None


def test_the_memory_goes_with_the_last_view() -> None:
    arena = new_arena(SIZE)
    view = arena.view(arena)[:10]
    del arena
    assert bytes(view) == bytes(10)
    before = _mappings()
    del view
    assert _mappings() == before - 2


def _mappings() -> int:
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        return sum("asyncray-store" in line for line in maps)


@pytest.mark.parametrize("answer", [0, -1])
def test_huge_pages_are_asked_for_and_done_without_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    asked: list[tuple[int, int, int]] = []

    class Kernel(arena_module._Libc):
        def __init__(self) -> None:
            super().__init__()
            self.madvise: Any = self.advised

        def advised(self, address: int, size: int, advice: int) -> int:
            asked.append((address, size, advice))
            return answer

    monkeypatch.setattr(arena_module, "_Libc", Kernel)
    arena = new_arena(SIZE)
    huge = {(address, size) for address, size, advice in asked if advice == MADV_HUGEPAGE}
    assert huge == {(arena._read, SIZE), (arena._write, SIZE)}
    arena.write(0, b"goes on")
    assert bytes(arena.view(None)[:7]) == b"goes on"


def test_a_memory_that_cannot_be_mapped_is_refused() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OSError, match="cannot map"):
        Arena(fd, SIZE)
    os.close(fd)


def test_a_hole_takes_no_memory_and_reads_as_zeros() -> None:
    fd = make_memory(SIZE)
    arena = Arena(fd, SIZE)
    arena.write(0, b"x" * SIZE)
    view = arena.view(None)
    before = os.fstat(fd).st_blocks
    punch_hole(fd, 8192, SIZE // 2)
    assert os.fstat(fd).st_blocks * 512 <= before * 512 - SIZE // 2
    assert view[:8192] == b"x" * 8192
    assert view[8192 : 8192 + SIZE // 2] == bytes(SIZE // 2)
    assert view[8192 + SIZE // 2 :] == b"x" * (SIZE - 8192 - SIZE // 2)
    arena.write(8192, b"again")
    assert bytes(view[8192:8197]) == b"again"
    os.close(fd)


def test_a_file_without_holes_says_so() -> None:
    one, other = os.pipe()
    with pytest.raises(OSError, match="Illegal seek"):
        punch_hole(other, 0, 4096)
    os.close(one)
    os.close(other)
