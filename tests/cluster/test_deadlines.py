"""Deadlines among real processes: the reference fails in time, and what ran is stopped."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import GetTimeoutError, RayTaskError
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import PATIENCE_S, Beacon
from tests.cluster.checks import assert_nothing_is_held
from tests.cluster.gates import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

#: Long enough for a task to start, also on a machine that is at work on other things.
TIMEOUT_S = 1.0


@pytest.fixture
def beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what tasks tell."""
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


@pytest.mark.parametrize("task", [tasks.spin, tasks.sleep], ids=["in Python code", "in time.sleep"])
def test_a_running_task_is_interrupted(shared_ray: ModuleType, beacon: Beacon, task: Any) -> None:
    started = time.monotonic()
    ref = task.options(timeout=TIMEOUT_S).remote(beacon.path)
    process = beacon.next()
    with pytest.raises(
        GetTimeoutError, match=f"timeout of 1 s: it was running on the worker with pid {process}"
    ):
        ray.get(ref)
    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + PATIENCE_S / 2
    assert beacon.next() == "KeyboardInterrupt"
    assert_nothing_is_held()


def test_a_running_coroutine_is_cancelled(shared_ray: ModuleType, beacon: Beacon) -> None:
    ref = tasks.linger.options(timeout=TIMEOUT_S).remote(beacon.path)
    beacon.next()
    with pytest.raises(GetTimeoutError, match="it was running"):
        ray.get(ref)
    assert [beacon.next(), beacon.next()] == ["CancelledError", "cleaned up"]
    assert_nothing_is_held()


def test_a_queued_task_never_runs(shared_ray: ModuleType, beacon: Beacon, gate: Gate) -> None:
    holding = [tasks.hold.remote(beacon.path, gate.path) for _ in range(2)]
    beacon.next(), beacon.next()
    with pytest.raises(GetTimeoutError, match=r"it was queued$"):
        ray.get(tasks.tell.options(timeout=0.05).remote(beacon.path))
    gate.open()
    assert ray.get(holding) == ["held", "held"]
    assert_nothing_is_held()
    assert beacon.told() == []


def test_a_task_that_waits_for_its_arguments_never_runs(
    shared_ray: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    argument = tasks.after.remote(gate.path)
    with pytest.raises(GetTimeoutError, match=r"it was waiting for 1 argument$"):
        ray.get(tasks.tell.options(timeout=0.05).remote(beacon.path, argument))
    gate.open()
    assert ray.get(argument) is None
    assert_nothing_is_held()
    assert beacon.told() == []


def test_a_child_is_stopped_with_its_parent(shared_ray: ModuleType, beacon: Beacon) -> None:
    ref = tasks.wait_for_child.options(timeout=TIMEOUT_S).remote(beacon.path, tasks.linger, beacon.path)
    beacon.next(), beacon.next()
    with pytest.raises(
        GetTimeoutError, match=r"'wait_for_child' was not done within its timeout|of its caller's timeout"
    ):
        ray.get(ref)
    told = sorted(beacon.next() for _ in range(3))
    assert told[0] == "CancelledError"
    assert told[2] == "cleaned up"
    # On a machine that stood still for a moment, the child's own end may be the first that is heard of.
    assert told[1] in ("KeyboardInterrupt", "GetTimeoutError")
    assert_nothing_is_held()


def test_what_depends_on_an_expired_task_carries_its_failure(shared_ray: ModuleType, gate: Gate) -> None:
    expired = tasks.after.options(timeout=0.05).remote(gate.path)
    with pytest.raises(GetTimeoutError, match="the task 'after'"):
        ray.get(tasks.plain.remote(expired))


def test_the_deadline_of_one_with_several_returns_or_none(shared_ray: ModuleType, beacon: Beacon) -> None:
    refs: Any = tasks.sleep.options(timeout=TIMEOUT_S, num_returns=2).remote(beacon.path)
    nothing = tasks.sleep.options(timeout=TIMEOUT_S, num_returns=0).remote(beacon.path)
    assert nothing is None
    for ref in refs:
        with pytest.raises(GetTimeoutError, match="'sleep'"):
            ray.get(ref)
    heard = [beacon.next() for _ in range(4)]
    assert heard.count("KeyboardInterrupt") == 2
    assert_nothing_is_held()


def test_a_timeout_may_come_from_the_decorator_and_be_taken_back(shared_ray: ModuleType) -> None:
    @ray.remote(timeout=0.01)
    def slow() -> str:
        time.sleep(0.3)
        return "done"

    with pytest.raises(GetTimeoutError, match=r"timeout of 0\.01 s"):
        ray.get(slow.remote())
    assert ray.get(slow.options(timeout=None).remote()) == "done"


def test_an_awaiting_coroutine_hears_of_it_as_of_any_timeout(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await tasks.after.options(timeout=0.05).remote(gate.path)

    asyncio.run(main())


def test_many_deadlines_need_one_timer(shared_ray: ModuleType, beacon: Beacon, gate: Gate) -> None:
    holding = [tasks.hold.remote(beacon.path, gate.path) for _ in range(2)]
    beacon.next(), beacon.next()
    timed = tasks.plain.options(timeout=0.2)
    refs = [timed.remote(number) for number in range(2000)]
    for ref in refs:
        with pytest.raises(GetTimeoutError):
            ray.get(ref)
    gate.open()
    assert ray.get(holding) == ["held", "held"]
    assert_nothing_is_held()


def test_a_task_that_raises_in_time_raises_its_own(shared_ray: ModuleType, beacon: Beacon) -> None:
    with pytest.raises(RayTaskError, match="ValueError"):
        ray.get(tasks.raise_it.options(timeout=PATIENCE_S).remote(beacon.path, ValueError))
