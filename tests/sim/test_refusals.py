"""What is refused where no further worker may be started, under virtual time: just what lets others go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import asyncray as ray
from asyncray.exceptions import TaskUnschedulableError
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim.tasks import HOUR_S

#: Workers that a machine without memory to speak of may have.
FEWEST_WORKERS = 8
SOON_S = 60.0


@ray.remote(num_cpus=1)
def wait_for(boxed: list[Any]) -> str:
    try:
        ray.get(boxed)
    except TaskUnschedulableError:
        return "refused"
    return "done"


@ray.remote(num_cpus=0.5)
def bystander() -> None:
    """Nobody waits for it."""


@ray.remote(num_cpus=0.25)
def awaited(begun: None) -> None:
    """All wait for it."""


@ray.remote(num_cpus=1)
def begin(seconds: float) -> None:
    sleep(seconds)


def test_another_is_refused_where_the_first_refusal_has_helped_nobody() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        needed = awaited.remote(begin.remote(1.0))
        waiting = [wait_for.remote([needed]) for _ in range(FEWEST_WORKERS)]
        await asyncio.sleep(0.5)
        unneeded = bystander.remote()
        async with asyncio.timeout(SOON_S):
            assert await asyncio.gather(*waiting) == ["refused"] * FEWEST_WORKERS
        for refused in (unneeded, needed):
            with pytest.raises(TaskUnschedulableError, match="worker processes exist"):
                await refused

    simulate(main, num_cpus=FEWEST_WORKERS, worker_memory_estimate_bytes=1 << 40)


@ray.remote(num_cpus=1)
def own(seconds: float) -> list[Any]:
    sleep(seconds)
    return [ray.put(seconds)]


@ray.remote(num_cpus=0)
async def on_a_loop() -> str:
    return "on a loop"


def test_a_worker_that_was_needed_once_makes_room_when_it_is_not_any_more() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        long = begin.remote(HOUR_S)
        owned = await asyncio.gather(*[own.remote(1.0) for _ in range(FEWEST_WORKERS - 1)])
        other = asyncio.ensure_future(on_a_loop.remote())
        await asyncio.sleep(SOON_S)
        assert not other.done(), "all the others are needed"
        owned.clear()
        async with asyncio.timeout(SOON_S):
            assert await other == "on a loop"
        ray.cancel(long)

    simulate(main, num_cpus=FEWEST_WORKERS, worker_memory_estimate_bytes=1 << 40)
