"""Nothing of a task group is left running, whoever is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import SessionClosedError, WorkerCrashedError
from tests.cluster import cancellable as tasks
from tests.cluster import processes
from tests.cluster.beacons import Beacon, light
from tests.cluster.kin import CHILDREN, PARENTS, heard, lines, parent, tidy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
#: For blocks of several statements: a group is one.
failing = partial(pytest.raises, ExceptionGroup)


@pytest.fixture
def beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what tasks tell."""
    made = Beacon(tmp_path)
    yield made
    made.close()


# --- sessions that begin and end inside ---


def test_a_group_may_be_older_than_the_sessions_inside_it() -> None:
    async def main() -> list[Any]:
        refs = []
        async with aio.TaskGroup() as group:
            for number in range(2):
                async with aio.session(num_cpus=1):
                    refs.append(group.create_task(tasks.plain.remote(number)))
                    refs.append(await refs[-1])
        return refs[1::2]

    assert asyncio.run(main()) == [0, 1]


def test_the_end_of_the_session_is_the_end_of_what_runs_in_the_group(beacon: Beacon, tmp_path: Path) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                async with aio.session(num_cpus=2):
                    group.create_task(parent.remote(beacon.path, tidy, beacon.path, notes))
                    tidy.options(num_returns=0).remote(beacon.path, notes)
                    pids = await heard(beacon, 2)
                assert not any(processes.exists(pid) for pid in pids.values())
        assert caught.value.subgroup(SessionClosedError) is not None
        assert len(caught.value.exceptions) == 1

    asyncio.run(main())


# --- kills --


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("caller", PARENTS)
def test_when_the_worker_of_a_parent_is_killed_its_child_has_ended_before_the_block_is_left(
    ray_session: ModuleType, beacon: Beacon, tmp_path: Path, caller: Any, child: Any
) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(caller.remote(beacon.path, child, beacon.path, notes))
                who = await heard(beacon, 2)
                processes.kill(who["parent"])
        assert caught.value.subgroup(WorkerCrashedError) is not None
        assert lines(notes) == ["began", "ended"], "it had its time to clean up"
        assert not processes.exists(who["child"])

    asyncio.run(main())


def test_a_child_that_ignores_the_death_of_its_caller_is_killed_after_the_grace(
    beacon: Beacon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCRAY_CANCEL_GRACE_S", "0.3")

    async def main() -> None:
        async with aio.session(num_cpus=2):
            with failing():
                async with aio.TaskGroup() as group:
                    group.create_task(parent.remote(beacon.path, tasks.be_deaf, beacon.path))
                    who = await heard(beacon, 2)
                    processes.kill(who["parent"])
            assert not processes.exists(who["child"])

    asyncio.run(main())


def test_a_worker_killed_while_the_group_ends_is_an_end_too(
    ray_session: ModuleType, beacon: Beacon, tmp_path: Path
) -> None:
    @ray.remote
    def never_ends(path: str) -> None:
        while True:
            try:
                light(path, os.getpid())
                threading.Event().wait()
            except KeyboardInterrupt:
                light(path, "goes on")

    async def main() -> None:
        async with asyncio.timeout(30):
            with failing() as caught:
                async with aio.TaskGroup() as group:
                    ref = group.create_task(never_ends.remote(beacon.path))
                    who = await heard(beacon, 1)
                    threading.Thread(target=kill_when_interrupted, args=(who["child"],)).start()
                    raise ValueError
            assert len(caught.value.exceptions) == 1
            assert ref.cancelled()
            assert not processes.exists(who["child"])

    def kill_when_interrupted(pid: int) -> None:
        assert beacon.next() == "goes on"
        processes.kill(pid)

    asyncio.run(main())


def test_a_retried_parent_meets_nothing_of_its_first_attempt(
    ray_session: ModuleType, beacon: Beacon, tmp_path: Path
) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        with failing():
            async with aio.TaskGroup() as group:
                group.create_task(parent.options(max_retries=1).remote(beacon.path, tidy, beacon.path, notes))
                processes.kill((await heard(beacon, 2))["parent"])
                await heard(beacon, 2)
                assert lines(notes) == ["began", "ended", "began"]
                raise ValueError
        assert lines(notes) == ["began", "ended"] * 2

    asyncio.run(main())


_PROGRAM = """
import asyncio, os, sys
import asyncray as ray
from asyncray import aio
from tests.cluster.beacons import light
from tests.cluster.kin import parent, tidy

async def main(path, notes):
    async with aio.session(num_cpus=2):
        async with aio.TaskGroup() as group:
            group.create_task(parent.remote(path, tidy, path, notes))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_whole_block_is_killed_nothing_of_it_is_left(
    beacon: Beacon, tmp_path: Path, how: signal.Signals
) -> None:
    with processes.adopting_orphans():
        driver = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, beacon.path, str(tmp_path / "notes")],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = [beacon.next(), beacon.next()]
        pids = [int(line.rpartition(" ")[2]) for line in told]
        (node,) = processes.children(driver.pid)
        driver.send_signal(how)
        assert driver.wait(10) != 0
        assert not processes.left_of([*pids, node], within_s=1.0, reaping=[node])
    if how is signal.SIGINT:
        assert lines(str(tmp_path / "notes")) == ["began", "ended"]
