"""Task groups whose workers are killed, and that are cancelled, at every step: nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

import asyncray as ray
from asyncray import aio, exceptions
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.kin import (
    failing,
    leave_behind,
    matching,
    parent,
    tidy,
    tidy_coroutine,
)
from tests.sim.tasks import HOUR_S, double, work

if TYPE_CHECKING:
    from asyncray.testing import Event


# --- deaths -------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_a_failure_after_what_it_had_called_for_has_ended() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        killed: list[int] = []

        def watch(event: Event) -> None:
            if event.what.startswith("sends BLOCKED") and not killed:
                killed.append(event.pid)
                cluster.kill_worker(event.pid)

        cluster.on_event(watch)
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(parent.options(max_retries=0).remote(work, HOUR_S))
        assert matching(caught.value, exceptions.WorkerCrashedError) == 1
        assert cluster.workers == [pid for pid in cluster.workers if pid not in killed]
        left = notes.noted.copy()
        await asyncio.sleep(2 * HOUR_S)
        assert notes.noted == left

    for seed in range(5):
        notes.noted.clear()
        simulate(main, seed=seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_kill_at_any_moment_leaves_nothing_running(seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def kill_now_and_then() -> None:
            while True:
                await asyncio.sleep(cluster.seed % 7 + 3)
                if cluster.workers:
                    cluster.kill_worker()

        killer = asyncio.create_task(kill_now_and_then())
        with failing():
            async with aio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(parent.options(max_retries=-1).remote(work, HOUR_S))
                    group.create_task(leave_behind.options(max_retries=-1).remote(work, HOUR_S))
                group.create_task(asyncio.sleep(100))
                await asyncio.sleep(60)
                raise ValueError
        killer.cancel()
        left = notes.noted.copy()
        await asyncio.sleep(2 * HOUR_S)
        assert notes.noted == left
        assert await double.remote(1) == 2

    simulate(main, seed=seed, num_cpus=3)


def test_the_death_of_the_node_ends_a_group() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                tidy.options(num_returns=0).remote(HOUR_S)
                await asyncio.sleep(10)
                ray.cancel(group.create_task(tidy.remote(HOUR_S)))
                cluster.kill_node()
        assert matching(caught.value, exceptions.LocalRayletDiedError) == 1

    simulate(main, num_cpus=4)


# --- races, replayed in order -------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["TASKS", "RESULTS", "CANCEL", "BLOCKED", "GRANT", "HANDBACK"])
@pytest.mark.parametrize("seed", range(4))
def test_a_cancellation_at_each_step_leaves_nothing_running(message: str, seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def block() -> None:
            async with aio.TaskGroup() as group:
                group.create_task(parent.remote(tidy, 20))
                group.create_task(leave_behind.remote(tidy_coroutine, 20))
                group.create_task(tidy.remote(20))

        task = asyncio.create_task(block())
        cancelled: list[Event] = []

        def watch(event: Event) -> None:
            if event.what.startswith(f"sends {message}") and not task.done() and len(cancelled) <= seed:
                cancelled.append(event)
                task.cancel()

        cluster.on_event(watch)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert notes.noted["began"] == notes.noted["ended"]
        left = notes.noted.copy()
        await asyncio.sleep(HOUR_S)
        assert notes.noted == left
        assert await double.remote(1) == 2

    simulate(main, seed=seed, num_cpus=2)
