"""Items of streams that are lost: their generator runs again, and of what it yields only those are taken.

Rule 1: everything here needs the owner's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..state.lineage import Spec
from ..state.objects import FAILED, READY, ObjectRecord
from ..state.streams import Inflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..state.tasks import Task
    from .owner import Owner


class ItemSpec(Spec):
    """What is remembered of a generator: its one return is its end, and its items have places."""

    __slots__ = ("places", "unread")

    def __init__(self, name: str, returns: Sequence[int], call: Any, **more: Any) -> None:
        super().__init__(name, returns, call, **more)
        #: Of the items in scope, by their numbers; the end has none.
        self.places: dict[int, int] = {returns[0]: -1}
        #: Of those that nobody has read, by where their values lie.
        self.unread: dict[int, int] = {}

    def place(self, number: int) -> int:
        return self.places[number]

    def put_back(self, number: int, place: int) -> None:
        self.places[number] = place

    def dropped(self, number: int) -> None:
        self.places.pop(number, None)


class Recall:
    """Stands where a task has its stream, in a run for some of the items.

    Args:
        owner: The owner's tables.
    """

    __slots__ = ("_owner", "flow", "late", "record", "stopped", "task", "wanted")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        # The producer never pauses: nothing is unread here.
        self.flow = Inflow(0, soft=True)
        self.flow.discards = True
        #: Set with the task, and None again when it has ended: the two hold each other.
        self.task: Task = None  # type: ignore[assignment]
        self.record: ObjectRecord = None  # type: ignore[assignment]
        #: What is lost and still to come, by its place in the stream.
        self.wanted: dict[int, ObjectRecord] = {}
        #: What was found to be lost when this run had passed it.
        self.late: list[ObjectRecord] = []
        #: Whether the run was cancelled because nothing more is wanted of it.
        self.stopped = False

    def want(self, place: int, record: ObjectRecord) -> None:
        """One more item is lost."""
        if place < self.flow.received or self.stopped:
            self.late.append(record)
        else:
            self.wanted[place] = record

    def arrive(self, first: int, payloads: Sequence[Any], digest: int, *, large: bool = False) -> None:
        """Items have come.

        Raises:
            ProtocolError: when they are not the next ones.
        """
        self.flow.arrive(first, payloads, digest, large=large)
        for place in [place for place in self.wanted if place < self.flow.received]:
            self._owner.complete(self.wanted.pop(place), READY, payloads[place - first])
        if not self.wanted and not self.stopped:
            self.stopped = True
            session = self._owner.session
            session.call_soon(session.cancel_task, self.task)

    def fail(self, payload: Any) -> None:
        """The generator raised."""
        for record in self.rest():
            self._owner.complete(record, FAILED, payload)

    def rest(self) -> list[ObjectRecord]:
        """What this run will not make: the caller has it now."""
        rest = list(self.wanted.values())
        self.wanted.clear()
        return rest

    def extras(self, others: dict[str, Any] | None) -> dict[str, Any] | None:
        """What a worker must know to go on where an earlier attempt of this run has ended."""
        return {**(others or {}), "stream": self.flow.position()}

    def tell(self) -> None:
        """The producer need not hear how far the reader is."""
