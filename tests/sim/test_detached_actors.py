"""Detached actors under virtual time: what becomes of those that find no room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import asyncray as ray
from asyncray.exceptions import ActorUnschedulableError
from asyncray.testing import SimulatedCluster, simulate

#: Workers that a machine without memory to speak of may have.
FEWEST_WORKERS = 8


class _Kept:
    def number(self) -> int:
        return 7


Kept: Any = ray.remote(_Kept)


@ray.remote
def make_below(levels: int, name: str) -> int:
    """Make a detached actor, so many calls deeper."""
    if levels:
        return int(ray.get(make_below.remote(levels - 1, name)))
    kept = Kept.options(name=name, lifetime="detached", num_cpus=0).remote()
    return int(ray.get(kept.number.remote()))


def test_a_task_makes_a_detached_actor_after_another_one_could_not_for_lack_of_room() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        # Every worker waits, the last of them for the keeper of detached actors.
        with pytest.raises(ActorUnschedulableError, match="worker processes exist"):
            await make_below.remote(FEWEST_WORKERS - 1, "first")
        async with asyncio.timeout(60):
            assert await make_below.remote(1, "second") == 7
        ray.kill(await ray.aio.get_actor("second"))

    simulate(main, worker_memory_estimate_bytes=1 << 40)
