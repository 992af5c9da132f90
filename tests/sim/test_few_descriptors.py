"""An owner without descriptors under virtual time: what it cannot reach now it asks for again."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim.tasks import HOUR_S

if TYPE_CHECKING:
    import pytest

#: Virtual seconds within which what waits for a worker has got one.
SOON_S = 60.0


@ray.remote
def work(seconds: float) -> float:
    sleep(seconds)
    return seconds


def test_a_task_does_not_wait_for_a_long_one_because_another_worker_could_not_be_reached_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        links = cluster.driver.leases.links
        connect, allowed = links.connect, iter([True, False])

        def connect_if_allowed(worker: Any, network: Any = None) -> Any:
            if not next(allowed, True):
                raise OSError(errno.EMFILE, "Too many open files")
            return connect(worker, network)

        monkeypatch.setattr(links, "connect", connect_if_allowed)
        long = work.remote(HOUR_S)
        async with asyncio.timeout(SOON_S):
            assert await work.remote(0.0) == 0.0
        ray.cancel(long)

    simulate(main, num_cpus=2)
