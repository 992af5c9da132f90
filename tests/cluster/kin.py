"""Tasks that call for tasks, and note when they begin and when they have really ended."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray import aio
from tests.cluster.beacons import light

if TYPE_CHECKING:
    from tests.cluster.beacons import Beacon


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def note(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{line}\n")


@ray.remote
def tidy(path: str, notes: str) -> None:
    """Sleep without end; tell the pid, and take a while to clean up when interrupted."""
    note(notes, "began")
    try:
        light(path, os.getpid())
        time.sleep(3600)
    finally:
        time.sleep(0.2)
        note(notes, "ended")


@ray.remote
async def tidy_coroutine(path: str, notes: str) -> None:
    """The same as a coroutine."""
    note(notes, "began")
    try:
        light(path, os.getpid())
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.2)
        note(notes, "ended")


@ray.remote(num_cpus=0, max_retries=0)
def parent(path: str, child: Any, *arguments: Any) -> None:
    """Tell the pid, and wait for a child."""
    ref = child.remote(*arguments)
    light(path, f"parent {os.getpid()}")
    ray.get(ref)


@ray.remote(num_cpus=0, max_retries=0)
def abandon(path: str, child: Any, *arguments: Any) -> None:
    """Tell the pid, and leave a child behind."""
    child.remote(*arguments)
    light(path, f"parent {os.getpid()}")


@ray.remote(num_cpus=0, max_retries=0)
async def group_of_its_own(path: str, child: Any, *arguments: Any) -> None:
    """Tell the pid, and run a group."""
    async with aio.TaskGroup() as group:
        group.create_task(child.remote(*arguments))
        light(path, f"parent {os.getpid()}")


@ray.remote(num_cpus=0, max_retries=0)
def group_on_a_loop_of_its_own(path: str, child: Any, *arguments: Any) -> None:
    """Tell the pid, and run a group in a task that is no coroutine."""

    async def run() -> None:
        async with aio.TaskGroup() as group:
            group.create_task(child.remote(*arguments))
            light(path, f"parent {os.getpid()}")

    asyncio.run(run())


PARENTS = [parent, abandon, group_of_its_own, group_on_a_loop_of_its_own]
CHILDREN = [tidy, tidy_coroutine]


async def heard(beacon: Beacon, count: int) -> dict[str, int]:
    """Wait for so many to tell who they are; returns the pids of the parent and of the child."""
    told = [await asyncio.to_thread(beacon.next) for _ in range(count)]
    return {line.rpartition(" ")[0] or "child": int(line.rpartition(" ")[2]) for line in told}
