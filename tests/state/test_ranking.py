"""Which waiting task goes first where priorities differ: the higher, the earlier; nobody waits for ever."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from asyncray.options import MOST_PRIORITY
from asyncray.state.pipeline import Lease, SchedulingClass
from asyncray.state.ranking import RankedQueue, TaskQueue, first_waiting, put, put_back, rank_of
from asyncray.state.tasks import CANCELLED, DONE, FINISHED, QUEUED, RECALLED, RETRIED, Descriptor, Task, step

AGEING_S = 60.0

PRIORITIES = st.integers(-MOST_PRIORITY, MOST_PRIORITY)
TIMES = st.floats(0, 1e6)


def task_of(number: int, priority: int = 0, since: float = 1.0) -> Task:
    descriptor = Descriptor(1, "work", b"id", b"blob")
    descriptor.priority = priority
    task = Task(number, descriptor, None)
    task.rank = rank_of(priority, since, AGEING_S)
    return task


def queue_of(tasks: list[Task]) -> TaskQueue:
    queue: TaskQueue = deque()
    for task in tasks:
        queue = put(queue, task)
    return queue


def taken(queue: TaskQueue) -> list[int]:
    return [queue.popleft().number for _ in range(len(queue))]


# ---- ranks ----


@given(PRIORITIES, PRIORITIES, TIMES)
def test_of_two_that_came_together_the_higher_goes_first(one: int, other: int, since: float) -> None:
    ranks = rank_of(one, since, AGEING_S), rank_of(other, since, AGEING_S)
    assert (ranks[0] < ranks[1]) == (one > other) or since == pytest.approx(abs(one) * AGEING_S)


def test_a_level_is_worth_so_many_seconds_of_waiting() -> None:
    waiting = rank_of(0, 1000.0, AGEING_S)
    assert rank_of(1, 1000.0 + AGEING_S - 1, AGEING_S) < waiting
    assert rank_of(1, 1000.0 + AGEING_S + 1, AGEING_S) > waiting


@given(PRIORITIES, PRIORITIES, TIMES)
def test_nobody_is_overtaken_by_who_comes_later_than_the_bound(one: int, other: int, since: float) -> None:
    bound = 2 * MOST_PRIORITY * AGEING_S
    assert rank_of(one, since, AGEING_S) <= rank_of(other, since + bound + 1, AGEING_S)


@given(PRIORITIES, TIMES)
def test_a_rank_is_never_taken_for_none(priority: int, since: float) -> None:
    assert rank_of(priority, since, AGEING_S)
    assert rank_of(1, AGEING_S, AGEING_S)


# ---- queues ----


@given(st.lists(PRIORITIES, max_size=30))
def test_a_queue_gives_the_highest_and_of_equal_ones_the_first(priorities: list[int]) -> None:
    queue = queue_of([task_of(number, priority) for number, priority in enumerate(priorities)])
    assert taken(queue) == sorted(range(len(priorities)), key=lambda number: (-priorities[number], number))


def test_a_queue_stays_a_deque_while_what_comes_belongs_at_its_end() -> None:
    assert type(queue_of([task_of(number, 7) for number in range(5)])) is deque
    assert type(queue_of([task_of(0, 3), task_of(1, 2), task_of(2, 1)])) is deque
    assert type(queue_of([task_of(0, 1), task_of(1, 2)])) is RankedQueue


def test_what_is_put_back_goes_before_its_equals_and_behind_the_better() -> None:
    queue = put_back(queue_of([task_of(5), task_of(6)]), task_of(4))
    assert type(queue) is deque
    queue = put_back(put(queue, task_of(7, 1)), task_of(3, -1))
    assert taken(queue) == [7, 4, 5, 6, 3]


def test_what_is_put_back_may_be_the_first_that_is_out_of_order() -> None:
    queue = put_back(queue_of([task_of(5, 2), task_of(6, 2)]), task_of(4, 1))
    assert taken(queue) == [5, 6, 4]


def test_equals_that_come_back_one_by_one_go_in_the_order_of_their_submission() -> None:
    queue = put_back(put_back(put_back(deque(), task_of(4)), task_of(6)), task_of(5))
    assert taken(queue) == [4, 5, 6]


@given(st.lists(st.tuples(PRIORITIES, TIMES), max_size=20))
def test_a_ranked_queue_looks_like_a_deque(items: list[tuple[int, float]]) -> None:
    tasks = [task_of(number, *item) for number, item in enumerate(items)]
    queue = RankedQueue(tasks[:5])
    queue.extend(tasks[5:])
    in_order = sorted(tasks, key=lambda task: (task.rank, task.number))
    assert list(queue) == in_order
    assert [queue[index] for index in range(len(queue))] == in_order
    assert len(queue) == len(tasks)
    queue.clear()
    assert not queue
    assert list(queue) == []


def test_the_first_that_waits_was_not_cancelled() -> None:
    tasks = [task_of(0, 5), task_of(1, 3), task_of(2, 4)]
    for queue in (queue_of(tasks), deque(sorted(tasks, key=lambda task: task.rank))):
        assert first_waiting(queue) is tasks[0]
    step(tasks[0], CANCELLED)
    assert first_waiting(queue_of(tasks)) is tasks[2]
    step(tasks[1], CANCELLED)
    step(tasks[2], CANCELLED)
    assert first_waiting(queue_of(tasks)) is None
    assert first_waiting(deque()) is None


# ---- in a scheduling class ----


def test_a_worker_gets_the_highest_first() -> None:
    group = SchedulingClass(1, "key", [], 0.004, 512)
    group.queue = queue_of([task_of(0), task_of(1, 1), task_of(2, 2)])
    lease = group.leases[0] = Lease(0, group, None)
    order = []
    for _ in range(3):
        [(_, [task])] = group.assign()
        order.append(task.number)
        lease.in_flight.clear()
    assert order == [2, 1, 0]
    assert type(group.queue) is deque, "the heap is over with the last of it"


def test_a_retried_task_keeps_its_place() -> None:
    group = SchedulingClass(1, "key", [], 0.004, 512)
    group.queue = queue_of([task_of(0), task_of(1, 1), task_of(2, 2)])
    lease = group.leases[0] = Lease(0, group, None)
    [(_, sent)] = group.assign()
    lease.in_flight.clear()
    group.queue = put(group.queue, task_of(3, 3))
    group.take_back(sent, RETRIED)
    assert taken(group.queue) == [3, 2, 1, 0]


def test_a_lease_that_is_wanted_for_something_better_gets_nothing_unless_it_is_new() -> None:
    group = SchedulingClass(1, "key", [], 0.004, 512)
    group.queue = queue_of([task_of(number) for number in range(4)])
    used, new = Lease(0, group, None), Lease(1, group, None)
    used.progress = 1
    group.leases.update({0: used, 1: new})
    assert [lease for lease, _ in group.assign(fresh_only=True)] == [new]
    assert group.assign(fresh_only=True) == [], "it has had one now"


# ---- any story ----


class Ranking(RuleBasedStateMachine):
    """A scheduling class whose tasks have priorities: what is sent is always the best of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.group = SchedulingClass(1, "key", [], 0.004, 4)
        self.now = 1.0
        self.tasks: list[Task] = []

    @rule(priority=st.sampled_from([0, 0, 1, -1, 5]), later=st.floats(0, 200))
    def submit(self, priority: int, later: float) -> None:
        self.now += later
        task = task_of(len(self.tasks), priority, self.now)
        task.descriptor.average_s = 1e-6
        self.tasks.append(task)
        self.group.queue = put(self.group.queue, task)

    @rule()
    def grant(self) -> None:
        number = len(self.group.leases)
        self.group.leases[number] = Lease(number, self.group, None)

    @rule(fresh_only=st.booleans())
    def assign(self, fresh_only: bool) -> None:
        fresh = {number for number, lease in self.group.leases.items() if lease.is_fresh()}
        assigned = self.group.assign(fresh_only=fresh_only)
        sent = [task for _, tasks in assigned for task in tasks]
        assert sent == sorted(sent, key=place)
        waiting = [task for task in self.group.queue if task.state == QUEUED]
        assert not sent or not waiting or place(sent[-1]) < place(min(waiting, key=place))
        assert not fresh_only or {lease.number for lease, _ in assigned} <= fresh

    @rule(data=st.data(), again=st.sampled_from([RECALLED, RETRIED, None]))
    def end(self, data: st.DataObject, again: int | None) -> None:
        busy = [lease for lease in self.group.leases.values() if lease.in_flight]
        if not busy:
            return
        lease = data.draw(st.sampled_from(busy))
        task = lease.in_flight.pop(data.draw(st.sampled_from(sorted(lease.in_flight))))
        lease.progress += 1
        if again is not None:
            self.group.take_back([task], again)
        elif task.state != DONE:
            step(task, FINISHED)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        alive = [task for task in self.tasks if task.state != DONE]
        if alive:
            task = data.draw(st.sampled_from(alive))
            self.group.dead += task.state == QUEUED
            step(task, CANCELLED)

    @invariant()
    def none_is_lost(self) -> None:
        queued = [task for task in self.group.queue if task.state != DONE]
        assert len(queued) == self.group.demand()
        assert sorted(task.number for task in queued) == [t.number for t in self.tasks if t.state == QUEUED]
        assert [task for task in queued if task.state != QUEUED] == []

    @invariant()
    def the_first_that_waits_is_the_best(self) -> None:
        queued = [task for task in self.tasks if task.state == QUEUED]
        first = first_waiting(self.group.queue)
        assert first is (min(queued, key=place) if queued else None)


def place(task: Task) -> tuple[float, int]:
    """Where a task stands among all."""
    return task.rank, task.number


TestRanking = Ranking.TestCase
TestRanking.settings = settings(max_examples=60, stateful_step_count=40)
