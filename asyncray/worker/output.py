"""A worker's output: in whole lines, marked with the name of the task that writes."""

from __future__ import annotations

import io
import sys
from typing import Any, cast

_MARK = b"\0"


class MarkedPipe(io.RawIOBase):
    """Standard output or error; says who writes when that has changed."""

    def __init__(self, fd: int) -> None:
        self._file = io.FileIO(fd, "w", closefd=False)
        self.name = self._file.name
        #: Name of the task that runs; announced only when it writes.
        self.task = b""
        self._announced = b""

    def write(self, data: Any) -> int:
        """Write all of *data*."""
        if self.task != self._announced:
            self._announced = self.task
            self._file.write(_MARK + self.task + b"\n")
        view = memoryview(data).cast("B")
        total = len(view)
        while len(view):
            view = view[self._file.write(view) or 0 :]
        return total

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor written to."""
        return self._file.fileno()


def install() -> None:
    """Replace sys.stdout and sys.stderr by marked, line-buffered ones."""
    sys.stdout = _stream(1)
    sys.stderr = _stream(2)


def _stream(fd: int) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(MarkedPipe(fd), 64 * 1024)
    return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def announce(name: str) -> None:
    """What is written from here on is task *name*'s."""
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, MarkedPipe):
            cast("io.TextIOWrapper", stream).flush()
            raw.task = name.encode()
