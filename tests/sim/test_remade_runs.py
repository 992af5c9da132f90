"""The runs that make lost objects again, in simulation: what they are subject to, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import asyncray as ray
from asyncray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    OwnerDiedError,
    TaskCancelledError,
    WorkerCrashedError,
)
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.lost import first, kept, large, lose, made, owner_of, plus
from tests.sim.tasks import HOUR_S, now

# --- what a run is subject to -----------------------------------------------------------------------------


def test_a_run_has_the_timeout_of_its_own_anew() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.options(timeout=10).remote(1, 5.0)
        await ref
        await asyncio.sleep(HOUR_S)
        lose(ref)
        assert await ref == large(1)

    simulate(main)


def test_a_run_that_takes_too_long_fails() -> None:
    @ray.remote(timeout=10)
    def slower() -> bytes:
        sleep(8.0 * notes.note("slower"))
        return large(1)

    async def main(cluster: SimulatedCluster) -> None:
        ref = slower.remote()
        await ref
        lose(ref)
        with pytest.raises(GetTimeoutError):
            await ref

    simulate(main)


def test_a_run_belongs_to_no_group_and_no_scope_of_its_reader() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with ray.aio.TaskGroup() as group:
            ref = made.remote(1, 5.0)
            group.create_task(ref)
        began = now()
        async with ray.aio.TaskGroup():
            lose(ref)
        assert now() == began
        with pytest.raises(ZeroDivisionError):
            async with ray.aio.scope():
                raise ZeroDivisionError
        assert await ref == large(1)

    simulate(main)


def test_a_cancelled_run_fails_what_it_was_to_make_and_nothing_else() -> None:
    @ray.remote(num_returns=2)
    def two() -> tuple[bytes, bytes]:
        sleep(5.0 * notes.note("two"))
        return large(1), large(2)

    async def main(cluster: SimulatedCluster) -> None:
        returns: Any = two.remote()
        one, other = returns
        returns.clear()
        await ray.aio.get([one, other])
        lose(one)
        await asyncio.sleep(1)
        ray.cancel(one)
        with pytest.raises(TaskCancelledError):
            await one
        assert await other == large(2)
        # Its worker may still be at the cancelled run.
        lose(other)
        assert await other == large(2)
        with pytest.raises(TaskCancelledError):
            await one
        assert notes.noted["two"] == 3
        del one, other
        assert await kept(cluster) == 0

    simulate(main)


def test_a_cancel_of_what_was_done_keeps_no_run_from_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(1)
        await ref
        ray.cancel(ref)
        lose(ref)
        assert await ref == large(1)

    simulate(main)


def test_of_tasks_that_were_cancelled_or_failed_nothing_is_kept() -> None:
    @ray.remote(max_retries=0)
    def large_failure() -> bytes:
        raise ValueError(large(1))

    async def main(cluster: SimulatedCluster) -> None:
        cancelled, failed = made.remote(1, 5.0), large_failure.remote()
        await asyncio.sleep(1)
        ray.cancel(cancelled)
        with pytest.raises(ValueError, match="x01"):
            await failed
        with pytest.raises(TaskCancelledError):
            await cancelled
        await asyncio.sleep(10)
        assert await kept(cluster) == 0
        assert cluster.driver.owner.objects.lineage.specs == {}

    simulate(main)


def test_returns_lost_during_a_run_are_made_by_it() -> None:
    @ray.remote(num_returns=3)
    def three() -> tuple[bytes, bytes, int]:
        count = notes.note("three")
        sleep(5.0)
        return large(count), large(10 + count), count

    async def main(cluster: SimulatedCluster) -> None:
        returns: Any = three.remote()
        one, two, small = returns
        await ray.aio.get([one, two, small])
        lose(one)
        await asyncio.sleep(1)
        lose(two)
        assert await ray.aio.get([one, two, small]) == [large(2), large(12), 1]
        lose(two)
        assert await ray.aio.get([one, two, small]) == [large(2), large(13), 1]

    simulate(main)


def test_a_run_that_raises_fails_the_object_with_that() -> None:
    @ray.remote
    def once() -> bytes:
        if notes.note("once") > 1:
            raise ValueError("not twice")
        return large(1)

    async def main(cluster: SimulatedCluster) -> None:
        ref = once.remote()
        child = plus.remote(ref, 1)
        await child
        lose(ref)
        with pytest.raises(ValueError, match="not twice"):
            await ref
        lose(child)
        with pytest.raises(ValueError, match="not twice"):
            await child
        del ref, child
        assert await kept(cluster) == 0

    simulate(main)


def test_a_run_whose_worker_dies_uses_up_what_retries_are_left() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.options(max_retries=2).remote(1, 5.0)
        await ref
        lose(ref)
        await asyncio.sleep(1)
        cluster.kill_worker()
        assert await ref == large(1)
        lose(ref)
        with pytest.raises(ObjectReconstructionFailedError, match="retries are used up"):
            await ref
        ref = made.options(max_retries=1).remote(1, 5.0)
        await ref
        lose(ref)
        await asyncio.sleep(1)
        cluster.kill_worker()
        with pytest.raises(WorkerCrashedError):
            await ref

    simulate(main)


def test_retries_without_end_are_without_end() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.options(max_retries=-1).remote(1)
        for _ in range(5):
            assert await ref == large(1)
            lose(ref)
        assert await ref == large(1)

    simulate(main)


# --- who owns it ------------------------------------------------------------------------------------------


@ray.remote
def owner_of_one(seconds: float) -> list[Any]:
    ref = made.remote(1, seconds)
    ray.wait([ref])
    return [ref]


def lose_in_its_worker(cluster: SimulatedCluster) -> int:
    """Lose the one object that a worker has made by a task; returns the worker's pid."""
    (session,) = [each for each in cluster.sessions[1:] if each.owner.objects.lineage.specs]
    (number,) = session.owner.objects.lineage.specs
    record = session.owner.objects.owned[number]
    session.call_soon(session.owner.remaking.lost, record, record.value, "the disk has failed")
    return session.identity.pid


def test_a_worker_makes_again_what_it_owns() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        (ref,) = await owner_of_one.options(timeout=20).remote(5.0)
        # What the call that made it had to end by has passed.
        await asyncio.sleep(HOUR_S)
        lose_in_its_worker(cluster)
        await asyncio.sleep(1)
        assert await first.remote(ref) == 1
        assert notes.noted["made"] == 2

    simulate(main)


@ray.remote
def owner_of_another(refs: list[Any]) -> list[Any]:
    ref = plus.remote(refs[0], 1)
    ray.wait([ref])
    return [ref]


def test_an_argument_that_another_process_owns_must_still_be_there() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        source = made.remote(1)
        (ref,) = await owner_of_another.remote([source])
        lose_in_its_worker(cluster)
        await asyncio.sleep(1)
        assert notes.noted["plus"] == 2
        assert await first.remote(ref) == 2
        await asyncio.sleep(1)
        assert cluster.driver.statistics().borrowers == 0
        del source, ref
        await kept(cluster)
        source = made.remote(1)
        (ref,) = await owner_of_another.remote([source])
        del source
        await kept(cluster)
        lose_in_its_worker(cluster)
        await asyncio.sleep(1)
        with pytest.raises(ObjectLostError, match="freed before its value was asked for"):
            await first.remote(ref)

    simulate(main)


def test_what_its_owner_makes_again_is_lost_with_the_owner() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        (ref,) = await owner_of_one.remote(5.0)
        pid = lose_in_its_worker(cluster)
        reading = asyncio.ensure_future(ray.aio.get(ref))
        await asyncio.sleep(1)
        assert notes.noted["made"] == 2
        cluster.kill_worker(pid)
        with pytest.raises(OwnerDiedError):
            await reading

    simulate(main)


def test_a_shutdown_ends_what_is_being_made_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(1, 5.0)
        await ref
        lose(ref)
        cluster.kill_node()
        with pytest.raises(ray.exceptions.LocalRayletDiedError):
            await ref
        assert not owner_of(ref).remaking.running

    simulate(main)
