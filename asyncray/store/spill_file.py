"""The file that one process spills to: without a name from the start, so nothing is left of it after a crash.

What is freed in the middle is given back to the disk at once, by a hole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import zlib
from typing import TYPE_CHECKING, Final

from ..exceptions import OutOfDiskError
from .holes import punch_hole

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Pieces begin at multiples of this: a hole frees whole blocks only.
_BLOCK: Final = 4096


class SpillFile:
    """Bytes on disk, by where they begin.

    Args:
        directory: Where; the empty string is the usual place for temporary files.
        disk_limit: Fraction of the disk in use above which nothing is written.
    """

    def __init__(self, directory: str, disk_limit: float) -> None:
        self._wanted_directory = directory
        self._disk_limit = disk_limit
        #: Re-entrant only so that a destructor which interrupts a guarded section finds it taken.
        self._lock = threading.RLock()
        self._fd = -1
        self._end = 0
        #: Pieces that are there.
        self._pieces = 0
        #: Reads and writes under way: while there are any, the descriptor stays open, or they could hit
        #: another file that gets its number.
        self._users = 0
        self._closed = False

    @property
    def _directory(self) -> str:
        # Not found before it is needed: that writes a file to try it.
        return self._wanted_directory or tempfile.gettempdir()

    @property
    def interrupted(self) -> bool:
        """Whether the caller is a destructor in the middle of a guarded section of this object."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def write(self, parts: Sequence[memoryview]) -> tuple[int, int]:
        """Write one piece; returns where it begins, and its checksum.

        Raises:
            OutOfDiskError: when the disk is too full for it.
        """
        size = sum(part.nbytes for part in parts)
        with self._lock:
            try:
                at = self._begin_piece(size)
            except OSError as error:
                raise OutOfDiskError(f"cannot spill to {self._directory}: {error}") from error
        checksum, place = 0, at
        try:
            for part in parts:
                place = self._write_all(part, place)
                checksum = zlib.crc32(part, checksum)
        except OSError as error:
            self.free(at, size)
            raise OutOfDiskError(f"cannot spill {size} bytes to {self._directory}: {error}") from error
        finally:
            self._end_use()
        return at, checksum

    def _begin_piece(self, size: int) -> int:
        if self._closed:
            raise OSError(errno.EBADF, "the session has ended")
        if self._fd < 0:
            self._fd = _open_unnamed(self._directory)
        self._check_room(size)
        at, self._end = self._end, -(-(self._end + size) // _BLOCK) * _BLOCK
        self._pieces += 1
        self._users += 1
        return at

    def _end_use(self) -> None:
        with self._lock:
            self._users -= 1
            self._close_if_unused()

    def _write_all(self, part: memoryview, place: int) -> int:
        while part.nbytes:
            written = os.pwrite(self._fd, part, place)
            part = part[written:]
            place += written
        return place

    def _check_room(self, size: int) -> None:
        disk = os.fstatvfs(self._fd)
        free = disk.f_bavail * disk.f_frsize - size
        if free < (1 - self._disk_limit) * disk.f_blocks * disk.f_frsize:
            raise OSError(errno.ENOSPC, f"the disk would be more than {self._disk_limit:.0%} full")

    def read(self, into: memoryview, at: int, checksum: int) -> None:
        """Read the piece that begins at *at*.

        Raises:
            OSError: when it cannot be read, or is not what was written.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the session has ended")
            self._users += 1
        try:
            self._read_all(into, at)
        finally:
            self._end_use()
        if zlib.crc32(into) != checksum:
            raise OSError(errno.EIO, "the spilled bytes fail their checksum")

    def _read_all(self, into: memoryview, place: int) -> None:
        while into.nbytes:
            count = os.preadv(self._fd, [into], place)
            if not count:
                raise OSError(errno.EIO, "the spill file is too short")
            into = into[count:]
            place += count

    def free(self, at: int, size: int) -> None:
        """Give the disk back what a piece took."""
        with self._lock:
            self._pieces -= 1
            if not self._pieces or self._fd < 0:
                self._close_if_unused()
                return
            # A file system without holes keeps the bytes until the file is empty.
            with contextlib.suppress(OSError):
                punch_hole(self._fd, at, -(-size // _BLOCK) * _BLOCK)

    def close(self) -> None:
        """End it, with all that is in it."""
        with self._lock:
            self._closed = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._fd >= 0 and not self._users and (self._closed or not self._pieces):
            os.close(self._fd)
            self._fd, self._end = -1, 0


def _open_unnamed(directory: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # not every file system has files without names
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    fd, name = tempfile.mkstemp(prefix="asyncray-spill-", dir=directory)
    os.unlink(name)
    return fd
