"""Deadlines: the tasks of one owner that must be done by some time, and the one timer for all of them.

A heap of what is under a deadline; the loop's timer stands at the first. A task that ends before is left in
the heap until its time, or until half of the heap are such.

Rule 1: a deadline ends its task through Owner.stop, as a cancel does: the reference fails at once, and who
        runs the task is told to stop it and what it has called for.
Rule 2: a result and a deadline are both taken under the owner's lock: the first counts, the other changes
        nothing.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import GetTimeoutError
from ..state.tasks import DONE, SENT, WAITING, Task

if TYPE_CHECKING:
    import asyncio

    from .session import Session
    from .terms import Terms

#: Seconds that an inherited deadline is late: who has set it ends all below it, and tells which call had the
#: timeout. Were those below ended at the same moment, their failures could be the news that comes first.
_BEHIND_S: Final = 0.05
#: Tasks in the heap before it is looked through for those that are done.
_FEW: Final = 64


class Deadlines:
    """What of one owner is under a deadline. Methods need the owner's lock unless they say otherwise."""

    def __init__(self, session: Session) -> None:
        self._session = session
        #: [when it is due, number, task]; the task is None when it has ended.
        self._heap: list[list[Any]] = []
        self._sweep_at = _FEW
        #: When the timer fires; None: there is none. On the loop alone.
        self._armed_for: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, task: Task, terms: Terms) -> bool:
        """End a task at its deadline; False when that has passed."""
        deadline = terms.deadline
        assert deadline is not None
        if deadline <= self._session.clock():
            return False
        due = deadline if terms.own else deadline + _BEHIND_S
        heap = self._heap
        if len(heap) >= self._sweep_at:
            heap[:] = [entry for entry in heap if entry[2] is not None]
            heapify(heap)
            self._sweep_at = max(_FEW, 2 * len(heap))
        first = not heap or due < heap[0][0]
        terms.entry = [due, task.number, task]
        heappush(heap, terms.entry)
        if first:
            self._session.call_soon(self._arm)
        return True

    def _arm(self) -> None:
        """Set the timer for the first deadline. On the loop, without the lock."""
        with self._session.owner.lock:
            while self._heap and self._heap[0][2] is None:
                heappop(self._heap)
            first = self._heap[0][0] if self._heap else None
        if self._armed_for == first and first is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = None, first
        if first is not None:
            left_s = max(0.0, first - self._session.clock())
            self._timer = self._session.loop.call_later(left_s, self._expire)

    def _expire(self) -> None:
        """End what is due. On the loop, without the lock."""
        self._timer = self._armed_for = None
        session, ended = self._session, []
        with session.owner.lock:
            now = session.clock()
            while self._heap and self._heap[0][0] <= now:
                task = heappop(self._heap)[2]
                if task is not None and task.state != DONE:
                    session.owner.stop(task, expired(task))
                    ended.append(task)
        for task in ended:
            session.leases.cancel(task, force=False, recursive=True)
        self._arm()
        session.deliver()


def expired(task: Task) -> GetTimeoutError:
    """The failure of a task whose deadline has passed; made before it is ended, as it says where it was."""
    terms: Terms = task.terms
    if terms.own:
        time = f"its timeout of {terms.timeout_s:g} s"
    else:
        time = f"the {terms.timeout_s:.3g} s that were left of its caller's timeout"
    return GetTimeoutError(
        f"the task {task.descriptor.name!r} was not done within {time}: it was {_state_of(task)}"
    )


def _state_of(task: Task) -> str:
    state = _place_of(task)
    return f"retrying (attempt {task.attempt + 1}), {state}" if task.attempt else state


def _place_of(task: Task) -> str:
    if task.state == WAITING:
        arguments = "argument" if task.missing == 1 else "arguments"
        return f"waiting for {task.missing} {arguments}"
    lease: Any = task.lease
    if task.state != SENT or lease is None:
        return "queued"
    peer = lease.link.connection.peer if lease.link is not None else None
    where = f"on the worker with pid {peer.pid}" if peer is not None else "on a worker"
    before = 0 if lease.group.concurrent else list(lease.in_flight).index(task.number)
    return f"running {where}" if not before else f"queued {where}, behind {before}"
