"""Which bytes of the store are free: the node's allocator. It moves numbers, never memory.

Space is handed out in extents: page-aligned ranges whose lengths come in classes, eight to each doubling, so
that an extent wastes at most an eighth of what it holds and the next value of about that size finds it warm.

    quick lists    extents that were given back, by class, the last one first: its pages are the warmest
    ranges         free space that has been merged with its neighbours, found by best fit
    top            where the part begins that was never used, and so takes no memory yet

Rule 1: what is free in quick lists is merged before the used part grows by more than it already is: a
        program whose sizes change does not keep the pages of every size that it ever had.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Final

from .idle_space import IdleSpace

PAGE: Final = 4096
#: Steps from one power of two to the next, as a shift.
_STEPS_SHIFT: Final = 3
#: Free bytes in quick lists that are not worth merging.
_LOOSE_BYTES: Final = 64 << 20

#: A range of the store: where it begins, and how long it is, in bytes.
Extent = tuple[int, int]


def room_for(size: int) -> int:
    """The length of the extent for *size* bytes: the smallest of its class.

    Raises:
        ValueError: when there is nothing to store.
    """
    if size <= 0:
        raise ValueError(f"an extent holds at least one byte, not {size}")
    step = max(PAGE, 1 << max(0, (size - 1).bit_length() - 1 - _STEPS_SHIFT))
    return -(-size // step) * step


@dataclass(frozen=True, slots=True)
class Usage:
    """How the store is used, in bytes."""

    capacity: int
    #: In extents that somebody has.
    taken: int
    #: Used, and not given back to the system since: what the store takes of the machine's memory.
    grown: int
    #: The longest extent that could be taken now.
    largest_free: int

    @property
    def free(self) -> int:
        """Bytes that nobody has."""
        return self.capacity - self.taken

    @property
    def fragmentation(self) -> float:
        """The share of the free bytes that one extent cannot have; 0 when all of them lie together."""
        return 1 - self.largest_free / self.free if self.free else 0.0


class Extents:
    """The extents of a store of *capacity* bytes."""

    __slots__ = (
        "_by_end",
        "_quick",
        "_quick_bytes",
        "_ranges",
        "_sizes",
        "capacity",
        "idle",
        "taken",
        "taken_bytes",
        "top",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // PAGE * PAGE
        #: Where each extent that somebody has begins, and its length.
        self.taken: dict[int, int] = {}
        self.taken_bytes = 0
        #: Where the part begins that was never used.
        self.top = 0
        #: What of the free part takes memory, and since when.
        self.idle = IdleSpace()
        self._quick: dict[int, list[int]] = {}
        self._quick_bytes = 0
        #: Merged free ranges: start -> length, end -> start, and (length, start) in order.
        self._ranges: dict[int, int] = {}
        self._by_end: dict[int, int] = {}
        self._sizes: list[Extent] = []

    def take(self, size: int) -> Extent | None:
        """An extent for *size* bytes; None when there is no room."""
        room = room_for(size)
        quick = self._quick.get(room)
        if quick:
            self._quick_bytes -= room
            return self._took(quick.pop(), room)
        start = self._cut(room)
        if start is None and self._quick_bytes > max(_LOOSE_BYTES, self.taken_bytes):
            start = self._merge_and_cut(room)
        if start is None:
            start = self._grow(room)
        if start is None:
            start = self._merge_and_cut(room)
        if start is None:
            start = self._grow(room)
        return None if start is None else self._took(start, room)

    def give(self, start: int) -> int:
        """Take an extent back; returns its length.

        Raises:
            KeyError: when no extent that is taken begins there.
        """
        room = self.taken.pop(start)
        self.taken_bytes -= room
        self._quick.setdefault(room, []).append(start)
        self._quick_bytes += room
        self.idle.gave(start, room)
        return room

    def turn(self) -> bool:
        """Time has gone by: see what nobody has had meanwhile. Returns whether the next may find more."""
        return self.idle.turn(self.top, self.taken.items())

    def usage(self) -> Usage:
        """How the store is used now. It merges what is free, so that the longest extent shows."""
        self._merge()
        last = self._ranges[self._by_end[self.top]] if self.top in self._by_end else 0
        largest = max(self._sizes[-1][0] if self._sizes else 0, self.capacity - self.top + last)
        return Usage(self.capacity, self.taken_bytes, self.top - self.idle.bare.size_bytes, largest)

    def validate(self) -> None:
        """Assert every invariant; for tests."""
        spans = [*self.taken.items(), *self._ranges.items()]
        spans += [(start, room) for room, starts in self._quick.items() for start in starts]
        at = 0
        for start, length in sorted(spans):
            assert start == at, (start, at)
            assert length > 0
            assert start % PAGE == 0
            assert length % PAGE == 0
            at = start + length
        assert at == self.top <= self.capacity
        assert self.taken_bytes == sum(self.taken.values())
        assert self._quick_bytes == sum(room * len(starts) for room, starts in self._quick.items())
        assert self._sizes == sorted((length, start) for start, length in self._ranges.items())
        assert self._by_end == {start + length: start for start, length in self._ranges.items()}

    # --- parts ----------------------------------------------------------------------------------------------

    def _took(self, start: int, room: int) -> Extent:
        self.taken[start] = room
        self.taken_bytes += room
        self.idle.took(start, room)
        return start, room

    def _cut(self, room: int) -> int | None:
        """Cut from the shortest merged range that is long enough."""
        at = bisect_left(self._sizes, (room, 0))
        if at == len(self._sizes):
            return None
        length, start = self._sizes[at]
        self._remove(start)
        if length > room:
            self._add(start + room, length - room)
        return start

    def _grow(self, room: int) -> int | None:
        """Cut from the part that was never used, together with what is free right before it."""
        start = self._by_end.get(self.top, self.top)
        if start + room > self.capacity:
            return None
        if start < self.top:
            self._remove(start)
        self.top = max(self.top, start + room)
        return start

    def _merge_and_cut(self, room: int) -> int | None:
        self._merge()
        return self._cut(room)

    def _merge(self) -> None:
        """Make ranges of what lies in quick lists."""
        for room, starts in self._quick.items():
            for start in starts:
                self._join(start, room)
        self._quick.clear()
        self._quick_bytes = 0

    def _join(self, start: int, length: int) -> None:
        before = self._by_end.get(start)
        if before is not None:
            length += self._remove(before)
            start = before
        if start + length in self._ranges:
            length += self._remove(start + length)
        self._add(start, length)

    def _add(self, start: int, length: int) -> None:
        self._ranges[start] = length
        self._by_end[start + length] = start
        insort(self._sizes, (length, start))

    def _remove(self, start: int) -> int:
        length = self._ranges.pop(start)
        del self._by_end[start + length]
        del self._sizes[bisect_left(self._sizes, (length, start))]
        return length
