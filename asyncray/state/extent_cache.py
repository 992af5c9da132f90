"""The extents that one process was granted: which are free, which hold values, and for whom.

A process cuts its values out of these without asking anybody. An extent goes its way:

    added (free) -> taken -> recycled (free) -> ...        a value of this process's own
    added (free) -> taken -> handed over -> recycled       a result, whose object another process owns
    added (free) -> returned to the node                   nobody here needs it

Rule 1: pure. No lock, no I/O: the store calls it under its own lock, and carries out what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .extents import Extent, room_for

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExtentCache:
    """One process's extents."""

    __slots__ = ("_free", "_last", "_never_needed", "free_bytes", "handed", "used")

    def __init__(self) -> None:
        #: Free ones by length, the one used last at the end: its pages are the warmest.
        self._free: dict[int, list[int]] = {}
        self.free_bytes = 0
        #: How many of each length were free all the time since the last look; see unneeded.
        self._never_needed: dict[int, int] = {}
        #: The one that was recycled last, where it begins.
        self._last = -1
        #: Those that hold values: start -> length.
        self.used: dict[int, int] = {}
        #: Those whose value another process owns: start -> its process id.
        self.handed: dict[int, bytes] = {}

    def add(self, extents: Iterable[Extent]) -> None:
        """The node has granted these."""
        for start, room in extents:
            self._put_back(start, room)

    def has(self, start: int, room: int) -> bool:
        """Whether such an extent is here, free or not."""
        return start in self.used or start in self._free.get(room, ())

    def take(self, size: int) -> Extent | None:
        """An extent for *size* bytes; None when none of that class is free here."""
        room = room_for(size)
        starts = self._free.get(room)
        if not starts:
            return None
        start = starts.pop()
        if self._never_needed.get(room, 0) > len(starts):
            self._never_needed[room] = len(starts)
        self.free_bytes -= room
        self.used[start] = room
        return start, room

    def hand_over(self, start: int, owner: bytes) -> None:
        """The value there belongs to another process from now on."""
        self.handed[start] = owner

    def recycle(self, start: int) -> bool:
        """Nobody needs the value there any more; False when there is none."""
        room = self.used.pop(start, None)
        if room is None:
            return False
        self.handed.pop(start, None)
        self._put_back(start, room)
        self._last = start
        return True

    def recycle_from(self, start: int, owner: bytes) -> bool:
        """As recycle, said by another process: False when the value there is not its own."""
        return self.handed.get(start) == owner and self.recycle(start)

    def orphans(self, owner: bytes) -> list[int]:
        """A process is dead: forget the values that it owned; returns where they lie. They may be read."""
        starts = [start for start, whose in self.handed.items() if whose == owner]
        for start in starts:
            del self.handed[start]
            del self.used[start]
        return starts

    def surplus(self, keep_bytes: int, *, spare_last: bool = False) -> list[int]:
        """Take out free extents until at most *keep_bytes* are left, the longest first; returns them.

        Args:
            keep_bytes: Bytes that may stay.
            spare_last: Whether the one that was recycled last stays, if it is free, and does not count.
        """
        out: list[int] = []
        for room in sorted(self._free, reverse=True) if self.free_bytes > keep_bytes else ():
            starts = self._free[room]
            if spare_last and starts and starts[-1] == self._last:
                keep_bytes += room
            while starts and self.free_bytes > keep_bytes:
                # The first is the one that lay unused for longest.
                if spare_last and starts[0] == self._last:
                    break
                out.append(starts.pop(0))
                self.free_bytes -= room
                self._never_needed[room] = max(0, self._never_needed.get(room, 0) - 1)
            if not starts:
                del self._free[room]
        return out

    def unneeded(self) -> list[int]:
        """Take out what was free all the time since the last look; returns it."""
        out: list[int] = []
        for room, count in self._never_needed.items():
            starts = self._free.get(room, [])
            out += starts[:count]
            self.free_bytes -= room * len(starts[:count])
            del starts[:count]
        self._never_needed = {room: len(starts) for room, starts in self._free.items() if starts}
        return out

    def _put_back(self, start: int, room: int) -> None:
        self._free.setdefault(room, []).append(start)
        self.free_bytes += room
