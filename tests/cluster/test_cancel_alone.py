"""Cancelling, where a test needs a session of its own: one worker, one queue, or a worker that is killed."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import TaskCancelledError
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import PATIENCE_S, Beacon, light
from tests.cluster.checks import assert_cancelled, assert_nothing_is_held, the_session, wait_until
from tests.leaks import wait_for_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from tests.cluster.gates import Gate


@contextmanager
def a_session(**config: float) -> Iterator[ModuleType]:
    """One CPU, and what is given of the configuration."""
    ray.init(num_cpus=1, _system_config=config)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def one_queue() -> Iterator[ModuleType]:
    """One worker, and what is sent to it stays there: short tasks queue up behind each other."""
    with a_session(recall_after_s=3600, pipeline_target_s=3600):
        ray.get([quick.remote("", "", i) for i in range(10)])
        yield ray


@ray.remote
def quick(path: str, gate: str, value: Any = None) -> Any:
    """Return the value at once, or do what `hold` does where a gate is given; so far it has been quick."""
    if gate:
        return tasks.hold._function(path, gate, value)
    if path:
        light(path, value)
    return value


# ---- before it runs ----


def test_a_task_behind_another_in_the_worker_never_runs_and_those_around_it_do(
    beacon: Beacon, other_beacon: Beacon, gate: Gate
) -> None:
    with one_queue():
        running = quick.remote(beacon.path, gate.path, "first")
        beacon.next()
        queued = [quick.remote(other_beacon.path, "", i) for i in range(3)]
        wait_until(lambda: len(in_flight()) == 4)
        ray.cancel(queued[1])
        assert_cancelled(queued[1])
        wait_until(lambda: len(in_flight()) == 3)
        gate.open()
        assert ray.get([running, queued[0], queued[2]]) == ["first", 0, 2]
        assert other_beacon.told() == ["0", "2"]
        assert_nothing_is_held(1)


def in_flight() -> list[Any]:
    """What workers have been sent and not answered."""
    session = the_session()
    with session.owner.lock:
        leases = session.leases._leases.values()
        return [task for lease in leases for task in lease.in_flight.values()]


def test_a_task_that_nothing_can_ever_run_is_cancelled(ray_session: ModuleType) -> None:
    ref = tasks.plain.options(resources={"unobtainable": 1}).remote()
    ray.cancel(ref)
    assert_cancelled(ref)
    assert_nothing_is_held()


# ---- force ----


def test_code_that_hears_no_signal_needs_force_and_its_reference_does_not(beacon: Beacon) -> None:
    with a_session(cancel_grace_s=0.2):
        ref = tasks.be_deaf.remote(beacon.path)
        process = int(beacon.next())
        ray.cancel(ref)
        assert_cancelled(ref)
        ray.cancel(ref, force=True)
        wait_for_exit([process], PATIENCE_S)
        assert_nothing_is_held(1)
        assert ray.get(tasks.pid.remote()) != process


def test_force_ends_a_worker_whose_loop_is_blocked(beacon: Beacon) -> None:
    with a_session(cancel_grace_s=0.2):
        ref = tasks.block_the_loop.remote(beacon.path)
        process = int(beacon.next())
        ray.cancel(ref, force=True)
        assert_cancelled(ref)
        wait_for_exit([process], PATIENCE_S)
        assert_nothing_is_held(1)


def test_force_kills_the_worker_and_the_tasks_behind_get_done_elsewhere(
    beacon: Beacon, other_beacon: Beacon, gate: Gate
) -> None:
    with one_queue():
        running = quick.remote(beacon.path, gate.path, "first")
        process = int(beacon.next())
        queued = [quick.remote(other_beacon.path, "", i) for i in range(5)]
        once = quick.options(max_retries=0).remote(other_beacon.path, "", 5)
        wait_until(lambda: len(in_flight()) == 6)
        ray.cancel(running, force=True)
        assert_cancelled(running)
        wait_for_exit([process], PATIENCE_S)
        assert ray.get([*queued, once], timeout=PATIENCE_S) == [0, 1, 2, 3, 4, 5]
        assert sorted(other_beacon.told()) == list("012345"), "each ran once"
        assert_nothing_is_held(1)


def test_force_spares_a_worker_that_has_the_task_only_in_its_queue(beacon: Beacon, gate: Gate) -> None:
    with a_session(recall_after_s=3600, pipeline_target_s=3600, cancel_grace_s=0.1):
        once = quick.options(max_retries=0)
        ray.get([once.remote("", "", i) for i in range(10)])
        running = once.remote(beacon.path, gate.path, "first")
        process = beacon.next()
        queued = once.remote("", "", 1)
        wait_until(lambda: len(in_flight()) == 2)
        ray.cancel(queued, force=True)
        assert_cancelled(queued)
        assert ray.wait([running], timeout=0.5) == ([], [running]), "the time that force leaves is over"
        gate.open()
        assert ray.get(running) == "first"
        assert str(ray.get(tasks.pid.remote())) == process
        assert_nothing_is_held(1)


def test_force_spares_the_next_task_of_the_worker(beacon: Beacon, gate: Gate) -> None:
    with a_session(cancel_grace_s=0.1):
        ended = tasks.stubborn.remote(beacon.path)
        process = beacon.next()
        ray.cancel(ended)
        beacon.next()
        following = tasks.hold.options(max_retries=0).remote(beacon.path, gate.path)
        assert beacon.next() == process
        ray.cancel(ended, force=True)
        assert ray.wait([following], timeout=0.5) == ([], [following])
        gate.open()
        assert ray.get(following) == "held"


# ---- what follows ----


@pytest.mark.parametrize("force", [False, True], ids=["interrupted", "killed"])
def test_a_cancelled_task_is_not_retried(beacon: Beacon, force: bool) -> None:
    with a_session():
        retried = tasks.sleep.options(max_retries=5, retry_exceptions=True)
        ref = retried.remote(beacon.path)
        beacon.next()
        ray.cancel(ref, force=force)
        assert_nothing_is_held(1)
        assert beacon.told() == ([] if force else ["KeyboardInterrupt"])
        assert_cancelled(ref)


def test_a_handler_that_an_earlier_task_has_left_behind_keeps_nobody_from_cancelling(beacon: Beacon) -> None:
    @ray.remote
    def ignore_interrupts() -> None:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with a_session():
        ray.get(ignore_interrupts.remote())
        ref = tasks.sleep.remote(beacon.path)
        beacon.next()
        ray.cancel(ref)
        assert beacon.next() == "KeyboardInterrupt"
        assert_nothing_is_held(1)


# ---- on a loop ----


def test_a_coroutine_of_the_driver_cancels_without_blocking_its_loop(
    beacon: Beacon, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with aio.session(num_cpus=1):
            ref = tasks.sleep.remote(beacon.path)
            await asyncio.to_thread(beacon.next)
            waiting = asyncio.ensure_future(aio.get(ref))
            await asyncio.sleep(0)
            await aio.cancel(ref)
            with pytest.raises(TaskCancelledError):
                await waiting
            other = tasks.sleep.remote(beacon.path)
            ray.cancel(other)
            with pytest.raises(TaskCancelledError):
                await other

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
