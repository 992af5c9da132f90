"""Tasks reach workers: none lost, none twice, none where it would wait, the never-sent ones in order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncray.state.pipeline import Lease, SchedulingClass, measured, sum_s
from asyncray.state.tasks import CANCELLED, DONE, FINISHED, QUEUED, RETRIED, SENT, Descriptor, Task, step

TARGET_S = 0.004


def descriptor(average_s: float | None) -> Descriptor:
    made = Descriptor(1, "work", b"id", b"blob")
    made.average_s = average_s
    return made


def group_of(
    leases: int, tasks: int, average_s: float | None = None, *, depth: int = 512, concurrent: bool = False
) -> SchedulingClass:
    group = SchedulingClass(1, "key", [], TARGET_S, depth)
    group.concurrent = concurrent
    for number in range(leases):
        group.leases[number] = Lease(number, group, None)
    work = descriptor(average_s)
    group.queue.extend(Task(number, work, None) for number in range(tasks))
    return group


def numbers(assigned: list[tuple[Lease, list[Task]]]) -> dict[int, list[int]]:
    return {lease.number: [task.number for task in tasks] for lease, tasks in assigned}


# ---- one pass ----


def test_without_tasks_or_leases_there_is_nothing_to_assign() -> None:
    assert group_of(2, 0).assign() == []
    assert group_of(0, 2).assign() == []


def test_one_task_each_while_there_are_idle_workers() -> None:
    assert numbers(group_of(3, 3).assign()) == {0: [0], 1: [1], 2: [2]}
    assert numbers(group_of(3, 2, 1e-6).assign()) == {0: [0], 1: [1]}


def test_an_idle_worker_comes_before_a_busy_one() -> None:
    group = group_of(1, 1, 1e-6)
    group.assign()
    group.leases[1] = Lease(1, group, None)
    group.queue.append(Task(1, descriptor(1e-6), None))
    assert numbers(group.assign()) == {1: [1]}


def test_short_tasks_are_spread_evenly_and_in_order() -> None:
    assert numbers(group_of(2, 7, 1e-6).assign()) == {0: [0, 1, 2, 3], 1: [4, 5, 6]}


def test_a_worker_gets_one_long_task_and_no_more() -> None:
    group = group_of(2, 10, 1.0)
    assert numbers(group.assign()) == {0: [0], 1: [1]}
    assert group.assign() == []
    assert group.demand() == 8


def test_tasks_are_queued_as_deep_as_their_duration_is_worth() -> None:
    group = group_of(1, 100, TARGET_S / 8)
    [(lease, tasks)] = group.assign()
    assert 8 <= len(tasks) <= 9
    assert group.assign() == []
    lease.in_flight.pop(0)
    lease.in_flight.pop(1)
    assert 1 <= sum(len(more) for _, more in group.assign()) <= 2


def test_the_depth_has_a_limit() -> None:
    assert numbers(group_of(1, 10, 1e-9, depth=3).assign()) == {0: [0, 1, 2]}
    assert numbers(group_of(1, 10, depth=1).assign()) == {0: [0]}


def test_coroutines_share_a_worker_up_to_its_depth_whatever_they_last() -> None:
    assert numbers(group_of(1, 10, 100.0, depth=4, concurrent=True).assign()) == {0: [0, 1, 2, 3]}


@pytest.mark.parametrize("state", ["recalling", "blocked", "closing"])
def test_nothing_is_assigned_where_it_would_wait(state: str) -> None:
    group = group_of(2, 4, 1e-6)
    setattr(group.leases[0], state, True)
    assert not group.leases[0].accepts()
    assert numbers(group.assign()) == {1: [0, 1, 2, 3]}


def test_a_task_cancelled_in_the_queue_is_passed_over() -> None:
    group = group_of(1, 4, 1e-6)
    for number in (0, 2):
        step(group.queue[number], CANCELLED)
        group.dead += 1
    assert numbers(group.assign()) == {0: [1, 3]}
    assert not group.queue


def test_what_is_assigned_knows_where_it_is() -> None:
    group = group_of(1, 1)
    [(lease, [task])] = group.assign()
    assert task.lease is lease
    assert task.state == SENT
    assert lease.in_flight == {task.number: task}


def test_tasks_taken_back_come_before_those_never_sent_in_their_order() -> None:
    group = group_of(1, 6, 1e-6, depth=4)
    [(lease, tasks)] = group.assign()
    lease.in_flight.clear()
    group.take_back(tasks[1:])
    assert [task.number for task in group.queue] == [1, 2, 3, 4, 5]
    assert all(task.state == QUEUED and task.lease is None for task in group.queue)


def test_tasks_are_taken_back_from_any_iterable_and_for_any_reason() -> None:
    group = group_of(1, 3, 1e-6)
    [(_, tasks)] = group.assign()
    group.take_back((task for task in tasks), RETRIED)
    assert [task.number for task in group.queue] == [0, 1, 2]


def test_expected_work_counts_the_unknown_as_given() -> None:
    tasks = [Task(0, descriptor(None), None), Task(1, descriptor(0.25), None)]
    assert sum_s(tasks, 1.0) == 1.25
    assert sum_s([], 1.0) == 0


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_measurement_moves_the_average_towards_it(previous: float, sample: float) -> None:
    assert measured(None, sample) == sample
    low, high = sorted((previous, sample))
    assert low - 1e-9 <= measured(previous, sample) <= high + 1e-9


# ---- any story ----


class Pipelining(RuleBasedStateMachine):
    """An owner with its leases; what a worker runs, answers, hands back and takes to its grave."""

    @initialize(depth=st.integers(1, 6), concurrent=st.booleans())
    def begin(self, depth: int, concurrent: bool) -> None:
        self.group = SchedulingClass(1, "key", [], TARGET_S, depth)
        self.group.concurrent = concurrent
        self.works = [descriptor(average) for average in (None, 1e-6, TARGET_S / 3, 10.0)]
        self.tasks: list[Task] = []
        self.lost: list[Lease] = []
        self.ever_sent: set[int] = set()

    @rule(work=st.integers(0, 3), count=st.integers(1, 8))
    def submit(self, work: int, count: int) -> None:
        for _ in range(count):
            task = Task(len(self.tasks), self.works[work], None)
            self.tasks.append(task)
            self.group.queue.append(task)

    @rule()
    def grant(self) -> None:
        number = len(self.group.leases) + len(self.lost)
        self.group.leases[number] = Lease(number, self.group, None)

    @rule()
    def assign(self) -> None:
        leases = self.group.leases.values()
        before = {lease.number: dict(lease.in_flight) for lease in leases}
        idle = [lease.number for lease in leases if lease.accepts() and not lease.in_flight]
        waiting = sum(task.state == QUEUED for task in self.group.queue)
        assert self.group.dead == len(self.group.queue) - waiting
        assigned = self.group.assign()
        for lease, tasks in assigned:
            assert tasks
            assert lease.accepts()
            assert list(lease.in_flight) == [*before[lease.number], *(task.number for task in tasks)]
            assert all(task.state == SENT and task.lease is lease for task in tasks)
            self.check_worth(lease)
        used = {lease.number for lease, _ in assigned}
        if used - set(idle) or waiting >= len(idle):
            assert used >= set(idle)
        self.check_order(before, assigned)

    def check_worth(self, lease: Lease) -> None:
        """What is queued behind the first is worth no more than the target."""
        if not self.group.concurrent:
            behind = list(lease.in_flight.values())[1:]
            assert sum_s(behind, TARGET_S) <= TARGET_S * (1 + 1e-9)

    def check_order(self, before: dict[int, Any], assigned: list[tuple[Lease, list[Task]]]) -> None:
        sent = [task.number for _, tasks in assigned for task in tasks]
        fresh = [number for number in sent if number not in self.ever_sent]
        assert fresh == sorted(fresh)
        self.ever_sent.update(sent)

    @precondition(lambda self: any(lease.in_flight for lease in self.group.leases.values()))
    @rule(data=st.data())
    def results(self, data: st.DataObject) -> None:
        lease = self.busy(data)
        for _ in range(data.draw(st.integers(1, len(lease.in_flight)))):
            task = lease.in_flight.pop(next(iter(lease.in_flight)))
            again = data.draw(st.booleans()) and task.state == SENT
            if again:
                self.group.take_back([task], RETRIED)
            elif task.state == SENT:
                step(task, FINISHED)
        lease.blocked = False
        lease.progress += 1

    @precondition(lambda self: any(lease.in_flight for lease in self.group.leases.values()))
    @rule(data=st.data())
    def recall(self, data: st.DataObject) -> None:
        self.busy(data).recalling = True

    @precondition(lambda self: any(lease.in_flight for lease in self.group.leases.values()))
    @rule(data=st.data())
    def handback(self, data: st.DataObject) -> None:
        lease = self.busy(data)
        running = data.draw(st.integers(0, len(lease.in_flight)))
        tasks = [lease.in_flight.pop(number) for number in list(lease.in_flight)[running:]]
        lease.recalling = False
        lease.blocked = bool(lease.in_flight)
        self.group.take_back(task for task in tasks if task.state != DONE)

    @precondition(lambda self: self.group.leases)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        lease = self.group.leases.pop(data.draw(st.sampled_from(sorted(self.group.leases))))
        lease.closing = True
        self.lost.append(lease)
        tasks = list(lease.in_flight.values())
        lease.in_flight.clear()
        self.group.take_back(task for task in tasks if task.state != DONE)

    @precondition(lambda self: any(task.state != DONE for task in self.tasks))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([task for task in self.tasks if task.state != DONE]))
        self.group.dead += task.state == QUEUED
        step(task, CANCELLED)

    def busy(self, data: st.DataObject) -> Lease:
        busy = [lease.number for lease in self.group.leases.values() if lease.in_flight]
        return self.group.leases[data.draw(st.sampled_from(busy))]

    @invariant()
    def each_task_is_in_one_place(self) -> None:
        if not hasattr(self, "group"):
            return
        queued = [task.number for task in self.group.queue]
        sent = [number for lease in self.group.leases.values() for number in lease.in_flight]
        places = queued + sent
        assert len(places) == len(set(places))
        assert {task.number for task in self.tasks if task.state != DONE} <= set(places)
        for number in queued:
            assert self.tasks[number].state in (QUEUED, DONE)

    @invariant()
    def no_lease_is_deeper_than_allowed(self) -> None:
        if hasattr(self, "group"):
            assert all(len(lease.in_flight) <= self.group.max_depth for lease in self.group.leases.values())

    @invariant()
    def the_never_sent_stand_in_order_behind_the_others(self) -> None:
        if not hasattr(self, "group"):
            return
        fresh = [task.number not in self.ever_sent for task in self.group.queue]
        assert fresh == sorted(fresh)
        never = [task.number for task in self.group.queue if task.number not in self.ever_sent]
        assert never == sorted(never)

    def teardown(self) -> None:
        """Given a worker that answers, everything is run."""
        if not hasattr(self, "group"):
            return
        for lease in self.group.leases.values():
            lease.recalling = lease.blocked = False
        self.grant()
        while any(task.state != DONE for task in self.tasks):
            self.assign()
            answered = 0
            for lease in self.group.leases.values():
                for number in list(lease.in_flight):
                    task = lease.in_flight.pop(number)
                    answered += 1
                    if task.state == SENT:
                        step(task, FINISHED)
            assert answered


TestPipelining = Pipelining.TestCase
TestPipelining.settings = settings(max_examples=150)
