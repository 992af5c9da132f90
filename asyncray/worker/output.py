"""A worker's output: in whole lines, marked with the name of the task that writes.

Rule 1: what a task has printed is in the pipe before its result is reported.
Rule 2: what Python code writes is always marked with the right name. What C code and child processes write
        past sys.stdout carries no mark of its own; so the name is told ahead too, but no more than once a
        millisecond, and where there is no time for it, no name stands rather than a wrong one.
"""

from __future__ import annotations

import io
import sys
from typing import Any, Final

from ..wire.messages import OUTPUT_MARK
from .scope import running_call

_BUFFER_BYTES: Final = 64 * 1024
#: Seconds between two names that are told ahead of any output.
_PACE_S: Final = 0.001


class MarkedPipe(io.RawIOBase):
    """Standard output or error; says who writes when that has changed."""

    def __init__(self, fd: int) -> None:
        self._file = io.FileIO(fd, "w", closefd=False)
        self.name = self._file.name
        #: Name of the task that runs, for threads of its own; a coroutine's name comes from its context.
        self.task = ""
        #: The name that was told last.
        self.told = ""
        #: Whether something was written since the last flush, and may not have come as far as this.
        self.unflushed = False
        self._told_at = 0.0

    def tell_ahead(self, now: float) -> None:
        """A task has begun whose name was not the last told; *now* is in seconds."""
        if now - self._told_at >= _PACE_S:
            self._told_at = now
            self._tell(self.task)
        elif self.told:
            self._tell("")

    def write(self, data: Any) -> int | None:
        """Write what the pipe takes of *data*; returns how much that was."""
        call = running_call.get()
        task = self.task if call is None else call.function.name
        if task != self.told:
            self._tell(task)
        return self._file.write(data)

    def _tell(self, task: str) -> None:
        line = task.replace("\n", " ").encode(errors="backslashreplace")
        self._file.write(OUTPUT_MARK + line + b"\n")
        self.told = task

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor written to."""
        return self._file.fileno()


class MarkedBuffer(io.BufferedWriter):
    """What binary output is gathered in; notes that there is some."""

    def __init__(self, pipe: MarkedPipe) -> None:
        super().__init__(pipe, _BUFFER_BYTES)
        self._pipe = pipe

    def write(self, data: Any) -> int:
        """Gather or write *data*; returns its bytes."""
        self._pipe.unflushed = True
        return super().write(data)


class MarkedText(io.TextIOWrapper):
    """Standard output or error as text; notes that there is some."""

    def __init__(self, pipe: MarkedPipe) -> None:
        super().__init__(MarkedBuffer(pipe), "utf-8", errors="backslashreplace", line_buffering=True)
        self._pipe = pipe

    def write(self, text: str) -> int:
        """Gather or write *text*; returns its characters."""
        self._pipe.unflushed = True
        return super().write(text)


#: This process's own streams, with their pipes; none where no worker process has been set up.
_streams: Final[list[tuple[io.TextIOWrapper, MarkedPipe]]] = []


def install() -> None:
    """Replace sys.stdout and sys.stderr by marked, line-buffered ones."""
    for fd in (1, 2):
        pipe = MarkedPipe(fd)
        _streams.append((MarkedText(pipe), pipe))
    sys.stdout, sys.stderr = (stream for stream, _ in _streams)


def announce(task: str, now: float) -> None:
    """What is written from here on is the task's; *now* is in seconds."""
    for _, pipe in _streams:
        pipe.task = task
        if task != pipe.told:
            pipe.tell_ahead(now)


def flush() -> None:
    """Write what a task has printed without an end of line."""
    for stream, pipe in _streams:
        # Every call comes by here, and hardly one has printed.
        if pipe.unflushed and not stream.closed:
            # Cleared first: what another thread writes meanwhile is for the next.
            pipe.unflushed = False
            stream.flush()
