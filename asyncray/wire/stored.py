"""Values that lie in shared memory, and the unfinished form of a value that may go there.

A stored value travels as a handful of numbers: where its extent begins, how long that is, how many bytes the
pickle takes, and how many each of its buffers. The pickle lies at the beginning, each buffer behind it at the
next multiple of 64.

Rule 1: a Stored that counts has a keeper, which is told of its end by its destructor; so the space goes back
        whichever way the last holder lets go: a freed record, a dropped message, a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..refs import ObjectRef

#: Buffers lie at multiples of this: a cache line, and what Arrow and vector instructions want.
ALIGNMENT: Final = 64


class Keeper(Protocol):
    """Who counts the stored values of a process."""

    def dropped(self, start: int) -> None:
        """A Stored is gone. Called by destructors: anywhere, in any thread."""


class Stored:
    """A pickled value in shared memory."""

    __slots__ = ("buffers", "data_bytes", "keeper", "refs", "room", "start", "used")

    def __init__(self, start: int, room: int, data_bytes: int, buffers: Sequence[int]) -> None:
        #: Where its extent begins, and how long that is.
        self.start = start
        self.room = room
        self.data_bytes = data_bytes
        #: Bytes of each buffer.
        self.buffers = buffers
        #: The references inside the value, held here so that their objects live.
        self.refs: Sequence[ObjectRef[Any]] = ()
        #: Told when this is gone; None while it does not count.
        self.keeper: Keeper | None = None
        #: Grows with each use in this process: the least of them was not used for longest.
        self.used = 0

    def __del__(self) -> None:
        keeper = self.keeper
        if keeper is not None:
            keeper.dropped(self.start)

    @property
    def size_bytes(self) -> int:
        """Bytes of the pickle and its buffers."""
        return self.data_bytes + sum(self.buffers)

    @property
    def room_bytes(self) -> int:
        """Bytes that it takes, from the beginning of its extent."""
        return end_of(self.data_bytes, self.buffers)

    def to_wire(self) -> list[Any]:
        """All but the references, as a list of numbers."""
        return [self.start, self.room, self.data_bytes, list(self.buffers)]


def aligned(at: int) -> int:
    """The next place where a buffer may lie."""
    return -(-at // ALIGNMENT) * ALIGNMENT


def end_of(data_bytes: int, buffers: Sequence[int]) -> int:
    """Where the last buffer ends."""
    at = data_bytes
    for size in buffers:
        at = aligned(at) + size
    return at


def stored_from_wire(field: list[Any]) -> Stored:
    """Undo `to_wire`.

    Raises:
        ProtocolError: when the numbers cannot be those of a value.
    """
    start, room, data_bytes, buffers = field
    if type(buffers) is not list:
        raise ProtocolError("the buffers of a stored value are not a list of sizes")
    numbers = [start, room, data_bytes, *buffers]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ProtocolError("a stored value is described by something else than numbers")
    at = end_of(data_bytes, buffers)
    if at > room:
        raise ProtocolError(f"a stored value of {at} bytes cannot lie in {room}")
    return Stored(start, room, data_bytes, buffers)
