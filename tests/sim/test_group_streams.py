"""Streams inside of groups: read there, left unread, stopped, deaths at every step; under virtual time."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio, exceptions
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.kin import failing, tidy
from tests.sim.tasks import HOUR_S, now
from tests.sim.test_simulated_streams import at_step, numbers, numbers_async, read_all, settled, steps_of

if TYPE_CHECKING:
    from asyncray import ObjectRefGenerator

PRODUCERS = pytest.mark.parametrize("producer", [numbers, numbers_async])
CPUS = pytest.mark.parametrize("cpus", [1, 2])


#: What calls leave behind, where nothing but their group can find it.
kept: list[Any] = []


@ray.remote
def leave_open(producer: Any, count: int) -> int:
    """Begin to read a stream, and let nobody go on."""
    stream = producer.remote(count)
    kept.append(stream)
    return int(ray.get(next(stream)))


@ray.remote
async def leave_open_async(producer: Any, count: int) -> int:
    stream = producer.remote(count)
    kept.append(stream)
    return int(await (await anext(stream)))


async def beginning_of(stream: ObjectRefGenerator[int]) -> list[int]:
    """What there is of a stream that its group has stopped."""
    *refs, last = [ref async for ref in stream]
    with pytest.raises(exceptions.TaskCancelledError, match="nobody was left to read on"):
        await last
    assert stream.is_finished()
    return await aio.get(refs)


@PRODUCERS
@CPUS
def test_a_stream_is_read_by_a_coroutine_of_its_group(producer: Any, cpus: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            stream = producer.options(max_unread=2).remote(100)
            reader = group.create_task(read_all(stream))
        assert reader.result() == list(range(100))

    simulate(main, num_cpus=cpus)


@PRODUCERS
def test_what_fits_is_made_to_its_end_and_read_after_the_group(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup():
            stream = producer.remote(1000, 0.01)
        assert notes.noted["ended"] == 1
        assert await read_all(stream) == list(range(1000))

    simulate(main)


@PRODUCERS
@CPUS
@pytest.mark.parametrize("options", [{"max_unread": 2}, {}], ids=["bound of the user", "default"])
def test_a_producer_that_pauses_when_nobody_can_read_any_more_is_stopped(
    producer: Any, cpus: int, options: dict[str, Any]
) -> None:
    async def main(wait_s: float, cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            stream = producer.options(**options).remote(5000)
            group.create_task(stream._ref)  # as `completed`, which would lift the default
            await asyncio.sleep(wait_s)
        assert notes.noted["ended"] == 1
        assert now() < HOUR_S
        got = await beginning_of(stream)
        assert got == list(range(options.get("max_unread", 1024)))

    for wait_s in (0.0, 10.0):
        notes.noted.clear()
        simulate(functools.partial(main, wait_s), num_cpus=cpus)


@PRODUCERS
def test_a_producer_that_waits_in_the_queue_is_stopped_when_it_pauses_later(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup():
            tidy.remote(60)
            stream = producer.options(max_unread=3).remote(10)
        assert await beginning_of(stream) == [0, 1, 2]

    simulate(main, num_cpus=1)


@PRODUCERS
@pytest.mark.parametrize("caller", [leave_open, leave_open_async])
def test_what_a_call_has_left_unread_is_stopped(producer: Any, caller: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            ref = group.create_task(caller.remote(producer, 5000))
        assert ref.result() == 0
        assert notes.noted["ended"] == 1
        kept.clear()

    simulate(main)


@PRODUCERS
def test_a_stream_of_an_outer_group_is_read_after_the_inner_one(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup():
            stream = producer.options(max_unread=2).remote(50, 0.01)
            async with aio.TaskGroup() as inner:
                inner.create_task(tidy.remote(10))
            assert await read_all(stream) == list(range(50))

    simulate(main)


@PRODUCERS
def test_a_stream_from_before_the_group_is_nobodys_but_its_readers(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=2).remote(50, 0.01)

        async def read_late() -> list[int]:
            await asyncio.sleep(100)
            return await read_all(stream)

        reader = asyncio.create_task(read_late())
        async with aio.TaskGroup() as group:
            group.create_task(stream.completed())
        assert now() >= 100
        assert await reader == list(range(50))

    simulate(main)


def test_a_producer_stopped_so_is_not_run_again_and_one_that_died_is() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        at_step(cluster, 2, "sends ITEMS", cluster.kill_worker)
        async with aio.TaskGroup():
            stream = numbers_async.options(max_unread=20, max_retries=1).remote(1000, 1.0)
        assert await beginning_of(stream) == list(range(20))

    simulate(main)


@PRODUCERS
def test_a_stream_is_no_member_and_the_refusal_says_what_to_do(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(producer.remote(5000))
        assert "Read it in a coroutine of the group" in str(caught.value.exceptions[0])

    simulate(main)


@PRODUCERS
def test_a_reader_that_leaves_early_stops_its_producer_and_not_the_group(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def first(count: int) -> int:
            async for ref in producer.options(max_unread=2).remote(10**9, 1.0):
                if (value := await ref) == count:
                    break
            return int(value)

        async with aio.TaskGroup() as group:
            readers = [group.create_task(first(count)) for count in (0, 5)]
        assert [reader.result() for reader in readers] == [0, 5]
        assert notes.noted["ended"] == 2
        assert now() < HOUR_S

    simulate(main)


@PRODUCERS
def test_a_failure_stops_streams_wherever_they_stand(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                paused = producer.options(max_unread=2, num_cpus=0).remote(10**9)
                working = producer.options(num_cpus=0).remote(10**9, 10.0)
                read = producer.options(num_cpus=0).remote(10**9, 10.0)
                group.create_task(read_all(read))
                await asyncio.sleep(60)
                raise KeyError
        assert len(caught.value.exceptions) == 1
        assert notes.noted["ended"] == 3
        for stream in (paused, working):
            with pytest.raises(exceptions.TaskCancelledError):
                await stream.completed()

    simulate(main)


@ray.remote
async def group_that_reads(producer: Any, count: int) -> int:
    async with aio.TaskGroup() as group:
        stream = producer.options(max_unread=2).remote(count, 0.01)
        reader = group.create_task(read_all(stream))
    return sum(reader.result())


@PRODUCERS
def test_a_group_that_reads_inside_of_a_call_of_a_group_survives_deaths(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            refs = [group.create_task(group_that_reads.options(max_retries=2).remote(producer, 6))]
        assert [ref.result() for ref in refs] == [15]
        del refs
        await settled(cluster)

    async def killed(number: int, cluster: SimulatedCluster) -> None:
        at_step(cluster, number, "sends", cluster.kill_worker)
        await main(cluster)

    for number in range(1, steps_of(main, "sends") + 1, 2):
        simulate(functools.partial(killed, number), seed=number)


@PRODUCERS
def test_a_deadline_ends_a_call_in_the_middle_of_its_group_and_stream(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with pytest.raises(exceptions.GetTimeoutError):
            await group_that_reads.options(timeout=3).remote(producer, 10**6)
        await asyncio.sleep(5)
        assert notes.noted["ended"] == 1

    simulate(main)
