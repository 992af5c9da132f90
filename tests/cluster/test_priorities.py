"""Priorities among real processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import asyncray as ray
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import Beacon
from tests.cluster.checks import assert_nothing_is_held
from tests.cluster.gates import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def one_cpu() -> Iterator[ModuleType]:
    """A session with one CPU."""
    ray.init(num_cpus=1)
    try:
        yield ray
    finally:
        ray.shutdown()


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


def test_the_higher_goes_first(one_cpu: ModuleType, beacon: Beacon, gate: Gate) -> None:
    holder = tasks.hold.remote(beacon.path, gate.path)
    beacon.next()
    refs = [
        tasks.tell.options(priority=priority).remote(beacon.path, f"{priority} {number}")
        for number in range(2)
        for priority in (0, -1, 2)
    ]
    gate.open()
    ray.get([holder, *refs])
    assert [beacon.next() for _ in refs] == ["2 0", "2 1", "0 0", "0 1", "-1 0", "-1 1"]
    assert_nothing_is_held(1)


def test_a_backlog_gives_way_between_two_tasks(one_cpu: ModuleType, beacon: Beacon) -> None:
    @ray.remote
    def slow(number: int) -> int:
        time.sleep(0.05)
        return number

    backlog = [slow.remote(number) for number in range(40)]
    ray.get(backlog[2])
    urgent = tasks.tell.options(priority=1, max_retries=0).remote(beacon.path, "urgent")
    ray.get(urgent)
    assert len(ray.wait(backlog, num_returns=40, timeout=0)[0]) < 20
    assert ray.get(backlog) == list(range(40))
    assert_nothing_is_held(1)


def test_many_tasks_of_many_priorities_all_run(one_cpu: ModuleType) -> None:
    refs = [tasks.plain.options(priority=number % 7 - 3).remote(number) for number in range(2000)]
    assert ray.get(refs) == list(range(2000))
    assert_nothing_is_held(1)
