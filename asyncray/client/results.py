"""The rows of RESULTS, as they come from a worker, turned into payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError
from ..wire import messages as m
from ..wire.values import Encoded, from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..refs import RefAddress
    from ..wire.values import BufferFeed

#: What is a payload as it comes.
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


class Results:
    """Turns the rows of RESULTS into payloads, in place.

    Args:
        make_feed: Makes what deals out the message's buffers; called when there is a row that needs it.
        rows: The rows.
    """

    __slots__ = ("_feed", "_make_feed", "holding")

    def __init__(self, make_feed: Callable[[], BufferFeed], rows: list[Any]) -> None:
        self._make_feed = make_feed
        self._feed: BufferFeed | None = None
        #: Payloads with references inside: (task number, payload, addresses).
        self.holding: list[tuple[int, Encoded, list[RefAddress]]] = []
        for row in rows:
            if row[1] == m.MANY:
                row[2] = [
                    item if type(item) in _PLAIN else self._one(row[0], item) for item in _as_list(row[2])
                ]
            elif type(row[2]) not in _PLAIN:
                row[2] = self._one(row[0], row[2])
            if row[1] != m.OK:
                m.check_status("RESULTS", row[1], row[2])

    def _one(self, number: int, field: Any) -> Any:
        if self._feed is None:
            self._feed = self._make_feed()
        payload, addresses = from_wire(field, self._feed)
        if addresses:
            self.holding.append((number, payload, addresses))  # type: ignore[arg-type]
        return payload


def _as_list(payload: Any) -> list[Any]:
    if type(payload) is not list:
        raise ProtocolError("several returns must come as a list")
    return payload
