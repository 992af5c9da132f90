"""Priorities of one owner: the ranks of its tasks, and when a worker is left to others.

What is decided where: the order within a scheduling class is its queue's (state.ranking). Between classes,
and between owners, a worker is handed on where a better ranked task waits: it gets nothing more from its
class, and goes back to the node when it has nothing to do; the node serves the best ranked of the deepest
demands.

Rule 1: nothing of this costs anything until the first priority that is not 0 is used, here or elsewhere.
Rule 2: a lease that was granted just now gets at least one task, whoever is ranked better: the node has
        decided, and a lease that goes back unused would come back at once.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError
from ..state.ranking import MARGIN, first_waiting, put, rank_of
from ..wire import messages as m

if TYPE_CHECKING:
    from ..state.pipeline import SchedulingClass
    from ..state.tasks import Task
    from .session import Session


class Priorities:
    """The ranks of one owner's tasks. Methods need the owner's lock unless they say otherwise."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ageing_s = session.config.priority_ageing_s
        #: Whether priorities are used; once they are, every task has a rank.
        self.used = False
        #: By class: the rank of the best task of another class or owner that waits for what its leases hold.
        self._outbid: dict[int, float] = {}
        #: The rank of each class's first task, as the node knows it.
        self._told: dict[int, float] = {}

    def enqueue(self, task: Task) -> None:
        """Queue a ready task where its priority puts it; for tasks of priority 0 only while any are used."""
        if not self.used:
            self._use()
        descriptor = task.descriptor
        if not task.rank:
            task.rank = rank_of(descriptor.priority, self._session.clock(), self._ageing_s)
        descriptor.group.queue = put(descriptor.group.queue, task)

    def _use(self) -> None:
        """Rank what was queued or sent before: it counts as waiting since now."""
        self.used = True
        now = rank_of(0, self._session.clock(), self._ageing_s)
        for group in self._session.leases.classes():
            for task in group.queue:
                task.rank = now
            for lease in group.leases.values():
                for task in lease.in_flight.values():
                    task.rank = now

    def begin(self) -> None:
        """Somebody uses priorities. On the loop, without the lock."""
        with self._session.owner.lock:
            if not self.used:
                self._use()
            groups = [group for group in self._session.leases.classes() if group.queue]
        for group in groups:
            self._session.pump_later(group)

    def outbid(self, number: int, lead_s: float | None) -> None:
        """A better ranked task waits for what leases of a class hold, so many seconds ahead of a new one.

        On the loop, without the lock.

        Args:
            number: The class.
            lead_s: None when none waits any more.

        Raises:
            ProtocolError: when there is no such class, or that is no number of seconds.
        """
        groups = self._session.leases.classes()
        if not 0 <= number < len(groups) or (lead_s is not None and not isfinite(lead_s)):
            raise ProtocolError(f"nobody can be {lead_s} seconds ahead of class {number}")
        if lead_s is not None:
            self._outbid[number] = self._session.clock() - lead_s
        elif self._outbid.pop(number, None) is not None:
            # Workers that were left alone may have room.
            self._session.pump_later(groups[number])

    def leaves_to_others(self, group: SchedulingClass) -> bool:
        """Whether a task that waits for what this class's leases hold is ranked better than its first."""
        best = self._outbid.get(group.number)
        if best is None:
            return False
        first = first_waiting(group.queue)
        return first is not None and best < first.rank - MARGIN * self._ageing_s

    def news(self, group: SchedulingClass) -> list[Any] | None:
        """The message that tells the node how its class ranks now; None when it knows well enough."""
        first = first_waiting(group.queue)
        if first is None:
            self._told.pop(group.number, None)
            return None
        told = self._told.get(group.number)
        if told is not None and abs(told - first.rank) < MARGIN * self._ageing_s:
            return None
        self._told[group.number] = first.rank
        return [m.RANK, group.number, self._session.clock() - first.rank]
