"""A stream of items, as its consumer and its producer count it.

The consumer's process owns the stream. It knows how many items have arrived and how many of them were read,
and tells the producer the latter; the producer never has more than `bound` items out that were not read.

    producer:  produced ---> (gathered, sent) ---> consumer:  received ---> (unread) ---> read
       ^                                                                                   |
       +------------------------------ credit: how many were read -------------------------+

A producer that is run again is told how many items have arrived, and a digest of them: it produces those
once more without sending them.

Rule 1: no I/O, no clock, no lock. `unread` may be taken from by any thread: a deque can bear that. All else
        of :class:`Inflow` is changed under the owner's lock.
Rule 2: nothing is counted twice: what was read is what has arrived and is not in `unread`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: As many reads as nobody will make: a producer that is told so never pauses.
WITHOUT_END: Final = 2**62
#: Instead of a number of reads: there will be no more of them. A producer that pauses from then on is over.
NO_MORE: Final = -1
#: One part of the bound that may be read before the producer is told.
_PARTS: Final = 8
#: An item of so many bytes counts by its size, too, and its reader tells of it at once.
LARGE_BYTES: Final = 4096


class Inflow:
    """The consumer's side.

    Args:
        bound: Items that may be unread; 0 is without end.
        soft: Whether the bound may be lifted.
    """

    __slots__ = (
        "_bound", "_eager", "_soft", "digest", "discards", "forsaken", "received", "tell_at", "unread",
    )  # fmt: skip

    def __init__(self, bound: int, *, soft: bool) -> None:
        self._bound = bound
        self._soft = soft
        #: Whether the producer hears of each item that was read.
        self._eager = False
        #: Payloads that have arrived and were not read, in order.
        self.unread: deque[Any] = deque()
        #: Items that have arrived.
        self.received = 0
        #: What the producer said of the items that have arrived.
        self.digest = 0
        #: Whether what arrives counts as read at once, because nobody will. Set before anything is dropped:
        #: who takes an item and then finds it set, must not use that.
        self.discards = False
        #: Whether nobody who could read is left: a producer that would pause for that is stopped instead.
        self.forsaken = False
        #: Items read at which the producer is told of it.
        self.tell_at = self._step() if bound else WITHOUT_END

    def arrive(self, first: int, payloads: Sequence[Any], digest: int, *, large: bool = False) -> None:
        """Take items that have arrived.

        Args:
            first: The number of the first of them, from 0.
            payloads: The items.
            digest: What the producer says of all of them so far.
            large: Whether one of them is: the producer may then wait for a single one to be read.

        Raises:
            ProtocolError: when they are not the next ones.
        """
        if first != self.received:
            raise ProtocolError(f"items from {first} on came where those from {self.received} on were due")
        if large and not self._eager and self._bound:
            # Before anybody can read it.
            self._eager = True
            self.tell_at = min(self.tell_at, self.read + 1)
        if not self.discards:
            self.unread.extend(payloads)
        # In this order: a reader in between finds fewer read than were, which is told a moment later.
        self.received += len(payloads)
        self.digest = digest

    @property
    def read(self) -> int:
        """How many items were read."""
        return self.received - len(self.unread)

    def due(self) -> int | None:
        """What the producer must be told to have been read; None while that is of no use to it."""
        read = self.read
        if read < self.tell_at:
            return None
        self.tell_at = read + self._step()
        return read

    def lift(self) -> bool:
        """Let the producer run on however much is unread; False when the bound was the user's own."""
        if not self._soft or not self._bound:
            return False
        self._bound, self.tell_at = 0, WITHOUT_END
        return True

    def discard(self) -> list[Any]:
        """Nobody will read: returns what was unread, to be dropped outside the lock."""
        self.discards = True
        dropped: list[Any] = []
        while self.unread:
            dropped.append(self.unread.popleft())
        return dropped

    def position(self) -> list[int] | None:
        """What a producer that begins now must know: [received, read, digest]; None at the very start."""
        read = self.read
        if self._bound:
            self.tell_at = read + self._step()
            return [self.received, read, self.digest] if self.received else None
        if self.received or self._soft:
            return [self.received, WITHOUT_END, self.digest]
        return None

    def validate(self) -> None:
        """Assert every invariant; for tests and debugging."""
        assert 0 <= self.read <= self.received
        assert not self._bound or self.read < self.tell_at <= self.read + self._step()
        assert not self.discards or not self.unread

    def _step(self) -> int:
        return 1 if self._eager else max(1, self._bound // _PARTS)


class Outflow:
    """The producer's side.

    Args:
        bound: Items that may be unread; 0 is without end.
        bound_bytes: Bytes that may be unread, in large items; the one that reaches it is the last. 0 is
            without end.
        position: What :meth:`Inflow.position` said.
    """

    __slots__ = (
        "_bound", "_bound_bytes", "_large", "_large_bytes", "forsaken", "on_credit", "produced", "read",
        "skip", "skipped_digest",
    )  # fmt: skip

    def __init__(self, bound: int, bound_bytes: int, position: Sequence[int] | None) -> None:
        self._bound = bound or WITHOUT_END
        self._bound_bytes = bound_bytes or WITHOUT_END
        #: Number and size of each large item that was not read.
        self._large: deque[tuple[int, int]] = deque()
        self._large_bytes = 0
        #: Items that the consumer has from an earlier run, and its digest of them.
        self.skip, self.read, self.skipped_digest = (0, 0, 0) if position is None else position
        #: Items made, those of an earlier run included.
        self.produced = self.skip
        #: Whether the consumer has said that it will read no more.
        self.forsaken = False
        #: Called when credit has come; None while the producer does not wait for it.
        self.on_credit: Callable[[], object] | None = None

    def may_go_on(self) -> bool:
        """Whether one more item may be made."""
        return self.produced - self.read < self._bound and self._large_bytes < self._bound_bytes

    @property
    def unread(self) -> int:
        """Items that were made and, for all that is known here, not read."""
        return max(0, self.produced - self.read)

    def made(self, size_bytes: int) -> None:
        """One more item was made."""
        if size_bytes >= LARGE_BYTES and self.produced >= self.read:
            self._large.append((self.produced, size_bytes))
            self._large_bytes += size_bytes
        self.produced += 1

    def is_over(self) -> bool:
        """Whether no more item can ever be made."""
        return self.forsaken and not self.may_go_on()

    def credit(self, read: int) -> None:
        """The consumer has read so many; or NO_MORE."""
        if read == NO_MORE:
            self.forsaken = True
        elif read <= self.read:
            return
        else:
            self.read = read
        while self._large and self._large[0][0] < read:
            self._large_bytes -= self._large.popleft()[1]
        if self.on_credit is not None:
            self.on_credit()
