"""Items of streams that are lost are made again by running their generator again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import ObjectReconstructionFailedError, TaskCancelledError
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.lost import is_pending, kept, large, lose, plus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@ray.remote(max_unread=2)
def items(count: int, seconds: float = 0.0) -> Iterator[Any]:
    """Large items, and small ones between them."""
    notes.note("items")
    for seed in range(count):
        sleep(seconds)
        yield large(seed)
        yield seed


@ray.remote
async def items_async(count: int) -> AsyncIterator[Any]:
    notes.note("items")
    for seed in range(count):
        yield large(seed)
        yield seed


@ray.remote
def fewer() -> Iterator[Any]:
    for seed in range(6 - 3 * notes.note("fewer")):
        yield large(seed)


@ray.remote
def fails_later() -> Iterator[Any]:
    yield large(0)
    if notes.note("fails") > 1:
        raise ValueError("not twice")
    yield large(1)


@pytest.mark.parametrize("function", [items, items_async])
def test_the_items_that_are_lost_are_taken_from_another_run(function: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs: list[Any] = [ref async for ref in function.remote(6)]
        await ray.aio.get(refs)
        assert await kept(cluster) == 1
        # A later one first; and an item that nobody else holds as an argument.
        child = plus.remote(refs[2], 10)
        await child
        refs[2] = None
        lose(refs[8], refs[4], child)
        assert is_pending(refs[4])
        assert await child == large(11)
        got = [await ref for ref in refs if ref is not None]
        assert got == [value for seed in range(6) for value in (large(seed), seed) if value != large(1)]
        # The item that only the child needed may have been asked for when the run had passed it.
        assert notes.noted["items"] in (2, 3)
        del child, refs
        assert await kept(cluster) == 0

    simulate(main)


def test_a_run_stops_when_it_has_made_what_was_lost() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ref async for ref in items.remote(20, 1.0)]
        lose(refs[4])
        began = asyncio.get_running_loop().time()
        assert await refs[4] == large(2)
        await asyncio.sleep(1)
        assert cluster.driver.statistics().tasks == 0
        assert asyncio.get_running_loop().time() - began < 6

    simulate(main)


def test_an_item_lost_when_the_run_has_passed_it_is_made_by_the_next() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ref async for ref in items.remote(6, 1.0)]
        lose(refs[8])
        await asyncio.sleep(3.5)
        lose(refs[0])
        assert await ray.aio.get([refs[8], refs[0]]) == [large(4), large(0)]
        assert notes.noted["items"] == 3

    simulate(main)


def test_an_item_is_made_again_while_the_stream_goes_on() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = items.remote(4, 1.0)
        ref = await anext(stream)
        await anext(stream)
        lose(ref)
        assert await ref == large(0)
        rest = [await each async for each in stream]
        assert rest == [value for seed in range(1, 4) for value in (large(seed), seed)]

    simulate(main)


def test_a_run_whose_worker_dies_goes_on_with_another() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ref async for ref in items.remote(6, 1.0)]
        lose(refs[0], refs[8])
        await asyncio.sleep(2.5)
        assert not is_pending(refs[0])
        cluster.kill_worker()
        assert await ray.aio.get([refs[0], refs[8]]) == [large(0), large(4)]

    simulate(main)


def test_a_run_that_yields_fewer_items_or_raises_fails_the_others() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ref async for ref in fewer.remote()]
        lose(refs[0], refs[2])
        with pytest.raises(ObjectReconstructionFailedError, match=r"'fewer' did not yield it"):
            await refs[2]
        with pytest.raises(ObjectReconstructionFailedError):
            await refs[0]
        refs = [ref async for ref in fails_later.remote()]
        lose(*refs)
        assert await refs[0] == large(0)
        with pytest.raises(ValueError, match="not twice"):
            await refs[1]
        del refs
        assert await kept(cluster) == 0

    simulate(main)


def test_a_cancelled_run_fails_the_items_that_are_missing() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ref async for ref in items.remote(6, 1.0)]
        lose(refs[0], refs[8])
        await asyncio.sleep(2.5)
        ray.cancel(refs[8])
        with pytest.raises(TaskCancelledError):
            await refs[8]
        assert await refs[0] == large(0)
        assert await refs[4] == large(2)

    simulate(main)


def test_a_generator_that_may_not_run_twice_is_named() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ref async for ref in items.options(max_retries=0).remote(2)]
        lose(refs[0])
        with pytest.raises(ObjectReconstructionFailedError, match=r"'items' made it.*max_retries=0"):
            await refs[0]

    simulate(main)
