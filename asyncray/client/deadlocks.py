"""Finding tasks that wait for each other, and saying so once. In a driver, on its loop.

A circle is closed by a call that begins to wait, and only there. So nobody looks for circles until a worker
says that one of its calls has waited for the same for long (STALLED); then the driver looks at the waits of
all running calls, and at what those need. What it sees is no picture of one moment. So it looks a second
time, and believes only the waits that it saw both times, unchanged: those were there between the two looks.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..state.circles import knots, settled
from ..state.inquiry import Exploration
from ..state.wait_graph import graph_of, vertices_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..state.circles import Vertex
    from ..state.inquiry import Findings
    from .inquiries import Inquiries
    from .session import Session

_log = logging.getLogger("asyncray")
#: Tasks in circles that are remembered, so that they are told of once.
_MOST_TOLD: Final = 10_000


class Deadlocks:
    """Looks when told that calls stand still."""

    def __init__(self, session: Session, inquiries: Inquiries) -> None:
        self._session = session
        self._inquiries = inquiries
        self._looking = False
        #: Whether a call has stalled since the look that is under way began.
        self._again = False
        #: All that is in the knots that the user has been told of.
        self._told: dict[Hashable, None] = {}

    def stalled(self) -> None:
        """A call has waited for the same for long."""
        if self._looking:
            self._again = True
            return
        self._looking = True
        self._again = False
        self._explore(self._first_look)

    def _explore(self, then: object) -> None:
        self._inquiries.start(Exploration().of_everything(objects=False), then)  # type: ignore[arg-type]

    def _first_look(self, findings: Findings) -> None:
        before = vertices_of(findings)
        if self._new(before):
            self._explore(lambda again: self._second_look(before, again))
        else:
            self._rest()

    def _second_look(self, before: dict[Hashable, Vertex], findings: Findings) -> None:
        vertices = settled(before, vertices_of(findings))
        found = self._new(vertices)
        # A circle that was seen only once may be one all the same, in other numbers.
        self._again |= not found
        graph = graph_of(findings, vertices, [way for way, _ in found], {})
        for (_, knot), ids in zip(found, graph.cycles, strict=True):
            self._told.update(dict.fromkeys(knot))
            _log.warning(
                "tasks wait for each other, and none of them can go on: %s. Cancel one of them, or see "
                "asyncray.util.wait_graph()",
                graph.describe_cycle(ids),
            )
        while len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._rest()

    def _new(self, vertices: dict[Hashable, Vertex]) -> list[tuple[list[Hashable], set[Hashable]]]:
        """The knots that the user has not been told of, not even of a part."""
        return [found for found in knots(vertices) if self._told.keys().isdisjoint(found[1])]

    def _rest(self) -> None:
        """Let some time pass before the next look, whoever stalls."""
        session = self._session
        if session.failure is None:
            session.timer(session.config.wait_check_s, self._rested)

    def _rested(self) -> None:
        self._looking = False
        if self._again and self._session.failure is None:
            self.stalled()
