"""Cancelling: what becomes of a task, of its reference, of its worker and of everybody else."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import RayTaskError, TaskCancelledError
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import PATIENCE_S, Beacon, light
from tests.cluster.checks import assert_cancelled, assert_nothing_is_held, the_session
from tests.cluster.gates import Gate
from tests.leaks import wait_for_exit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from asyncray import ObjectRef


@pytest.fixture
def beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what tasks tell."""
    made = Beacon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def other_beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what other tasks tell."""
    made = Beacon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Hold tasks up."""
    made = Gate(tmp_path)
    yield made
    made.open()
    made.close()


# ---- before it runs ----


def test_a_task_that_waits_for_a_cpu_never_runs(shared_ray: ModuleType, beacon: Beacon, gate: Gate) -> None:
    holding = [tasks.hold.remote(beacon.path, gate.path) for _ in range(2)]
    beacon.next(), beacon.next()
    ref = tasks.tell.remote(beacon.path)
    ray.cancel(ref)
    assert_cancelled(ref)
    gate.open()
    assert ray.get(holding) == ["held", "held"]
    assert_nothing_is_held()
    assert beacon.told() == []


def test_a_task_that_waits_for_its_arguments_never_runs(
    shared_ray: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    argument = tasks.after.remote(gate.path, "argument")
    ref = tasks.tell.remote(beacon.path, argument)
    ray.cancel(ref)
    assert_cancelled(ref)
    gate.open()
    assert ray.get(argument) == "argument"
    assert_nothing_is_held()
    assert beacon.told() == []


# ---- while it runs ----


@pytest.mark.parametrize("task", [tasks.spin, tasks.sleep], ids=["in Python code", "in time.sleep"])
def test_a_running_task_is_interrupted(shared_ray: ModuleType, beacon: Beacon, task: Any) -> None:
    ref = task.remote(beacon.path)
    process = beacon.next()
    ray.cancel(ref)
    assert_cancelled(ref)
    assert beacon.next() == "KeyboardInterrupt"
    assert_nothing_is_held()
    assert os.path.exists(f"/proc/{process}"), "the worker goes on"  # noqa: PTH110


def test_a_task_blocked_in_a_nested_get_is_interrupted(
    shared_ray: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    ref = tasks.wait_for_child.remote(beacon.path, tasks.after, gate.path)
    beacon.next()
    ray.cancel(ref, recursive=False)
    assert_cancelled(ref)
    assert beacon.next() == "KeyboardInterrupt"
    gate.open()
    assert_nothing_is_held()


def test_a_coroutine_is_cancelled_and_its_clean_up_may_await(shared_ray: ModuleType, beacon: Beacon) -> None:
    ref = tasks.linger.remote(beacon.path)
    beacon.next()
    ray.cancel(ref)
    assert_cancelled(ref)
    assert [beacon.next(), beacon.next()] == ["CancelledError", "cleaned up"]
    assert_nothing_is_held()


def test_cancelling_a_coroutine_leaves_those_beside_it_alone(
    shared_ray: ModuleType, beacon: Beacon, other_beacon: Beacon
) -> None:
    one, other = tasks.linger.remote(beacon.path), tasks.linger.remote(other_beacon.path)
    assert beacon.next() == other_beacon.next()
    ray.cancel(one)
    assert [beacon.next(), beacon.next()] == ["CancelledError", "cleaned up"]
    assert not other.done()
    assert other_beacon.told() == []
    ray.cancel(other)
    assert [other_beacon.next(), other_beacon.next()] == ["CancelledError", "cleaned up"]
    assert_nothing_is_held()


def test_coroutines_that_are_cancelled_before_they_have_begun_hold_nothing(shared_ray: ModuleType) -> None:
    for _ in range(20):
        refs = [tasks.soon.remote(i) for i in range(20)]
        ray.cancel(*refs)
        for i, ref in enumerate(refs):
            if not ref.cancelled():
                assert ray.get(ref) == i
    assert_nothing_is_held()


def test_a_task_that_answers_an_interrupt_with_a_value_is_cancelled_all_the_same(
    shared_ray: ModuleType, beacon: Beacon
) -> None:
    ref = tasks.stubborn.remote(beacon.path)
    beacon.next()
    ray.cancel(ref)
    assert beacon.next() == "interrupted"
    assert_nothing_is_held()
    assert_cancelled(ref)


def test_a_cancelled_task_is_interrupted_once(shared_ray: ModuleType, beacon: Beacon, gate: Gate) -> None:
    @ray.remote
    def clean_up_slowly(path: str, gate: str) -> None:
        try:
            light(path, "runs")
            threading.Event().wait()
        finally:
            light(path, "cleans up")
            tasks._await(gate)
            light(path, "has cleaned up")

    ref = clean_up_slowly.remote(beacon.path, gate.path)
    beacon.next()
    ray.cancel(ref)
    assert beacon.next() == "cleans up"
    ray.cancel(ref)
    borrower = tasks.cancel_it.remote([ref])
    ray.get(borrower)
    gate.open()
    assert beacon.next() == "has cleaned up"
    assert_nothing_is_held()


# ---- what has ended, and what nobody can cancel ----


def test_what_has_ended_is_left_alone(shared_ray: ModuleType) -> None:
    done, stored = tasks.plain.remote("done"), ray.put("stored")
    failed = tasks.raise_it.remote(os.devnull, ValueError)
    ray.wait([done, failed], num_returns=2)
    ray.cancel(done, stored, failed)
    ray.cancel(done, stored, failed, force=True)
    assert ray.get([done, stored]) == ["done", "stored"]
    with pytest.raises(ValueError, match="ValueError"):
        ray.get(failed)
    assert not done.cancelled()
    assert not failed.cancelled()


def test_cancelling_nothing_does_nothing(shared_ray: ModuleType) -> None:
    ray.cancel()


def test_cancelling_what_is_no_reference_cancels_nothing(
    shared_ray: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    ref = tasks.after.remote(gate.path, 1)
    with pytest.raises(TypeError, match="cancel takes references, not 7"):
        ray.cancel(ref, 7)  # type: ignore[arg-type]
    gate.open()
    assert ray.get(ref) == 1


def test_every_return_of_a_task_is_cancelled_with_any(shared_ray: ModuleType, beacon: Beacon) -> None:
    refs: Any = tasks.sleep.options(num_returns=2).remote(beacon.path)
    first, second = refs
    beacon.next()
    ray.cancel(second)
    assert_cancelled(first, second)
    assert beacon.next() == "KeyboardInterrupt"
    assert_nothing_is_held()


# ---- whose it is ----


def test_a_task_cancels_what_it_has_borrowed(shared_ray: ModuleType, beacon: Beacon) -> None:
    ref = tasks.sleep.remote(beacon.path)
    beacon.next()
    ray.get(tasks.cancel_it.remote([ref]))
    assert beacon.next() == "KeyboardInterrupt"
    assert_cancelled(ref)
    assert_nothing_is_held()


def test_a_borrower_sees_what_its_owner_cancels(shared_ray: ModuleType, beacon: Beacon) -> None:
    @ray.remote
    def watch(refs: list[Any], path: str) -> str:
        light(path, "watches")
        try:
            ray.get(refs[0])
        except TaskCancelledError:
            return "cancelled"
        return "a value"

    ref = tasks.sleep.remote(beacon.path)
    beacon.next()
    watching = watch.remote([ref], beacon.path)
    assert beacon.next() == "watches"
    ray.cancel(ref)
    assert ray.get(watching, timeout=PATIENCE_S) == "cancelled"


def test_children_are_cancelled_with_their_parent_three_levels_deep(
    shared_ray: ModuleType, beacon: Beacon, other_beacon: Beacon
) -> None:
    ref = tasks.wait_for_child.remote(
        beacon.path, tasks.wait_for_child, beacon.path, tasks.sleep, other_beacon.path
    )
    other_beacon.next()
    ray.cancel(ref)
    assert_cancelled(ref)
    assert other_beacon.next() == "KeyboardInterrupt"
    assert_nothing_is_held()


def test_children_of_coroutines_are_cancelled_too(shared_ray: ModuleType, beacon: Beacon) -> None:
    @ray.remote
    async def parent(path: str) -> None:
        await tasks.sleep.remote(path)

    ref = parent.remote(beacon.path)
    beacon.next()
    ray.cancel(ref)
    assert beacon.next() == "KeyboardInterrupt"
    assert_nothing_is_held()


@pytest.mark.parametrize("num_returns", [0, 1])
def test_a_child_that_nobody_has_a_reference_to_is_cancelled_too(
    shared_ray: ModuleType, beacon: Beacon, other_beacon: Beacon, num_returns: int
) -> None:
    @ray.remote
    def parent(path: str, own: str, num_returns: int) -> None:
        tasks.sleep.options(num_returns=num_returns).remote(path)
        light(own)
        threading.Event().wait()

    ref = parent.remote(beacon.path, other_beacon.path, num_returns)
    beacon.next(), other_beacon.next()
    ray.cancel(ref)
    assert beacon.next() == "KeyboardInterrupt"
    assert_nothing_is_held()


def test_children_are_spared_where_only_the_parent_is_meant(
    shared_ray: ModuleType, beacon: Beacon, other_beacon: Beacon, gate: Gate
) -> None:
    ref = tasks.wait_for_child.remote(beacon.path, tasks.hold, other_beacon.path, gate.path)
    other_beacon.next()
    ray.cancel(ref, recursive=False)
    assert [beacon.next() for _ in range(2)][1] == "KeyboardInterrupt"
    gate.open()
    assert_nothing_is_held()
    assert other_beacon.told() == []


def test_force_reaches_the_children_of_children(
    shared_ray: ModuleType, beacon: Beacon, other_beacon: Beacon
) -> None:
    ref = tasks.wait_for_child.remote(
        beacon.path, tasks.wait_for_child, beacon.path, tasks.sleep, other_beacon.path
    )
    processes = [int(other_beacon.next()), int(beacon.next()), int(beacon.next())]
    ray.cancel(ref, force=True)
    assert_cancelled(ref)
    for process in processes:
        wait_for_exit([process], PATIENCE_S)
    assert_nothing_is_held()


# ---- what follows ----


def test_what_depends_on_a_cancelled_task_is_cancelled(
    shared_ray: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    argument = tasks.after.remote(gate.path)
    dependent = tasks.tell.remote(beacon.path, argument)
    last = tasks.tell.remote(beacon.path, dependent)
    ray.cancel(argument)
    assert_cancelled(argument, dependent, last)
    later = tasks.tell.remote(beacon.path, argument)
    assert_cancelled(later)
    gate.open()
    assert_nothing_is_held()
    assert beacon.told() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_a_task_raises_by_itself_is_an_error_of_the_task(
    shared_ray: ModuleType, beacon: Beacon, error: type[BaseException]
) -> None:
    ref = tasks.raise_it.options(max_retries=3, retry_exceptions=True).remote(beacon.path, error)
    with pytest.raises(RayTaskError, match=error.__name__) as caught:
        ray.get(ref)
    assert isinstance(caught.value.cause, error)
    assert not ref.cancelled()
    assert ray.get(tasks.plain.remote(1)) == 1
    assert beacon.told() == ["ran"]


def test_a_signal_that_a_task_sends_itself_is_its_own(shared_ray: ModuleType, beacon: Beacon) -> None:
    @ray.remote
    def interrupt_yourself() -> str:
        import signal

        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return "interrupted"
        return "not interrupted"

    assert ray.get(interrupt_yourself.remote()) == "interrupted"
    assert_nothing_is_held()


# ---- races ----


@contextmanager
def the_loop_held_up() -> Iterator[None]:
    """Nothing that arrives is looked at for the time of the block."""
    session = the_session()
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go_on.wait(PATIENCE_S)

    session.call_soon(hold)
    reached.wait(PATIENCE_S)
    try:
        yield
    finally:
        go_on.set()


def test_a_cancel_that_comes_before_the_result_wins(shared_ray: ModuleType, beacon: Beacon) -> None:
    ref = tasks.tell.remote(beacon.path, "all but done")
    beacon.next()
    ray.wait([ref])
    with the_loop_held_up():
        ref = tasks.tell.remote(beacon.path, "all but done")  # to an idle worker, which needs no loop
        beacon.next()
        ray.cancel(ref)
        assert_cancelled(ref)
    assert_nothing_is_held()
    assert_cancelled(ref)


def test_a_cancel_that_comes_after_the_result_loses(shared_ray: ModuleType, beacon: Beacon) -> None:
    ref = tasks.plain.remote("a value")
    ray.wait([ref])
    with the_loop_held_up():
        ray.cancel(ref)
        assert ray.get(ref) == "a value"
    assert_nothing_is_held()
    assert ray.get(ref) == "a value"


def test_a_cancel_never_hits_the_next_task_of_the_worker(shared_ray: ModuleType) -> None:
    chance = random.Random(7)
    submitted: list[tuple[int, ObjectRef[int]]] = []
    cancelled: set[ObjectRef[int]] = set()
    for i in range(4000):
        task = (tasks.plain, tasks.plain, tasks.soon)[i % 3]
        submitted.append((i, task.remote(i)))
        if chance.random() < 0.3:
            victims = [ref for _, ref in chance.sample(submitted[-40:], min(len(submitted), 3))]
            ray.cancel(*victims)
            cancelled.update(victims)
    outcomes = dict.fromkeys(("value", "cancelled"), 0)
    for i, ref in submitted:
        error = ref.exception(PATIENCE_S)
        if error is None:
            assert ray.get(ref) == i
            outcomes["value"] += 1
        else:
            assert type(error) is TaskCancelledError
            assert ref in cancelled
            outcomes["cancelled"] += 1
    assert min(outcomes.values()) > 100
    assert ray.get([tasks.plain.remote(i) for i in range(500)]) == list(range(500))
    assert_nothing_is_held()


def test_two_threads_that_cancel_and_submit_do_not_hurt_each_other(shared_ray: ModuleType) -> None:
    refs: list[ObjectRef[int]] = [tasks.plain.remote(i) for i in range(2000)]
    threads = [
        threading.Thread(target=lambda start=start: ray.cancel(*refs[start::2]), name="canceller")
        for start in range(2)
    ]
    for thread in threads:
        thread.start()
    others = [tasks.plain.remote(i) for i in range(500)]
    for thread in threads:
        thread.join()
    assert ray.get(others) == list(range(500))
    for i, ref in enumerate(refs):
        assert ref.cancelled() or ray.get(ref) == i
    assert_nothing_is_held()
