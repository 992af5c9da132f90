"""The verbs keep the types of what refs stand for. Checked by mypy, never run."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import assert_type

import asyncray as ray
from asyncray import ObjectRef, aio, util


@ray.remote
def square(x: int) -> int:
    return x * x


def get_gives_the_value() -> None:
    assert_type(ray.get(square.remote(1)), int)
    assert_type(ray.get(square.remote(1), timeout=1.5), int)


def get_of_a_list_gives_a_list_of_values() -> None:
    assert_type(ray.get([square.remote(i) for i in range(3)]), list[int])


def put_gives_a_ref_of_the_value() -> None:
    assert_type(ray.put("a"), ObjectRef[str])
    assert_type(ray.get(ray.put("a")), str)


def wait_gives_refs_of_the_same_type() -> None:
    ready, rest = ray.wait([square.remote(1), square.remote(2)], num_returns=1, timeout=0.5)
    assert_type(ready, list[ObjectRef[int]])
    assert_type(rest, list[ObjectRef[int]])


def what_is_no_ref_is_found() -> None:
    ray.get(1)  # expect: error[arg-type|call-overload]
    ray.wait([1, 2])  # expect: error[list-item|arg-type|call-overload|type-var]
    ray.wait(square.remote(1))  # expect: error[arg-type|call-overload]


def a_value_used_as_another_type_is_found() -> None:
    word: str = ray.get(square.remote(1))  # expect: error[assignment|arg-type]
    print(word)


async def await_gives_the_value() -> None:
    assert_type(await square.remote(1), int)
    assert_type(await ray.put("a"), str)


async def refs_work_with_asyncio() -> None:
    assert_type(await asyncio.gather(square.remote(1), ray.put("a")), tuple[int, str])
    assert_type(await asyncio.wait_for(square.remote(1), timeout=1), int)
    async with asyncio.timeout(1):
        assert_type(await square.remote(1), int)


async def the_coroutines_have_the_types_of_the_blocking_verbs() -> None:
    assert_type(await aio.get(square.remote(1)), int)
    assert_type(await aio.get([square.remote(1)]), list[int])
    assert_type(await aio.put("a"), ObjectRef[str])
    ready, _ = await aio.wait([square.remote(1)])
    assert_type(ready, list[ObjectRef[int]])


async def members_of_a_group_keep_their_types() -> None:
    async with aio.TaskGroup() as group:
        assert_type(group.create_task(square.remote(1)), ObjectRef[int])
        assert_type(group.create_task([square.remote(1)]), list[ObjectRef[int]])
        task = group.create_task(asyncio.sleep(1, "a"), name="coroutine")
        assert_type(task, asyncio.Task[str])
        group.create_task(square)  # expect: error[arg-type|call-overload]


async def a_map_gives_results() -> None:
    async for result in aio.map(square, [1]):
        assert_type(result, int)
    async for outcome in aio.map(square, [1], return_exceptions=True):
        assert_type(outcome, int | Exception)
    assert_type(next(util.map(square, [1])), int)
    aio.map(square, 7)  # expect: error[arg-type|call-overload]


async def scopes_and_carried_variables_keep_their_types() -> None:
    assert_type(aio.carry(ContextVar[str]("trace_id")), ContextVar[str])
    aio.carry("trace_id")  # expect: error[arg-type]
    async with aio.scope() as scope:
        assert_type(scope, aio.Scope)
        assert_type(await square.options(timeout=0.5, priority=1).remote(1), int)
    square.options(timeout="soon")  # expect: error[arg-type|call-overload]
    square.options(priority=0.5)  # expect: error[arg-type|call-overload]
