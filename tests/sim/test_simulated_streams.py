"""Streams under virtual time: kills, cancels and closes at every step, and back-pressure to the item."""

from __future__ import annotations

import asyncio
import functools
import gc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import Event, SimulatedCluster, simulate, sleep
from tests.sim import notes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncray import ObjectRefGenerator

COUNT = 12


@ray.remote
def numbers(count: int, seconds: float = 0.0) -> Iterator[int]:
    try:
        for number in range(count):
            notes.note("made")
            yield number
            if seconds:
                sleep(seconds)
    finally:
        notes.note("ended")


@ray.remote
async def numbers_async(count: int, seconds: float = 0.0) -> AsyncIterator[int]:
    try:
        for number in range(count):
            notes.note("made")
            yield number
            if seconds:
                await asyncio.sleep(seconds)
    finally:
        notes.note("ended")


@ray.remote
def total(count: int, **options: Any) -> int:
    """Read a stream in a worker, in its main thread."""
    made: Any = numbers_async.options(**options).remote(count, 0.001)
    return sum(ray.get(ref) for ref in made)


@ray.remote
async def total_async(count: int, **options: Any) -> int:
    """Read a stream on a worker's loop."""
    made: Any = numbers.options(**options).remote(count, 0.001)
    return sum([await ref async for ref in made])


PRODUCERS = pytest.mark.parametrize("producer", [numbers, numbers_async])
CONSUMERS = pytest.mark.parametrize("consumer", [total, total_async])


async def read_all(stream: ObjectRefGenerator[int]) -> list[int]:
    return [await ref async for ref in stream]


async def read_until_cancelled(stream: ObjectRefGenerator[int]) -> tuple[list[int], bool]:
    """What came, and whether the last was that the producer was cancelled."""
    got = []
    async for ref in stream:
        try:
            got.append(await ref)
        except exceptions.TaskCancelledError:
            return got, True
    return got, False


async def settled(cluster: SimulatedCluster) -> None:
    """Check that nothing of a stream is left, neither its items nor what they held, nor its CPU."""
    await asyncio.sleep(30)
    gc.collect()
    await asyncio.sleep(30)
    for session in cluster.sessions:
        assert session.owner.objects.owned == {}, session
        assert session.owner.objects.borrowed == {}, session
        assert not session.peers.borrowing.pins(), session
        assert not session.streams.abandoned
        assert session.owner.watchers == []
    assert (await ray.aio.available_resources())["CPU"] == 2


def at_step(cluster: SimulatedCluster, number: int, whose: str, do: Callable[[int], object]) -> None:
    """Do something just before a process of some kind does its *number*-th thing for somebody else."""
    left = number

    def watch(event: Event) -> None:
        nonlocal left
        if event.pid in cluster.workers and event.what.startswith(whose):
            left -= 1
            if left == 0:
                do(event.pid)

    cluster.on_event(watch)


def steps_of(main: Callable[[SimulatedCluster], Any], what: str) -> int:
    """How many things of a kind workers do in a run."""
    found: list[Event] = []

    async def counted(cluster: SimulatedCluster) -> None:
        cluster.on_event(lambda event: found.append(event) if event.pid in cluster.workers else None)
        await main(cluster)

    simulate(counted)
    return sum(event.what.startswith(what) for event in found)


# --- the death of the producer ------------------------------------------------------------------------------


@PRODUCERS
@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_a_producer_that_dies_at_any_step_is_run_again_and_repeats_nothing(
    producer: Any, seconds: float
) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_retries=1, max_unread=4).remote(COUNT, seconds)
        assert await read_all(stream) == list(range(COUNT))
        assert await stream.completed() is None
        del stream
        await settled(cluster)

    steps = steps_of(main, "sends")
    assert steps > COUNT // 4
    for number in range(1, steps + 1):

        async def killed(cluster: SimulatedCluster, number: int = number) -> None:
            at_step(cluster, number, "sends", cluster.kill_worker)
            await main(cluster)

        simulate(killed, seed=number)


@PRODUCERS
def test_a_producer_that_dies_for_good_is_the_last_item(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        at_step(cluster, 3, "sends ITEMS", cluster.kill_worker)
        stream = producer.options(max_retries=0).remote(COUNT, 0.01)
        refs = [ref async for ref in stream]
        assert await ray.aio.get(refs[:-1]) == list(range(len(refs) - 1))
        with pytest.raises(exceptions.WorkerCrashedError):
            await refs[-1]
        with pytest.raises(exceptions.WorkerCrashedError):
            await stream.completed()
        assert stream.is_finished()
        del refs, stream
        await settled(cluster)

    simulate(main)


@PRODUCERS
def test_a_producer_is_run_again_without_what_was_delivered(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.remote(COUNT, 60.0)
        first = [await anext(stream) for _ in range(5)]
        cluster.kill_worker()
        assert await ray.aio.get(first) == list(range(5))
        assert await read_all(stream) == list(range(5, COUNT))
        assert notes.noted["made"] == COUNT + 5

    simulate(main, num_cpus=1)


# --- the death of the consumer ------------------------------------------------------------------------------


@CONSUMERS
def test_a_consumer_that_dies_at_any_step_takes_its_producer_with_it(consumer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert await consumer.options(max_retries=1).remote(6, max_unread=2) == sum(range(6))
        await settled(cluster)

    steps = steps_of(main, "sends")
    for number in range(1, steps + 1, 2):

        async def killed(cluster: SimulatedCluster, number: int = number) -> None:
            at_step(cluster, number, "sends", cluster.kill_worker)
            await main(cluster)

        simulate(killed, seed=number)


@CONSUMERS
def test_a_producer_without_an_end_ends_with_its_consumer(consumer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = consumer.options(max_retries=0).remote(10**9, max_unread=2)
        await asyncio.sleep(1)
        cluster.kill_worker(next(e.pid for e in cluster.trace.events if e.what.startswith("sends CREDIT")))
        with pytest.raises(exceptions.WorkerCrashedError):
            await ref
        await asyncio.sleep(1)
        made = notes.noted["made"]
        await asyncio.sleep(60)
        assert notes.noted["made"] == made
        del ref
        await settled(cluster)

    simulate(main)


# --- cancel and close ---------------------------------------------------------------------------------------


def stop_by_cancel(stream: ObjectRefGenerator[int]) -> None:
    ray.cancel(stream)


def stop_by_close(stream: ObjectRefGenerator[int]) -> None:
    stream.close()


@PRODUCERS
@pytest.mark.parametrize("stop", [stop_by_cancel, stop_by_close])
def test_a_stream_stopped_at_any_step_is_a_beginning_of_the_whole(
    producer: Any, stop: Callable[[ObjectRefGenerator[int]], None]
) -> None:
    async def main(number: int, cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=4).remote(COUNT, 0.001)

        post = asyncio.get_running_loop().call_soon_threadsafe
        streams = [stream]
        # A step after the end, as of a worker that retires, finds no stream to stop.
        at_step(cluster, number, "sends", lambda pid: streams and post(stop, *streams))
        got, cancelled = await read_until_cancelled(stream)
        assert got == list(range(len(got)))
        assert not cancelled or stop is stop_by_cancel
        assert cancelled or stop is stop_by_close or len(got) == COUNT
        assert stream.is_finished()
        assert not stream.next_ready()
        streams.clear()
        del stream
        await settled(cluster)
        assert notes.noted["ended"] <= 1
        assert notes.noted["ended"] or not notes.noted["made"]

    for number in range(1, COUNT + 8):
        notes.noted.clear()
        simulate(functools.partial(main, number), seed=number)


@PRODUCERS
def test_a_deadline_ends_a_paused_stream(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(timeout=5, max_unread=2).remote(COUNT)
        first = await anext(stream)
        await asyncio.sleep(10)
        assert notes.noted == {"made": 3, "ended": 1}
        second, third, failed = [ref async for ref in stream]
        assert await ray.aio.get([first, second, third]) == [0, 1, 2]
        for ref in (failed, stream.completed()):
            with pytest.raises(exceptions.GetTimeoutError):
                await ref
        del stream, first, second, third, failed, ref
        await settled(cluster)

    simulate(main)


@PRODUCERS
def test_a_stream_that_is_forgotten_stops(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=3).remote(10**9)
        assert await (await anext(stream)) == 0
        del stream
        await settled(cluster)
        assert notes.noted["ended"] == 1
        assert notes.noted["made"] <= 5

    simulate(main)


@PRODUCERS
def test_a_forgotten_stream_whose_end_somebody_awaits_runs_to_it(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=2).remote(COUNT)
        completed = stream.completed()
        del stream
        assert await completed is None
        assert notes.noted["made"] == COUNT
        del completed
        await settled(cluster)

    simulate(main)


# --- back-pressure ------------------------------------------------------------------------------------------


@PRODUCERS
@pytest.mark.parametrize("bound", [1, 2, 3, 50])
def test_a_producer_is_never_further_ahead_than_the_bound_and_gets_there(producer: Any, bound: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=bound).remote(200)
        for read in range(120):
            await asyncio.sleep(1)
            # Of a large bound, a part may be read before the producer hears of it.
            assert read + bound - max(0, bound // 8 - 1) <= notes.noted["made"] <= read + bound
            await anext(stream)

    simulate(main)


@ray.remote
def items_of(sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        notes.note("made")
        yield bytes(size)


@ray.remote
async def items_of_async(sizes: list[int]) -> AsyncIterator[bytes]:
    for size in sizes:
        notes.note("made")
        yield bytes(size)


@pytest.mark.parametrize("producer", [items_of, items_of_async])
def test_reading_a_small_item_before_a_large_one_does_not_resume_a_producer(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.remote([100_000, 20_000_000, 100_000, 100_000])
        await asyncio.sleep(1)
        for made in (2, 2, 4):
            assert notes.noted["made"] == made
            await anext(stream)
            await asyncio.sleep(1)

    simulate(main)


@PRODUCERS
def test_a_paused_producer_gives_its_cpu_back(producer: Any) -> None:
    @ray.remote
    def work(value: int) -> int:
        sleep(1)
        return value

    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=1).remote(5)
        got = [await work.remote(await ref) async for ref in stream]
        assert got == list(range(5))

    simulate(main, num_cpus=1)


@PRODUCERS
def test_who_waits_for_the_end_without_reading_does_not_wait_for_ever(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.remote(5000)
        await asyncio.sleep(10)
        assert notes.noted["made"] == 1024
        await stream.completed()
        assert await read_all(stream) == list(range(5000))

    simulate(main)


@given(
    seed=st.integers(0, 2**32),
    bound=st.sampled_from([1, 2, 5, None, -1]),
    kill_at=st.lists(st.integers(1, 60), max_size=2),
    seconds=st.sampled_from([0.0, 0.0001, 0.002]),
    asynchronous=st.booleans(),
    in_worker=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happens_a_stream_is_whole_and_in_order(
    seed: int,
    bound: int | None,
    kill_at: list[int],
    seconds: float,
    asynchronous: bool,
    in_worker: bool,
) -> None:
    producer: Any = numbers_async if asynchronous else numbers
    consumer: Any = total_async if asynchronous else total

    async def main(cluster: SimulatedCluster) -> None:
        for number in kill_at:
            at_step(cluster, number, "sends", cluster.kill_worker)
        if in_worker:
            assert await consumer.options(max_retries=-1).remote(30, max_unread=bound) == sum(range(30))
        else:
            stream = producer.options(max_retries=-1, max_unread=bound).remote(30, seconds)
            assert await read_all(stream) == list(range(30))
            del stream
        await settled(cluster)

    simulate(main, seed=seed)
