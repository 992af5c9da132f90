"""What is built around actors: pools, groups, queues."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.util import ActorGroup, ActorPool
from asyncray.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Doubler:
    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def double(self, value: int) -> int:
        return self.factor * value

    def fail(self, value: int) -> None:
        raise ValueError(value)


class _Sleeper:
    async def sleep(self, value: float) -> float:
        await asyncio.sleep(value)
        return value


Doubler = ray.remote(_Doubler)
Sleeper = ray.remote(_Sleeper)


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


# --- pools --------------------------------------------------------------------------------------------------


def test_a_pool_maps_in_order_and_out_of_it() -> None:
    pool = ActorPool([Doubler.remote() for _ in range(3)])
    assert list(pool.map(double, range(10))) == [2 * value for value in range(10)]
    assert sorted(pool.map_unordered(double, range(10))) == [2 * value for value in range(10)]
    assert not pool.has_next()


def test_a_pool_gives_results_one_by_one() -> None:
    pool = ActorPool([Doubler.remote()])
    for value in range(3):
        pool.submit(double, value)
    assert not pool.has_free()
    assert [pool.get_next(), pool.get_next_unordered(), pool.get_next()] == [0, 2, 4]
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_a_pool_tells_when_a_result_does_not_come_in_time() -> None:
    pool = ActorPool([Sleeper.remote()])
    pool.submit(lambda actor, value: actor.sleep.remote(value), 30)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.05)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.05)
    assert pool.has_next()
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.05, ignore_if_timedout=True)
    assert not pool.has_next()


def test_a_pool_goes_on_after_a_failure() -> None:
    pool = ActorPool([Doubler.remote()])
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    pool.submit(double, 2)
    with pytest.raises(ValueError, match="1"):
        pool.get_next()
    assert pool.get_next() == 4


def test_actors_join_and_leave_a_pool() -> None:
    first, second = Doubler.remote(), Doubler.remote()
    pool = ActorPool([first])
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    pool.push(second)
    assert {pool.pop_idle(), pool.pop_idle()} == {first, second}
    assert pool.pop_idle() is None
    pool.submit(double, 4)
    pool.push(first)
    assert pool.get_next() == 8


async def test_a_pool_ends_with_its_block() -> None:
    actor = Doubler.remote()
    async with ActorPool([actor]):
        assert await actor.double.remote(2) == 4
    with pytest.raises(exceptions.ActorDiedError):
        await actor.double.remote(2)


# --- groups -------------------------------------------------------------------------------------------------


def test_a_group_is_called_together() -> None:
    with ActorGroup(Doubler, 2, (3,)) as group:
        assert ray.get(group.double.remote(2)) == [6, 6]
        group.add_actors(1)
        assert len(ray.get(group.double.remote(2))) == len(group) == 3
        group.remove_actors([0, 1])
        (actor,) = group
        assert ray.get(group[0].double.remote(1)) == 3
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.double.remote(2))


# --- queues -------------------------------------------------------------------------------------------------


@ray.remote
def fill(queue: Queue, count: int) -> None:
    for number in range(count):
        queue.put(number)


def test_what_is_put_in_any_process_comes_out_in_order() -> None:
    queue = Queue(maxsize=2)
    filled = fill.remote(queue, 10)
    assert [queue.get() for _ in range(10)] == list(range(10))
    ray.get(filled)
    assert queue.empty()
    assert (len(queue), queue.qsize(), queue.size(), queue.full()) == (0, 0, 0, False)


def test_a_full_queue_and_an_empty_one_say_so() -> None:
    queue = Queue(maxsize=1)
    for take in (queue.get_nowait, lambda: queue.get(block=False), lambda: queue.get(timeout=0.01)):
        with pytest.raises(Empty):
            take()
    queue.put(1)
    assert queue.full()
    for put in (queue.put_nowait, lambda item: queue.put(item, timeout=0.01)):
        with pytest.raises(Full):
            put(2)
    with pytest.raises(ValueError, match="timeout"):
        queue.put(1, timeout=-1)
    assert queue.get() == 1


def test_batches_go_whole_or_not_at_all() -> None:
    queue = Queue(maxsize=3)
    queue.put_nowait_batch([1, 2])
    with pytest.raises(Full):
        queue.put_nowait_batch([3, 4])
    with pytest.raises(Empty):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [1, 2]
    with pytest.raises(TypeError, match="num_items"):
        queue.get_nowait_batch("2")  # type: ignore[arg-type]


async def test_coroutines_put_and_get() -> None:
    queue = Queue(maxsize=1)
    await queue.put_async(1)
    with pytest.raises(Full):
        await queue.put_async(2, block=False)
    with pytest.raises(Full):
        await queue.put_async(2, timeout=0.01)
    assert await queue.get_async() == 1
    with pytest.raises(Empty):
        await queue.get_async(timeout=0.01)
    with pytest.raises(Empty):
        await queue.get_async(block=False)
    waiting = asyncio.ensure_future(queue.get_async())
    await queue.put_async("late")
    assert await waiting == "late"


@pytest.mark.parametrize("force", [False, True])
def test_a_queue_can_be_shut_down(force: bool) -> None:
    queue = Queue()
    queue.put(1)
    queue.shutdown(force=force)
    with pytest.raises(exceptions.RayActorError):
        queue.get()
