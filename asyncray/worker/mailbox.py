"""The calls of an actor that runs several at a time: who may start, and who waits.

Rule 1: nothing starts before the constructor has returned.
Rule 2: of each concurrency group so many calls run at a time; the others wait, in their order.
Rule 3: no I/O, no loop: the worker asks, and starts what it is told to.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Group(Generic[T]):
    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: deque[T] = deque()


class Mailbox(Generic[T]):
    """What has come and not been started, by concurrency group; "" is the group of all others."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group[T]] = {"": _Group(1)}
        self._open = False

    def open(self, limits: dict[str, int], running: int = 0) -> list[T]:
        """The constructor has returned: returns what has come by now, to be admitted.

        Args:
            limits: How many calls of each group may run at a time.
            running: How many of the group of all others do already.
        """
        early = self._groups[""].waiting
        self._groups = {name: _Group(limit) for name, limit in limits.items()}
        self._groups[""].running = running
        self._open = True
        return list(early)

    def admit(self, item: T, group: str) -> bool:
        """Whether something that has come may start now; else it waits."""
        if not self._open:
            self._groups[""].waiting.append(item)
            return False
        room = self._groups.get(group) or self._groups[""]
        if room.running < room.limit:
            room.running += 1
            return True
        room.waiting.append(item)
        return False

    def ended(self, group: str) -> T | None:
        """A call has ended: returns the one that starts in its place, if one waits."""
        room = self._groups.get(group) or self._groups[""]
        if room.waiting:
            return room.waiting.popleft()
        room.running -= 1
        return None

    def take(self, wanted: Callable[[T], bool]) -> list[T]:
        """Take out what waits and is *wanted*."""
        taken: list[T] = []
        for room in self._groups.values():
            found = [item for item in room.waiting if wanted(item)]
            if found:
                taken += found
                room.waiting = deque(item for item in room.waiting if not wanted(item))
        return taken

    def __len__(self) -> int:
        return sum(len(room.waiting) for room in self._groups.values())
