"""Doors: where a task says which process runs it, and stays until the test lets it go on.

    door = doors.new()
    ref = stand_at.remote(door.name)
    pid = door.arrival()            # the task is running, in this process
    door.let_in()                   # one that stands there goes on

A door is a pair of named pipes, so it outlives whoever stands at it, and nobody sleeps.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds after which somebody who does not come is missing.
PATIENCE_S = 20.0


def say_at(name: str, text: str) -> None:
    """Write one line to whoever listens at a door; called from any process."""
    fd = os.open(f"{name}.said", os.O_WRONLY)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def stand_at(name: str) -> int:
    """Say who is there and wait to be let in; returns this process's id."""
    say_at(name, str(os.getpid()))
    wait_at(name)
    return os.getpid()


def wait_at(name: str) -> None:
    """Wait to be let in, without a word."""
    fd = os.open(f"{name}.passes", os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)


class Door:
    """One door, seen from the test."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder / uuid4().hex)
        self._fds = []
        for suffix in ("said", "passes"):
            os.mkfifo(f"{self.name}.{suffix}")
            # For both directions: nobody's open has to wait for anybody.
            self._fds.append(os.open(f"{self.name}.{suffix}", os.O_RDWR))
        self._heard = b""

    def hear(self, timeout_s: float = PATIENCE_S) -> str:
        """The next line that somebody says here.

        Raises:
            AssertionError: when nobody does in time.
        """
        while b"\n" not in self._heard:
            assert self._somebody_there(timeout_s), "nobody came to the door"
            self._heard += os.read(self._fds[0], 4096)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def arrival(self) -> int:
        """Process id of the next one who comes."""
        return int(self.hear())

    def is_quiet(self) -> bool:
        """Whether nobody has said anything that was not heard."""
        return not self._heard and not self._somebody_there(0)

    def let_in(self, count: int = 1) -> None:
        """Let so many go on, now or when they come."""
        os.write(self._fds[1], b"." * count)

    def close(self) -> None:
        """Take it down."""
        for fd in self._fds:
            os.close(fd)

    def _somebody_there(self, timeout_s: float) -> bool:
        return bool(select.select([self._fds[0]], [], [], timeout_s)[0])


class Doors:
    """Makes doors, and takes them down at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Door] = []

    def new(self) -> Door:
        """One more."""
        self._made.append(Door(self._folder))
        return self._made[-1]

    def close(self) -> None:
        """Take all down."""
        for door in self._made:
            door.close()
