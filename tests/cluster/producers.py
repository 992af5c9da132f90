"""Generators for the tests of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import ObjectRefGenerator
from tests.cluster.doors import say_at
from tests.cluster.patience import get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@ray.remote
def count_to(count: int) -> Iterator[int]:
    yield from range(count)


@ray.remote
async def count_to_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@ray.remote
def fail_at(count: int, text: str = "on purpose") -> Iterator[int]:
    yield from range(count)
    raise ValueError(text)


@ray.remote
async def fail_at_async(count: int, text: str = "on purpose") -> AsyncIterator[int]:
    for number in range(count):
        yield number
    raise ValueError(text)


@ray.remote
def watched(door: str, count: int) -> Iterator[int]:
    """Say each number before it is yielded, and in the end how that came."""
    end = "ended"
    try:
        for number in range(count):
            say_at(door, str(number))
            yield number
    except BaseException as error:
        end = type(error).__name__
        raise
    finally:
        say_at(door, end)


@ray.remote
async def watched_async(door: str, count: int) -> AsyncIterator[int]:
    end = "ended"
    try:
        for number in range(count):
            say_at(door, str(number))
            yield number
    except BaseException as error:
        end = type(error).__name__
        raise
    finally:
        say_at(door, end)


COUNTING = pytest.mark.parametrize("counting", [count_to, count_to_async])
WATCHED = pytest.mark.parametrize("producer", [watched, watched_async])


def values(stream: ObjectRefGenerator[Any]) -> list[Any]:
    """All that comes."""
    return [get(ref) for ref in stream]
