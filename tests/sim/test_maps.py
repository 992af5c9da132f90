"""`aio.map` and its blocking twin under virtual time: order, limits, errors, and early ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncray as ray
from asyncray import aio, exceptions, util
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.tasks import HOUR_S, double, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator


@ray.remote(num_cpus=0.01)
def take(seconds: float) -> float:
    """Work for so many seconds and return them; negative ones are an error after so many."""
    running = notes.note("began") - notes.noted["ended"]
    notes.noted["most"] = max(notes.noted["most"], running)
    try:
        sleep(abs(seconds))
    finally:
        notes.note("ended")
    if seconds < 0:
        raise ValueError(seconds)
    return seconds


@ray.remote(num_cpus=0.01)
async def take_as_coroutine(seconds: float) -> float:
    """The same as a coroutine."""
    running = notes.note("began") - notes.noted["ended"]
    notes.noted["most"] = max(notes.noted["most"], running)
    try:
        await asyncio.sleep(abs(seconds))
    finally:
        notes.note("ended")
    if seconds < 0:
        raise ValueError(seconds)
    return seconds


FUNCTIONS = [take, take_as_coroutine]


async def slowly(items: Iterable[float], seconds: float = 1.0) -> AsyncIterator[float]:
    """The items, one every so many seconds."""
    for item in items:
        await asyncio.sleep(seconds)
        yield item


async def collect(results: AsyncIterator[Any]) -> list[Any]:
    return [result async for result in results]


def assert_all_ended() -> None:
    assert notes.noted["began"] == notes.noted["ended"]


# --- order ---


@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_come_in_the_order_of_the_items(function: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        items = [30.0, 10.0, 20.0, 1.0]
        assert await collect(aio.map(function, items)) == items
        assert await collect(aio.map(function, slowly(items))) == items
        assert await cluster.run_blocking(lambda: list(util.map(function, items))) == items

    simulate(main, num_cpus=2)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_or_each_as_soon_as_it_is_there(function: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        items = [30.0, 10.0, 20.0, 1.0]
        assert await collect(aio.map(function, items, ordered=False)) == sorted(items)
        assert await collect(aio.map(function, slowly(items), ordered=False)) == sorted(items)
        blocking = await cluster.run_blocking(lambda: list(util.map(function, items, ordered=False)))
        assert blocking == sorted(items)

    simulate(main, num_cpus=4)


def test_results_do_not_wait_for_a_slow_source() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        results = aio.map(take, slowly([1.0, 1.0], HOUR_S))
        assert await anext(results) == 1.0
        assert now() < HOUR_S + 10
        assert await collect(results) == [1.0]

    simulate(main)


def test_nothing_to_map_is_no_result() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert await collect(aio.map(take, [])) == []
        assert await collect(aio.map(take, slowly([]))) == []
        assert await cluster.run_blocking(lambda: list(util.map(take, []))) == []

    simulate(main)


# --- limits ---


@settings(max_examples=40)
@given(
    seconds=st.lists(st.floats(0, 20), max_size=12),
    limit=st.integers(1, 5),
    ordered=st.booleans(),
    source=st.sampled_from(["iterable", "async", "blocking"]),
    pauses=st.lists(st.floats(0, 10), max_size=12),
    seed=st.integers(0, 1000),
)
def test_the_limit_is_never_exceeded_and_nothing_is_lost(
    seconds: list[float], limit: int, ordered: bool, source: str, pauses: list[float], seed: int
) -> None:
    notes.noted.clear()

    async def main(cluster: SimulatedCluster) -> list[float]:
        if source == "blocking":
            return await cluster.run_blocking(
                lambda: list(util.map(take, seconds, limit=limit, ordered=ordered))
            )
        items: Any = slowly(seconds, 0.5) if source == "async" else seconds
        results, got = aio.map(take, items, limit=limit, ordered=ordered), []
        async for result in results:
            got.append(result)
            await asyncio.sleep(pauses[len(got) % len(pauses)] if pauses else 0)
        return got

    got = simulate(main, seed=seed, num_cpus=8)
    assert notes.noted["most"] <= limit
    assert (got if ordered else sorted(got)) == (seconds if ordered else sorted(seconds))


def test_nothing_is_called_before_it_is_asked_for() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        taken = []

        def source() -> Iterator[float]:
            for number in range(100):
                taken.append(number)
                yield 1.0

        results = aio.map(take, source(), limit=3)
        await asyncio.sleep(10)
        assert taken == []
        await anext(results)
        await asyncio.sleep(100)
        assert taken == [0, 1, 2]
        await anext(results)
        assert taken == [0, 1, 2, 3]
        await results.aclose()
        assert taken == [0, 1, 2, 3]

    simulate(main)


def test_by_default_two_calls_for_each_cpu_are_made_at_a_time_and_a_hundred_coroutines() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await collect(aio.map(take, [1.0] * 50))
        assert notes.noted["most"] == 6
        await collect(aio.map(take_as_coroutine, [1.0] * 300))
        assert notes.noted["most"] == 100

    simulate(main, num_cpus=3)


# --- errors ---


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_error_is_raised_at_its_place_and_the_rest_is_cancelled(asynchronous: bool) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        items = [20.0, -1.0, HOUR_S, HOUR_S]
        results = aio.map(take, slowly(items, 0.1) if asynchronous else items, limit=4)
        assert await anext(results) == 20.0
        with pytest.raises(ValueError, match="ValueError"):
            await anext(results)
        assert now() < HOUR_S
        assert_all_ended()
        assert await collect(results) == []

    simulate(main)


def test_an_error_is_raised_in_the_blocking_twin_too() -> None:
    def run() -> None:
        results = util.map(take, [1.0, -2.0, HOUR_S], limit=3)
        assert next(results) == 1.0
        with pytest.raises(ValueError, match="ValueError"):
            next(results)
        assert_all_ended()
        assert list(results) == []

    async def main(cluster: SimulatedCluster) -> None:
        await cluster.run_blocking(run)
        assert now() < HOUR_S

    simulate(main)


@pytest.mark.parametrize("ordered", [True, False])
def test_exceptions_may_be_results(ordered: bool) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        items = [1.0, -2.0, 3.0]
        for source in (items, slowly(items, 0)):
            got = await collect(aio.map(take, source, ordered=ordered, return_exceptions=True))
            assert isinstance(got[1], ValueError)
            assert isinstance(got[1], exceptions.RayTaskError)
            assert [got[0], got[2]] == [1.0, 3.0]

    simulate(main)


class Unpicklable:
    """Cannot be sent anywhere."""

    def __reduce__(self) -> Any:
        raise TypeError("never")


def test_an_item_that_cannot_be_sent_is_an_error_in_its_place() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        items: list[Any] = [1.0, Unpicklable(), 2.0]
        got = await collect(aio.map(take, items, return_exceptions=True))
        assert (got[0], type(got[1]), got[2]) == (1.0, TypeError, 2.0)
        results = aio.map(take, items)
        assert await anext(results) == 1.0
        with pytest.raises(TypeError, match="cannot"):
            await anext(results)
        assert_all_ended()

    simulate(main)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_error_of_the_source_comes_after_the_results_before_it(asynchronous: bool) -> None:
    def source() -> Iterator[float]:
        yield 10.0
        yield 1.0
        raise KeyError("source")

    async def async_source() -> AsyncIterator[float]:
        for item in source():
            yield item

    async def main(cluster: SimulatedCluster) -> None:
        got = []
        with pytest.raises(KeyError, match="source"):  # noqa: PT012 - the iteration is what raises
            async for result in aio.map(take, async_source() if asynchronous else source()):
                got.append(result)  # noqa: PERF401 - what came before
        assert got == [10.0, 1.0]

    simulate(main)


# --- early ends ---


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_leaving_the_block_early_ends_what_is_under_way(function: Any, asynchronous: bool) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        items = [1.0, HOUR_S, HOUR_S, HOUR_S]
        source = slowly(items, 0.1) if asynchronous else items
        async with aio.map(function, source, limit=4) as results:
            async for result in results:
                assert result == 1.0
                break
        assert_all_ended()
        assert now() < HOUR_S
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    simulate(main)


def test_what_is_merely_dropped_is_closed_soon() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async for _ in aio.map(take, [1.0, HOUR_S, HOUR_S]):
            break
        await asyncio.sleep(10)
        assert notes.noted["began"] == 3
        assert_all_ended()

    simulate(main, num_cpus=4)


def test_breaking_out_of_the_blocking_twin_waits_for_the_end() -> None:
    def run() -> None:
        for _ in util.map(take, [1.0, HOUR_S, HOUR_S]):
            break
        assert notes.noted["began"] == 3
        assert_all_ended()
        with util.map(take, [1.0, HOUR_S]) as results:
            assert next(results) == 1.0
        assert_all_ended()
        assert list(results) == []

    async def main(cluster: SimulatedCluster) -> None:
        await cluster.run_blocking(run)
        assert now() < HOUR_S

    simulate(main, num_cpus=4)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_cancelling_who_waits_ends_what_is_under_way(times: int, asynchronous: bool) -> None:
    @ray.remote(num_cpus=0.01)
    def tidy(seconds: float) -> None:
        notes.note("began")
        try:
            sleep(seconds)
        finally:
            sleep(10)
            notes.note("ended")

    async def main(cluster: SimulatedCluster) -> None:
        items = [HOUR_S] * 3
        task = asyncio.create_task(collect(aio.map(tidy, slowly(items) if asynchronous else items)))
        await asyncio.sleep(100)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert notes.noted["began"] == 3
        assert_all_ended()
        assert now() < HOUR_S

    simulate(main, num_cpus=4)


def test_children_of_a_call_end_with_it() -> None:
    @ray.remote(num_cpus=0.01)
    def call_for(seconds: float) -> float:
        return ray.get(take.remote(seconds))

    async def main(cluster: SimulatedCluster) -> None:
        async with aio.map(call_for, [1.0, HOUR_S, HOUR_S]) as results:
            await anext(results)
        assert notes.noted["began"] == 3
        assert_all_ended()

    simulate(main, num_cpus=4)


def test_a_map_in_a_group_ends_with_the_group() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        kept = []
        with pytest.raises(ExceptionGroup):  # noqa: PT012 - a group is one
            async with aio.TaskGroup():
                kept.append(aio.map(take, [1.0, HOUR_S, HOUR_S]))
                await anext(kept[0])
                raise KeyError
        assert_all_ended()
        await kept[0].aclose()

    simulate(main, num_cpus=4)


def test_workers_may_die() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        got = []
        async for result in aio.map(take, [10.0] * 20, limit=4):
            got.append(result)
            if cluster.workers and len(got) < 8:
                cluster.kill_worker()
        assert got == [10.0] * 20

    for seed in range(5):
        simulate(main, seed=seed)


def test_the_death_of_the_node_ends_the_iteration() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        results = aio.map(take, [1.0] + [HOUR_S] * 10, return_exceptions=True)
        assert await anext(results) == 1.0
        cluster.kill_node()
        with pytest.raises(exceptions.LocalRayletDiedError):  # noqa: PT012 - the iteration is what raises
            async for result in results:
                assert isinstance(result, exceptions.LocalRayletDiedError)
        assert await collect(results) == []

    simulate(main)


# --- bad input ---


@pytest.mark.parametrize("map_", [aio.map, util.map])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"f": len}, TypeError, "takes a remote function, not <built-in function len>"),
        ({"items": 7}, TypeError, "something iterable, not 7"),
        ({"limit": 0}, ValueError, "limit must be > 0, not 0"),
        ({"limit": 1.5}, TypeError, "limit must be a whole number or None, not 1.5"),
        ({"limit": True}, TypeError, "limit must be a whole number or None, not True"),
        ({"f": double.options(num_returns=2)}, ValueError, "one result, not one with num_returns=2"),
        ({"progress": "yes"}, TypeError, "progress must be True or False, not 'yes'"),
        ({"ordered": None}, TypeError, "ordered must be True or False, not None"),
        ({"return_exceptions": 1}, TypeError, "return_exceptions must be True or False, not 1 of type int"),
    ],
)
def test_bad_input_is_refused_where_it_is_given(
    map_: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    arguments = {"f": double, "items": [1], **options}
    with pytest.raises(error, match=text.replace("(", r"\(")):
        map_(arguments.pop("f"), arguments.pop("items"), **arguments)


def test_the_blocking_twin_says_so_on_a_running_loop_and_for_asynchronous_sources() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with pytest.raises(RuntimeError, match=r"asyncray.aio.map"):
            next(util.map(take, [1.0]))
        with pytest.raises(TypeError, match=r"asyncray.aio.map takes asynchronous sources"):
            util.map(take, slowly([1.0]))  # type: ignore[call-overload]
        assert notes.noted["began"] == 0

    simulate(main)
