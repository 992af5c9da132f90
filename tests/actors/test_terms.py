"""Calls of actors under deadlines, in scopes, in groups, with carried variables."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

import asyncray as ray
from asyncray import aio, exceptions

pytestmark = pytest.mark.usefixtures("shared_ray")

trace: ContextVar[str] = ContextVar("trace", default="none")


class _Room:
    """Coroutines that wait."""

    def __init__(self) -> None:
        self.ended = 0
        self.changed = asyncio.Event()

    async def wait(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
            self.changed.set()

    async def ends(self, count: int) -> int:
        while self.ended < count:
            self.changed.clear()
            await self.changed.wait()
        return self.ended

    async def trace(self) -> str:
        return trace.get()

    async def fail(self) -> None:
        raise ValueError("no")


class _Desk:
    """One call at a time."""

    def until_cancelled(self) -> None:
        import time

        while not ray.get_runtime_context().is_canceled():
            time.sleep(0.001)

    def left(self, actor: list[Any]) -> str:
        try:
            ray.get(actor[0].wait.remote())
        except exceptions.GetTimeoutError:
            return "in time"
        return "never"

    def add(self, value: int) -> int:
        return value + 1


Room = ray.remote(_Room)
Desk = ray.remote(_Desk)


def test_a_call_is_stopped_at_its_deadline() -> None:
    room = Room.remote()
    ray.get(room.__ray_ready__.remote())
    with pytest.raises(exceptions.GetTimeoutError):
        ray.get(room.wait.options(timeout=0.05).remote())
    assert ray.get(room.ends.remote(1)) == 1


def test_a_sync_method_is_told_at_its_deadline() -> None:
    desk = Desk.remote()
    ray.get(desk.__ray_ready__.remote())
    with pytest.raises(exceptions.GetTimeoutError):
        ray.get(desk.until_cancelled.options(timeout=0.1).remote())
    assert ray.get(desk.add.remote(1)) == 2


def test_an_actor_inherits_a_deadline_for_the_call_and_not_for_its_life() -> None:
    room, desk = Room.remote(), Desk.remote()
    ray.get([room.__ray_ready__.remote(), desk.__ray_ready__.remote()])
    ref = desk.left.options(timeout=0.3).remote([room])
    with pytest.raises(exceptions.GetTimeoutError):
        ray.get(ref)
    assert ray.get(room.ends.remote(1)) == 1
    assert ray.get(desk.add.remote(1)) == 2


def test_calls_behind_one_that_is_late_keep_their_order() -> None:
    desk = Desk.remote()
    never = ray.remote(resources={"nobody has it": 1})(lambda: 1).remote()
    late = desk.add.options(timeout=0.05).remote(never)
    assert ray.get([desk.add.remote(number) for number in range(3)]) == [1, 2, 3]
    with pytest.raises(exceptions.GetTimeoutError):
        ray.get(late)


async def test_a_group_ends_with_its_calls_of_actors() -> None:
    room = Room.remote()
    async with aio.TaskGroup() as group:
        first = group.create_task(Desk.remote().add.remote(1))
    assert first.result() == 2

    async def fail() -> None:
        async with aio.TaskGroup() as group:
            group.create_task(room.wait.remote())
            group.create_task(room.fail.remote())

    with pytest.raises(ExceptionGroup) as caught:
        await fail()
    assert len(caught.value.exceptions) == 1
    assert await room.ends.remote(1) == 1


async def test_a_group_ends_with_methods_in_threads() -> None:
    desk = Desk.options(max_concurrency=3).remote()
    async with aio.TaskGroup() as group:
        tasks = [group.create_task(desk.add.remote(number)) for number in range(6)]
    assert [task.result() for task in tasks] == [1, 2, 3, 4, 5, 6]


async def test_a_scope_that_is_left_early_cancels_calls_of_actors() -> None:
    room = Room.remote()
    refs = []

    async def leave() -> None:
        async with aio.scope():
            refs.append(room.wait.remote())
            await room.trace.remote()
            raise KeyError

    with pytest.raises(KeyError):
        await leave()
    with pytest.raises(exceptions.TaskCancelledError):
        await refs[0]
    assert await room.ends.remote(1) == 1


def test_carried_variables_go_to_actors() -> None:
    aio.carry(trace)
    token = trace.set("here")
    try:
        assert ray.get(Room.remote().trace.remote()) == "here"
    finally:
        trace.reset(token)


def test_priorities_of_tasks_leave_the_order_of_calls() -> None:
    desk = Desk.remote()
    assert ray.get(ray.remote(lambda: 1).options(priority=5).remote()) == 1
    assert ray.get([desk.add.remote(number) for number in range(100)]) == list(range(1, 101))


def test_a_call_that_does_not_hear_its_cancel_does_not_end_the_actor() -> None:
    class Deaf:
        def __init__(self) -> None:
            self.heard = 0

        async def deaf(self) -> None:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.heard += 1

        async def count(self) -> int:
            return self.heard

    deaf = ray.remote(Deaf).remote()
    ref = deaf.deaf.remote()
    ray.get(deaf.count.remote())
    ray.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(ref)
    gone, _ = ray.wait([deaf.deaf.remote()], timeout=3)
    assert not gone
    assert ray.get(deaf.count.remote()) >= 1
