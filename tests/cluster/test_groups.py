"""Task groups over real processes: the end of a block is the end of all its work."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import TaskCancelledError
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import Beacon
from tests.cluster.checks import assert_nothing_is_held
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


# --- the end is the real one --


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("caller", PARENTS)
def test_a_failure_ends_everything_in_every_process_before_the_block_is_left(
    shared_ray: ModuleType, beacon: Beacon, tmp_path: Path, caller: Any, child: Any
) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(caller.remote(beacon.path, child, beacon.path, notes))
                await heard(beacon, 2)
                group.create_task(tasks.raise_it.remote(os.devnull, ValueError))
        assert lines(notes) == ["began", "ended"]
        assert caught.value.subgroup(ValueError) is not None
        assert len(caught.value.exceptions) == 1

    asyncio.run(main())
    assert_nothing_is_held()


@pytest.mark.parametrize("child", CHILDREN)
def test_a_cancelled_block_ends_everything_before_it_is_left(
    shared_ray: ModuleType, beacon: Beacon, tmp_path: Path, child: Any
) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        async def block() -> None:
            async with aio.TaskGroup() as group:
                group.create_task(parent.remote(beacon.path, child, beacon.path, notes))

        task = asyncio.create_task(block())
        await heard(beacon, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lines(notes) == ["began", "ended"]

    asyncio.run(main())
    assert_nothing_is_held()


def test_it_runs_on_every_kind_of_loop(shared_ray: ModuleType, loop_factory: Any) -> None:
    async def main() -> list[int]:
        async with aio.TaskGroup() as group:
            refs = [group.create_task(tasks.plain.remote(number)) for number in range(100)]
        return [ref.result() for ref in refs]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(main()) == list(range(100))


def test_threads_of_the_block_make_calls_of_the_block(
    shared_ray: ModuleType, beacon: Beacon, tmp_path: Path
) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        with failing():
            async with aio.TaskGroup():
                await asyncio.to_thread(tidy.remote, beacon.path, notes)
                await heard(beacon, 1)
                raise ValueError
        assert lines(notes) == ["began", "ended"]

    asyncio.run(main())


# --- borrowed references --


@ray.remote(num_cpus=0)
async def share(path: str, child: Any, *arguments: Any) -> list[Any]:
    """Return a reference to a call of this worker's own, which is under way."""
    return [child.remote(*arguments)]


@pytest.mark.parametrize("child", CHILDREN)
def test_a_call_that_another_process_made_may_be_a_member(
    shared_ray: ModuleType, beacon: Beacon, tmp_path: Path, child: Any
) -> None:
    notes = str(tmp_path / "notes")

    async def main() -> None:
        (ref,) = await share.remote(beacon.path, child, beacon.path, notes)
        await heard(beacon, 1)
        with failing():
            async with aio.TaskGroup() as group:
                group.create_task(ref)
                raise ValueError
        assert lines(notes) == ["began", "ended"]
        with pytest.raises(TaskCancelledError):
            await ref

    asyncio.run(main())
    assert_nothing_is_held()
