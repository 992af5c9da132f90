"""Coroutines that do not end when they are cancelled, and what becomes of those that share their worker."""

from __future__ import annotations

import asyncio

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.tasks import HOUR_S, idle, now

#: The default of `cancel_grace_s`.
GRACE_S = 2.0


@ray.remote
async def deaf() -> None:
    """Swallow a CancelledError; the next is the death of the simulated process."""
    notes.note("deaf")
    try:
        await asyncio.sleep(HOUR_S)
    except asyncio.CancelledError:
        notes.note("swallowed")
        await asyncio.sleep(HOUR_S)


@ray.remote
async def slow_to_tidy(seconds: float) -> None:
    """Take so long to clean up."""
    try:
        await asyncio.sleep(HOUR_S)
    finally:
        await asyncio.sleep(seconds)
        notes.note("tidied")


async def started(what: str) -> None:
    while not notes.noted[what]:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.01)


def test_a_coroutine_that_cleans_up_within_the_grace_keeps_its_worker() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = slow_to_tidy.remote(GRACE_S - 0.5)
        other = idle.remote(10, "other")
        await asyncio.sleep(1)
        ray.cancel(ref)
        assert await other == "other"
        assert (notes.noted["tidied"], notes.noted["idle"]) == (1, 1)

    simulate(main)


def test_one_that_ignores_its_cancellation_is_killed_after_the_grace() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = deaf.remote()
        await started("deaf")
        ray.cancel(ref)
        assert ref.cancelled()
        before = cluster.workers
        await asyncio.sleep(GRACE_S - 0.5)
        assert cluster.workers == before
        await asyncio.sleep(1)
        assert len(set(before) - set(cluster.workers)) == 1
        assert (notes.noted["deaf"], notes.noted["swallowed"]) == (1, 1)

    simulate(main, num_cpus=1)


def test_those_that_share_its_worker_run_again_and_keep_their_retries() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        others = [idle.options(max_retries=1).remote(10, number) for number in range(5)]
        ref = deaf.remote()
        await started("deaf")
        ray.cancel(ref)
        await asyncio.sleep(2 * GRACE_S)
        assert notes.noted["idle"] == 10, "they run again"
        tasks = [other._record.task for other in others]  # type: ignore[attr-defined]
        assert [(task.retries, task.attempt) for task in tasks] == [(1, 0)] * 5
        assert await ray.aio.get(others) == list(range(5))

    simulate(main, num_cpus=1)


def test_their_one_retry_is_left_for_a_crash() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        other = idle.options(max_retries=1).remote(10, "other")
        ref = deaf.remote()
        await started("deaf")
        ray.cancel(ref)
        await asyncio.sleep(2 * GRACE_S)
        cluster.kill_worker()
        assert await other == "other"
        assert notes.noted["idle"] == 3

    simulate(main, num_cpus=1)


def test_one_that_may_not_run_twice_is_waited_for() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        once = idle.options(max_retries=0).remote(60, "once")
        ref = deaf.options(max_retries=0).remote()
        await started("deaf")
        ray.cancel(ref)
        later = [idle.options(max_retries=0).remote(1, number) for number in range(3)]
        assert await once == "once"
        assert notes.noted["idle"] >= 1
        ended = now()
        assert await ray.aio.get(later) == [0, 1, 2]
        assert now() - ended < 2 * GRACE_S + 2
        assert notes.noted["idle"] == 4, "nothing ran twice"

    simulate(main, num_cpus=1)


def test_nothing_more_is_sent_to_its_worker() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        once = idle.options(max_retries=0).remote(60, "once")
        ref = deaf.options(max_retries=0).remote()
        await started("deaf")
        ray.cancel(ref)
        await asyncio.sleep(GRACE_S + 0.5)
        began = now()
        # There is a second CPU, and so a second worker.
        assert await idle.options(max_retries=0).remote(1, "elsewhere") == "elsewhere"
        assert now() - began < 2
        assert not once.done()
        assert await once == "once"

    simulate(main, num_cpus=2)


def test_one_that_ends_late_by_itself_gives_its_worker_back() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        once = idle.options(max_retries=0).remote(60, "once")
        ref = slow_to_tidy.options(max_retries=0).remote(10)
        await asyncio.sleep(1)
        ray.cancel(ref)
        await asyncio.sleep(20)
        assert notes.noted["tidied"] == 1
        began = now()
        assert await idle.options(max_retries=0).remote(1, "same worker") == "same worker"
        assert now() - began < 2
        assert await once == "once"

    simulate(main, num_cpus=1)


def test_a_forced_cancel_costs_its_neighbours_no_retry() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        other = idle.options(max_retries=1).remote(10, "other")
        ref = deaf.remote()
        await started("deaf")
        ray.cancel(ref, force=True)
        await asyncio.sleep(1)
        cluster.kill_worker()
        assert await other == "other"

    simulate(main, num_cpus=1)


def test_a_crash_costs_a_retry_as_ever() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        other = idle.options(max_retries=1).remote(10)
        for _ in range(2):
            await asyncio.sleep(1)
            cluster.kill_worker()
        with pytest.raises(exceptions.WorkerCrashedError):
            await other

    simulate(main, num_cpus=1)


def test_a_deaf_coroutine_past_its_deadline_is_killed_like_a_cancelled_one() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = deaf.options(timeout=1).remote()
        with pytest.raises(exceptions.GetTimeoutError):
            await ref
        other = idle.remote(2 * GRACE_S, "other")
        assert await other == "other"
        assert (notes.noted["deaf"], notes.noted["swallowed"]) == (1, 1)
        assert notes.noted["idle"] >= 1

    simulate(main, num_cpus=1)


def test_the_grace_can_be_set() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = slow_to_tidy.remote(60)
        await asyncio.sleep(1)
        ray.cancel(ref)
        await asyncio.sleep(100)
        assert notes.noted["tidied"] == 1

    simulate(main, num_cpus=1, cancel_grace_s=70)
