"""Which free parts of the store take memory that nobody has had for a while: they can go back to the system.

Time goes in turns, which the node's clock makes. What was given back in this turn or in the one before is
left alone: a loop that makes and frees one object after the other must find its pages warm. The rest of what
is free is due, piece by piece, until somebody takes it; what has gone back is bare, and takes no memory until
it is used again.

Rule 1: pure, and moves numbers only. Who gives a piece back says so at once (bared).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Where a part begins, and where it ends.
Span = tuple[int, int]


class Spans:
    """Parts of the store that do not touch each other, in order."""

    __slots__ = ("spans",)

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self.spans = list(spans)

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(end - begin for begin, end in self.spans)

    def cut(self, begin: int, end: int) -> None:
        """Take a part out, as far as it is there."""
        first, last = self._touched(begin + 1, end - 1)
        if first == last:
            return
        left, right = self.spans[first][0], self.spans[last - 1][1]
        rest = [(left, begin)] if left < begin else []
        if right > end:
            rest.append((end, right))
        self.spans[first:last] = rest

    def add(self, begin: int, end: int) -> None:
        """Put a part in, together with what it touches."""
        first, last = self._touched(begin, end)
        if first < last:
            begin, end = min(begin, self.spans[first][0]), max(end, self.spans[last - 1][1])
        self.spans[first:last] = [(begin, end)]

    def _touched(self, begin: int, end: int) -> tuple[int, int]:
        """The first of the parts that reach *begin*, and the first behind *end*, by their places."""
        first = bisect_left(self.spans, (begin,))
        if first and self.spans[first - 1][1] >= begin:
            first -= 1
        last = first
        while last < len(self.spans) and self.spans[last][0] <= end:
            last += 1
        return first, last


def _gaps(spans: Iterable[Span], top: int) -> Iterator[Span]:
    """What lies between spans, which come in order and may overlap, below *top*."""
    at = 0
    for begin, end in spans:
        if begin > at:
            yield at, begin
        at = max(at, end)
    if at < top:
        yield at, top


class IdleSpace:
    """What the node knows about the memory of its free space."""

    __slots__ = ("_before", "_due", "_given", "bare")

    def __init__(self) -> None:
        #: What was given back in this turn, and in the one before: start -> length.
        self._given: dict[int, int] = {}
        self._before: dict[int, int] = {}
        #: What can go back to the system.
        self._due = Spans()
        #: What has gone back, and was not used since.
        self.bare = Spans()

    def took(self, start: int, length: int) -> None:
        """Somebody has this now."""
        for spans in (self._due, self.bare):
            if spans.spans:
                spans.cut(start, start + length)

    def gave(self, start: int, length: int) -> None:
        """Nobody has this any more."""
        # A shorter one may begin where a longer one did before.
        self._given[start] = max(length, self._given.get(start, 0))

    def turn(self, top: int, taken: Iterable[tuple[int, int]]) -> bool:
        """A turn is over: find what is due, below *top*. Returns whether the next turn can find more."""
        self._before, self._given = self._given, {}
        kept = [(start, start + length) for start, length in (*taken, *self._before.items())]
        self._due = Spans(_gaps(sorted([*kept, *self.bare.spans]), top))
        return bool(self._before)

    def next_due(self, most: int) -> tuple[int, int] | None:
        """The beginning and length of a piece that can go back, *most* bytes at most; None: there is none."""
        if not self._due.spans:
            return None
        begin, end = self._due.spans[0]
        return begin, min(end - begin, most)

    def bared(self, start: int, length: int) -> None:
        """The memory of a piece has gone back."""
        self._due.cut(start, start + length)
        self.bare.add(start, start + length)
