"""What is built around actors: pools, groups, queues."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.util import ActorGroup, ActorPool, memory_summary
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


class _Noting:
    """Notes its end."""

    def __init__(self, log: str, factor: int = 1) -> None:
        self.log = log
        self.factor = factor

    def size(self, what: Any) -> int:
        return self.factor * len(what)

    def place(self, what: Any) -> int:
        return int(what.__array_interface__["data"][0])

    @ray.method(num_returns=2)
    def both(self) -> tuple[int, int]:
        return 1, 2

    def on_stop(self) -> None:
        with Path(self.log).open("a") as log:
            log.write("stopped ")


def test_a_group_is_called_together() -> None:
    with ActorGroup(Doubler, 2, init_args=(3,)) as group:
        assert ray.get(group.double.remote(2)) == [6, 6]
        group.add_actors(1)
        assert len(ray.get(group.double.remote(2))) == len(group) == 3
        group.remove_actors([0, 1])
        (actor,) = group
        assert ray.get(group[0].double.remote(1)) == 3
        with pytest.raises(AttributeError, match="no method 'dubble'"):
            _ = group.dubble
        with pytest.raises(TypeError, match=r"group\.double\.remote"):
            group.double(1)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.double.remote(2))
    with pytest.raises(RuntimeError, match="shut down"):
        _ = group.double
    group.start()
    assert ray.get(group.double.remote(1)) == [3, 3]
    group.shutdown(0)


def test_a_group_of_a_plain_class_holds_what_ray_says() -> None:
    group = ActorGroup(_Noting, num_cpus_per_actor=0.5, init_args=("",), init_kwargs={"factor": 2})
    holds = group[0].__ray_call__.remote(lambda _: ray.get_runtime_context().get_assigned_resources())
    assert ray.get(holds) == {"CPU": 0.5}
    assert ray.get(group.size.remote([1, 2])) == [4]
    assert len(group.both.options(num_returns=1).remote()) == 1
    group.shutdown(0)
    with pytest.raises(ValueError, match="num_actors must be > 0"):
        ActorGroup(_Noting, 0)


def test_a_group_with_an_actor_that_takes_no_more_calls_is_ended_all_the_same() -> None:
    group = ActorGroup(ray.remote(max_pending_calls=1)(_Sleeper), 2)
    first, second = group
    endless = second.sleep.remote(10_000)
    with pytest.raises(exceptions.PendingCallsLimitExceeded):
        group.shutdown()
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(endless)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(first.sleep.remote(0))


def test_a_broadcast_value_is_stored_once() -> None:
    numpy = pytest.importorskip("numpy")
    with ActorGroup(ray.remote(_Noting), 3, init_args=("",)) as group:
        values = numpy.ones(10**6)
        refs = group.place.remote(values)
        assert len([line for line in memory_summary().splitlines() if " 8000" in line]) == 1
        ray.get(refs)


@pytest.mark.parametrize("block", [True, False])
def test_the_actors_of_a_block_that_is_left_in_order_clean_up(tmp_path: Path, block: bool) -> None:
    log = tmp_path / "log"
    group = ActorGroup(ray.remote(_Noting), 2, init_args=(str(log),))

    async def leave() -> None:
        async with group:
            assert await asyncio.gather(*group.size.remote("abc")) == [3, 3]

    if block:
        with group:
            assert ray.get(group.size.remote("abc")) == [3, 3]
    else:
        asyncio.run(leave())
    assert log.read_text() == "stopped stopped "


async def test_the_actors_of_a_pool_clean_up_unless_its_block_fails(tmp_path: Path) -> None:
    log = tmp_path / "log"
    noting = ray.remote(_Noting)
    async with ActorPool([noting.remote(str(log))]) as pool:
        pool.submit(lambda actor, value: actor.size.remote(value), "abc")
    assert log.read_text() == "stopped "
    with pytest.raises(KeyError):
        async with ActorPool([noting.remote(str(log))]) as pool:
            raise KeyError
    assert log.read_text() == "stopped "


def test_a_pool_returns_all_values_of_a_call() -> None:
    pool = ActorPool([ray.remote(_Noting).remote("")])
    assert list(pool.map(lambda actor, _: actor.both.remote(), [1, 2])) == [[1, 2], [1, 2]]


def test_a_pool_keeps_an_actor_whose_call_could_not_be_made() -> None:
    pool = ActorPool([Doubler.remote()])
    with pytest.raises(TypeError, match="returns the reference of its call, not 5"):
        pool.submit(lambda actor, value: 5, 1)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda actor, value: 1 // value, 0)
    pool.submit(double, 2)
    assert pool.get_next() == 4


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
