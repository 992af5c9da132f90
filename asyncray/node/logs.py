"""Output of workers: from their pipes, in whole lines, to the driver.

A worker marks the name of the task that writes (wire.messages.OUTPUT_MARK). Lines go to the driver with the
prefix "(name pid=…)". The driver confirms what it has shown; when too much is unconfirmed, pipes are left
unread, so that a worker that writes faster than the driver reads is slowed by its full pipe, and nothing is
ever cut.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..wire.messages import OUTPUT_MARK

if TYPE_CHECKING:
    import asyncio

_READ_BYTES: Final = 64 * 1024
#: Reads that empty a pipe of any size: a child of the dead worker may hold it, and write for ever.
_LAST_READS: Final = 32
#: A line longer than this is passed on in pieces: a worker may write forever without an end of line.
_LONG_LINE: Final = 256 * 1024
#: Bytes at the end of a long line in which a mark may just have begun.
_MARK_BYTES: Final = 512

Show = Callable[[str, str, str], int]


class WorkerOutput:
    """One pipe of one worker."""

    def __init__(self, hub: LogHub, fd: int, stream: str, pid: int) -> None:
        self._hub = hub
        self._fd = fd
        self._stream = stream
        self._rest = b""
        #: The prefix of the lines that come.
        self._prefix = f"(pid={pid})"
        self._pid = pid
        self._reading = False
        self.closed = False
        os.set_blocking(fd, False)

    def resume(self) -> None:
        """Read what comes."""
        if not self._reading and not self.closed:
            self._reading = True
            self._hub.loop.add_reader(self._fd, self._on_readable)

    def pause(self) -> None:
        """Leave it in the pipe."""
        if self._reading:
            self._reading = False
            self._hub.loop.remove_reader(self._fd)

    def finish(self) -> None:
        """The worker is dead: pass on everything that it wrote, then close."""
        for _ in range(_LAST_READS):
            if self.closed or not self._read_once():
                break
        self._close()

    def _on_readable(self) -> None:
        self._read_once()

    def _read_once(self) -> bool:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        self._take(self._rest + data)
        return True

    def _take(self, data: bytes) -> None:
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > _LONG_LINE:
            at = _end_of_piece(self._rest)
            lines.append(self._rest[:at])
            self._rest = self._rest[at:]
        start = 0
        for at, line in enumerate(lines):
            if OUTPUT_MARK in line:
                # What stands before the mark is the end of what the last task had written.
                before, _, task = line.partition(OUTPUT_MARK)
                self._show([*lines[start:at], before] if before else lines[start:at])
                start = at + 1
                name = task.decode(errors="replace")
                self._prefix = f"({name} pid={self._pid})" if name else f"(pid={self._pid})"
        self._show(lines[start:])

    def _show(self, lines: list[bytes]) -> None:
        if lines:
            text = b"\n".join(lines).decode(errors="replace")
            self._hub.show(self._stream, self._prefix, text)

    def _close(self) -> None:
        if self.closed:
            return
        if rest := self._rest.partition(OUTPUT_MARK)[0]:
            self._show([rest])
        self.pause()
        self.closed = True
        os.close(self._fd)
        self._hub.outputs.discard(self)


class LogHub:
    """All pipes of a node's workers, and how much of them the driver has still to show."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Show, limit_bytes: int) -> None:
        self.loop = loop
        self.outputs: set[WorkerOutput] = set()
        self._send = send
        self._limit = limit_bytes
        self._unconfirmed = 0

    def add(self, fd: int, stream: str, pid: int) -> WorkerOutput:
        """Watch one more pipe."""
        output = WorkerOutput(self, fd, stream, pid)
        self.outputs.add(output)
        if self._unconfirmed <= self._limit:
            output.resume()
        return output

    def show(self, stream: str, prefix: str, text: str) -> None:
        """Pass text on; stop reading when too much is unconfirmed."""
        self._unconfirmed += self._send(stream, prefix, text)
        if self._unconfirmed > self._limit:
            for output in self.outputs:
                output.pause()

    def confirmed(self, count: int) -> None:
        """The driver has shown *count* bytes."""
        self._unconfirmed = max(0, self._unconfirmed - count)
        if self._unconfirmed <= self._limit:
            for output in self.outputs:
                output.resume()


def _end_of_piece(line: bytes) -> int:
    """Where a long line may be cut: not inside a mark, nor inside a character."""
    mark = line.rfind(OUTPUT_MARK[:1], len(line) - _MARK_BYTES)
    if mark >= 0:
        return mark
    for at in range(len(line) - 1, len(line) - 5, -1):
        if line[at] < 0x80:
            break
        if line[at] >= 0xC0:
            return at
    return len(line)
