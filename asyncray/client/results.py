"""The results of calls as they come from a worker, turned into payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError
from ..wire import messages as m
from ..wire.values import BufferFeed, Encoded, from_wire

if TYPE_CHECKING:
    from ..refs import RefAddress


class Results:
    """Turns the rows of RESULTS into payloads, in place."""

    def __init__(self, feed: BufferFeed, rows: list[Any]) -> None:
        self._feed = feed
        #: Payloads with references inside: (task number, payload, addresses).
        self.holding: list[tuple[int, Encoded, list[RefAddress]]] = []
        for row in rows:
            if row[1] == m.MANY:
                row[2] = [self._one(row[0], item) for item in _as_list(row[2])]
            elif type(row[2]) not in _PLAIN:
                row[2] = self._one(row[0], row[2])
            if row[1] != m.OK:
                m.check_status("RESULTS", row[1], row[2])

    def _one(self, number: int, field: Any) -> Any:
        payload, addresses = from_wire(field, self._feed)
        if addresses:
            self.holding.append((number, payload, addresses))  # type: ignore[arg-type]
        return payload


_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def _as_list(payload: Any) -> list[Any]:
    if type(payload) is not list:
        raise ProtocolError("several returns must come as a list")
    return payload
