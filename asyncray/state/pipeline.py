"""How an owner spreads its ready tasks over the workers that it leases.

Tasks that need the same (resources, runtime environment, mode) form a scheduling class, with one queue and
any number of leases. An idle worker gets a task at once. Behind a busy one tasks are queued as deep as is
worth about ``target_s`` of its time, by the measured duration of their function: hundreds of microsecond
tasks, one long one. A function that was never measured counts as long.

Rule 1: :meth:`SchedulingClass.assign` is one synchronous pass; it decides, and its caller sends.
Rule 2: what was sent to a worker comes back only by a result, a hand-back or the worker's death.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .ranking import TaskQueue, put_back
from .tasks import ASSIGNED, DONE, RECALLED, Task, step

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


class Lease:
    """A worker lent to this owner for one scheduling class."""

    __slots__ = (
        "blocked", "closing", "deaf", "group", "idle_since", "in_flight", "link", "lost", "number",
        "progress", "recalling", "suspect",
    )  # fmt: skip

    def __init__(self, number: int, group: SchedulingClass, link: Any) -> None:
        self.number = number
        self.group = group
        #: The connection to the worker; opaque here.
        self.link = link
        #: Tasks sent and not answered, by number, in the order sent.
        self.in_flight: dict[int, Task] = {}
        #: Answers so far; recall watches it stand still.
        self.progress = 0
        #: Value of `progress` when the last watch passed; -1 when the lease was not watched.
        self.suspect = -1
        #: A recall was sent and not answered: nothing more is sent until it is.
        self.recalling = False
        #: The worker's task waits for others: what would be queued behind it would wait too.
        self.blocked = False
        #: It is being given back, or its worker is lost.
        self.closing = False
        #: Numbers of coroutines for which their worker must end: they are to be killed, or have not ended in
        #: the time that a cancel leaves them.
        self.deaf: set[int] = set()
        #: The worker's death was announced: (kind, explanation).
        self.lost: tuple[str, str] | None = None
        #: Seconds on the loop clock; None while it has tasks.
        self.idle_since: float | None = None

    def accepts(self) -> bool:
        """Whether tasks may be sent here at all."""
        return not (self.recalling or self.blocked or self.closing or self.deaf)

    def is_fresh(self) -> bool:
        """Whether it has had no task yet."""
        return not self.progress and not self.in_flight


class SchedulingClass:
    """The queue and the leases of tasks that need the same."""

    __slots__ = (
        "concurrent", "dead", "demanded", "description", "key", "leases", "max_depth", "number",
        "posted", "queue", "target_s",
    )  # fmt: skip

    #: Whether this is an actor's mailbox; see client.actor_calls.
    actor = False
    #: Whether calls keep their places while they wait for their arguments.
    ordered: bool = False

    def __init__(
        self, number: int, key: Hashable, description: list[Any], target_s: float, max_depth: int
    ) -> None:
        self.number = number
        self.key = key
        #: What the node must know of it; None once it has been told.
        self.description: list[Any] | None = description
        self.target_s = target_s
        self.max_depth = max_depth
        #: Whether tasks share a worker at the same time (coroutines) instead of one after the other.
        self.concurrent = False
        #: A deque, or a heap while tasks of different priorities wait; see state.ranking.
        self.queue: TaskQueue = deque()
        #: How many in the queue were cancelled there; a pass drops them.
        self.dead = 0
        #: The loop will look at this class soon: nobody else need ask it to.
        self.posted = False
        self.leases: dict[int, Lease] = {}
        #: Leases last asked of the node.
        self.demanded = 0

    def assign(self, *, fresh_only: bool = False) -> list[tuple[Lease, list[Task]]]:
        """Decide which queued tasks go where, now.

        Args:
            fresh_only: Use only leases that have had no task yet: the others are wanted for something better.
        """
        if not self.demand():
            self.empty()
            return []
        open_leases = [lease for lease in self.leases.values() if lease.accepts() and self._room(lease)]
        if fresh_only:
            open_leases = [lease for lease in open_leases if lease.is_fresh()]
        if not open_leases:
            return []
        # Idle ones first: with fewer tasks than leases, nobody queues behind a busy worker.
        open_leases.sort(key=lambda lease: len(lease.in_flight))
        assigned = []
        for left in range(len(open_leases), 0, -1):
            lease = open_leases[-left]
            share = -(-self.demand() // left)
            tasks = self._take(lease, share)
            if tasks:
                assigned.append((lease, tasks))
        return assigned

    def has_idle_lease(self) -> bool:
        """Whether a worker has nothing to do: a call to it need not wait for company."""
        return any(not lease.in_flight and lease.accepts() for lease in self.leases.values())

    def demand(self) -> int:
        """How many more leases would be of use."""
        return len(self.queue) - self.dead

    def empty(self) -> list[Task]:
        """Take every task that waits out of the queue."""
        waiting = [task for task in self.queue if task.state != DONE]
        self.queue.clear()
        self.dead = 0
        return waiting

    def take_back(self, tasks: Iterable[Task], event: int = RECALLED) -> None:
        """Queue tasks again, before those that were never sent, in their order. The cancelled are let go."""
        for task in reversed(list(tasks)):
            if task.state == DONE:
                task.release()
                continue
            step(task, event)
            task.lease = None
            self.queue = put_back(self.queue, task)

    def _room(self, lease: Lease) -> bool:
        return len(lease.in_flight) < self.max_depth

    def _take(self, lease: Lease, share: int) -> list[Task]:
        taken: list[Task] = []
        in_flight, queue = lease.in_flight, self.queue
        budget_s = self.target_s - sum_s(in_flight.values(), self.target_s) if not self.concurrent else 0.0
        share = min(share, self.max_depth - len(in_flight))
        while queue and len(taken) < share:
            task = queue[0]
            if task.state == DONE:  # cancelled while it was queued
                queue.popleft()
                self.dead -= 1
                continue
            budget_s -= task.descriptor.average_s or self.target_s
            if budget_s < 0 and in_flight and not self.concurrent:
                break
            queue.popleft()
            step(task, ASSIGNED)
            task.lease = lease
            in_flight[task.number] = task
            taken.append(task)
        if not queue and type(queue) is not deque:
            self.queue = deque()
        return taken


def sum_s(tasks: Iterable[Task], unknown_s: float) -> float:
    """Expected seconds of work in *tasks*; a function never measured counts *unknown_s*."""
    return sum(task.descriptor.average_s or unknown_s for task in tasks)


def measured(previous_s: float | None, sample_s: float) -> float:
    """The moving average after one more sample."""
    if previous_s is None:
        return sample_s
    return 0.7 * previous_s + 0.3 * sample_s
