"""Streams in groups over real processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio, exceptions
from tests.cluster.checks import assert_nothing_is_held
from tests.cluster.producers import WATCHED, paused_with

if TYPE_CHECKING:
    from tests.cluster.doors import Doors

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
def leave_open(producer: Any, name: str) -> int:
    """Begin to read a stream, and let nobody go on."""
    kept.append(producer.options(max_unread=2).remote(name, 100))
    return int(ray.get(next(kept[-1])))


kept: list[Any] = []


@WATCHED
@pytest.mark.parametrize("paused", [True, False], ids=["paused already", "on its way"])
def test_a_group_stops_a_producer_that_pauses_when_nobody_can_read_any_more(
    producer: Any, paused: bool, doors: Doors
) -> None:
    door = doors.new()

    async def main() -> None:
        async with aio.TaskGroup():
            stream = producer.options(max_unread=2).remote(door.name, 100)
            if paused:
                assert [await asyncio.to_thread(door.hear) for _ in range(2)] == ["0", "1"]
                await asyncio.to_thread(paused_with, stream, 2)
        heard = [door.hear() for _ in range(1 if paused else 3)]
        assert heard[-1] in ("GeneratorExit", "CancelledError")
        *refs, last = [ref async for ref in stream]
        assert await aio.get(refs) == [0, 1]
        with pytest.raises(exceptions.TaskCancelledError, match="nobody was left to read on"):
            await last

    asyncio.run(main())
    assert_nothing_is_held()


@WATCHED
def test_a_call_in_a_group_does_not_wait_for_what_it_has_left_unread(producer: Any, doors: Doors) -> None:
    door = doors.new()

    async def main() -> None:
        async with aio.TaskGroup() as group:
            ref = group.create_task(leave_open.remote(producer, door.name))
        assert await ref == 0
        assert [door.hear() for _ in range(4)][-1] in ("GeneratorExit", "CancelledError")

    asyncio.run(main())
