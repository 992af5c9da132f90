"""Coroutines that do not end when they are cancelled: real workers are killed, and neighbours spared."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import PATIENCE_S, Beacon, light
from tests.cluster.checks import assert_cancelled
from tests.cluster.gates import Gate
from tests.leaks import wait_for_exit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session that leaves little time."""
    monkeypatch.setenv("ASYNCRAY_CANCEL_GRACE_S", "0.3")
    ray.init(num_cpus=1)
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote
async def swallow(path: str) -> None:
    """Swallow every CancelledError."""
    light(path, os.getpid())
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("task", [swallow, tasks.block_the_loop], ids=["swallows it", "blocks the loop"])
def test_it_is_killed_after_the_grace_and_its_neighbour_runs_again(
    beacon: Beacon, gate: Gate, task: Any
) -> None:
    neighbour = gate.ref("value")
    ref = task.options(num_cpus=0).remote(beacon.path)
    process = int(beacon.next())
    ray.cancel(ref)
    assert_cancelled(ref)
    wait_for_exit([process], PATIENCE_S)
    assert not os.path.exists(f"/proc/{process}/exe")  # noqa: PTH110
    gate.open()
    assert ray.get(neighbour) == "value"


def test_one_that_cleans_up_in_time_keeps_its_worker(beacon: Beacon, gate: Gate) -> None:
    neighbour = gate.ref("value")
    ref = tasks.linger.options(num_cpus=0).remote(beacon.path)
    process = int(beacon.next())
    ray.cancel(ref)
    assert [beacon.next(), beacon.next()] == ["CancelledError", "cleaned up"]
    wait_for_exit([process], 0.6)
    assert os.path.exists(f"/proc/{process}/exe")  # noqa: PTH110
    gate.open()
    assert ray.get(neighbour) == "value"
