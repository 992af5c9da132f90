"""Beacons: what tasks and other processes tell a test, in lines; the test waits for them and never sleeps.

A beacon is a named pipe. Whoever knows its path can light it; a line is written whole, or not at all.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds that a line may take to come.
PATIENCE_S = 30.0


def light(path: str, line: object = "") -> None:
    """Tell a line."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


class Beacon:
    """Where lines arrive."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / uuid4().hex)
        os.mkfifo(self.path)
        # For both directions: nobody has to wait for the other end, and a teller's end is not the pipe's.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self._lines: list[str] = []
        self._rest = b""

    def next(self, timeout_s: float = PATIENCE_S) -> str:
        """Wait for the next line.

        Raises:
            TimeoutError: when none comes in time.
        """
        while not self._lines:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                raise TimeoutError(f"nobody has told anything for {timeout_s:g} s")
            self._read()
        return self._lines.pop(0)

    def told(self) -> list[str]:
        """The lines that have come already, and were not taken."""
        self._read()
        lines, self._lines = self._lines, []
        return lines

    def _read(self) -> None:
        try:
            while data := os.read(self._fd, 65536):
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines += [line.decode() for line in lines]
        except BlockingIOError:
            return

    def close(self) -> None:
        """Take it down."""
        os.unlink(self.path)  # noqa: PTH108
        os.close(self._fd)
