"""Items of a stream as they travel, and their digest."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import msgpack

from ..exceptions import ProtocolError
from .values import SCALARS, BufferFeed, Encoded, Payload, from_wire, size_bytes, to_wire, wire_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..refs import RefAddress
    from .frames import Buffer
    from .stored import Stored

#: Types of payloads that are their own field.
PLAIN: Final = frozenset({*SCALARS, bytes})


def items_to_wire(payloads: list[Payload], buffers: list[Buffer]) -> list[Any]:
    """Payloads as a field of a message; their buffers are added to the frame's."""
    if set(map(type, payloads)) <= PLAIN:
        return payloads
    return [to_wire(payload, buffers) for payload in payloads]


class Items:
    """Payloads from a field of a message.

    Args:
        fields: The field.
        buffers: The frame's.
        adopt: As of BufferFeed.

    Raises:
        ProtocolError: when one is no payload.
    """

    __slots__ = ("holding", "kinds", "payloads")

    def __init__(
        self, fields: list[Any], buffers: Sequence[memoryview], adopt: Callable[[Stored], None] | None = None
    ) -> None:
        self.kinds = set(map(type, fields))
        #: Those that hold references, with their addresses.
        self.holding: list[tuple[Encoded, list[RefAddress]]] = []
        self.payloads: list[Payload] = fields
        if not self.kinds <= PLAIN:
            feed = BufferFeed(buffers, adopt)
            self.payloads = [self._one(field, feed) for field in fields]

    def _one(self, field: Any, feed: BufferFeed) -> Payload:
        payload, addresses = from_wire(field, feed)
        if addresses:
            self.holding.append((payload, addresses))  # type: ignore[arg-type]
        return payload

    def has_any_of(self, size_bytes: int) -> bool:
        """Whether one takes as many bytes."""
        if self.kinds <= SCALARS:
            return False
        return any(weight(payload) >= size_bytes for payload in self.payloads)


def weight(payload: Payload) -> int:
    """Bytes that an unread item keeps, wherever they lie."""
    return max(wire_bytes(payload), size_bytes(payload))


def digest_of(payloads: list[Payload], before: int) -> int:
    """The digest of items that follow on those whose digest is *before*, however they are cut into batches.

    Plain values alone count as what they are. A pickle may differ though the value does not (sets, classes
    made anew), so that a pickled item counts as one, and no more.
    """
    if not set(map(type, payloads)) <= SCALARS:
        payloads = [payload if type(payload) in SCALARS else None for payload in payloads]
    packed = memoryview(msgpack.packb(payloads))
    # Without the header, which counts the items of this batch.
    header = 1 if len(payloads) < 16 else 3 if len(payloads) < 2**16 else 5
    return zlib.crc32(packed[header:], before)


def check_position(position: Any) -> list[int] | None:
    """Check where a stream is to go on: None, or how many items have arrived, were read, and their digest.

    Raises:
        ProtocolError: when it is anything else.
    """
    if position is None:
        return None
    if type(position) is not list or len(position) != 3:
        raise ProtocolError("the position of a stream is three numbers")
    if not all(type(number) is int and number >= 0 for number in position):
        raise ProtocolError("the position of a stream is three numbers that are not negative")
    return position
