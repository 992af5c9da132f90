"""Which of the waiting tasks goes first, where their priorities differ.

A task's rank is the time since which it waits, less `priority_ageing_s` for each level of its priority; the
lowest rank goes first. So a level of priority is worth so many seconds of waiting, whenever one looks: two
tasks that wait keep their order, and nothing has to be sorted anew as time passes. Equal priorities go in the
order of submission. Nobody is overtaken for ever: who came later by more than the difference of the
priorities, times `priority_ageing_s`, goes later.

While nobody uses priorities, ranks are 0.0 and queues are plain deques. The first priority that is not 0
makes the owner give every task a rank; a queue stays a deque as long as what comes belongs at its end.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias

from .tasks import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .tasks import Task

#: Fraction of a level by which ranks must differ for a worker to change hands: to move it costs a round trip.
MARGIN: Final = 0.5


def rank_of(priority: int, since: float, ageing_s: float) -> float:
    """The rank of a task of *priority* that waits since then. Never 0.0, which is no rank."""
    return since - priority * ageing_s or -1e-9


class RankedQueue:
    """A queue in the order of ranks, and of submission among equal ones, wherever a task is put in."""

    __slots__ = ("_heap",)

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._heap = [(task.rank, task.number, task) for task in tasks]
        heapify(self._heap)

    def append(self, task: Task, /) -> None:
        """Put a task where it belongs."""
        heappush(self._heap, (task.rank, task.number, task))

    appendleft = append

    def popleft(self) -> Task:
        """Take the first."""
        return heappop(self._heap)[2]

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()

    def extend(self, tasks: Iterable[Task], /) -> None:
        """Put several where they belong."""
        for task in tasks:
            self.append(task)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Task]:
        return iter([entry[2] for entry in sorted(self._heap)])

    def __getitem__(self, index: int, /) -> Task:
        return self._heap[0][2] if index == 0 else list(self)[index]


#: What a scheduling class has as its queue.
TaskQueue: TypeAlias = "deque[Task] | RankedQueue"


def put(queue: TaskQueue, task: Task) -> TaskQueue:
    """Put a ranked task where it belongs; returns the queue to go on with."""
    if type(queue) is deque and queue and task.rank < queue[-1].rank:
        queue = RankedQueue(queue)
    queue.append(task)
    return queue


def put_back(queue: TaskQueue, task: Task) -> TaskQueue:
    """Put a task back that was taken, at the front where it has no rank; returns the queue to go on with."""
    if type(queue) is deque and queue and task.rank:
        first = queue[0]
        # Of equal ones too: those that were taken together may come back one by one.
        if (task.rank, task.number) > (first.rank, first.number):
            queue = RankedQueue(queue)
    queue.appendleft(task)
    return queue


def first_waiting(queue: TaskQueue) -> Task | None:
    """The first that was not cancelled; None when there is none."""
    if not queue:
        return None
    first = queue[0]
    return first if first.state != DONE else next((task for task in queue if task.state != DONE), None)
