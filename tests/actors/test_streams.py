"""Methods that stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Sync:
    """Streams, one call at a time."""

    def __init__(self) -> None:
        self.made = 0

    def count(self, most: int) -> Iterator[int]:
        for number in range(most):
            self.made += 1
            yield number

    def fails(self) -> Iterator[int]:
        yield 1
        raise ValueError("no")

    def made_so_far(self) -> int:
        return self.made


class _Async(_Sync):
    """Streams, many at a time."""

    async def acount(self, most: int) -> AsyncIterator[int]:
        for number in range(most):
            await asyncio.sleep(0)
            yield number


Sync = ray.remote(_Sync)
Async = ray.remote(_Async)


@pytest.mark.parametrize(("actor_class", "method"), [(Sync, "count"), (Async, "count"), (Async, "acount")])
def test_a_generator_method_streams(actor_class: Any, method: str) -> None:
    actor = actor_class.remote()
    assert [ray.get(ref) for ref in getattr(actor, method).remote(50)] == list(range(50))
    assert ray.get(actor.made_so_far.remote()) in (0, 50)


async def test_streams_of_an_async_actor_run_at_the_same_time() -> None:
    actor = Async.remote()
    streams = [actor.acount.remote(20) for _ in range(5)]

    async def read(stream: Any) -> list[int]:
        return [await ref async for ref in stream]

    assert await asyncio.gather(*map(read, streams)) == [list(range(20))] * 5


def test_a_stream_ends_with_what_its_method_raises() -> None:
    stream = Sync.remote().fails.remote()
    assert ray.get(next(stream)) == 1
    with pytest.raises(ValueError, match="no"):
        ray.get(next(stream))


def test_a_stream_that_nobody_reads_pauses_and_one_that_is_closed_lets_the_actor_go_on() -> None:
    actor = Sync.remote()
    stream = actor.count.options(max_unread=3).remote(1000)
    assert ray.get(next(stream)) == 0
    stream.close()
    assert ray.get(actor.made_so_far.remote()) < 20


def test_a_stream_of_a_killed_actor_ends_with_its_death() -> None:
    actor = Sync.remote()
    stream = actor.count.options(max_unread=2).remote(1000)
    assert ray.get(next(stream)) == 0
    ray.kill(actor)
    with pytest.raises(exceptions.ActorDiedError):
        [ray.get(ref) for ref in stream]


def test_streams_from_threads_are_refused_for_now() -> None:
    with pytest.raises(ValueError, match="thread"):
        Sync.options(max_concurrency=2).remote().count.remote(3)
