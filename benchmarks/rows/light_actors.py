"""What do light actors weigh, and how quickly do they come and answer?"""

from __future__ import annotations

import os
from typing import Any

from ..harness import ASYNCRAY, Bench, row
from ..procfs import settled_footprint
from ..targets import AtLeast, AtMost

KB = 1e3
MANY = 100_000
SOME = 20_000
LAST = 500
EACH = 1000


def _classes() -> tuple[type[Any], type[Any]]:
    """The actors' classes. Made here they are sent by value: no worker imports the benchmarks for them."""

    class Cell:
        def __init__(self, value: int) -> None:
            self.value = value

        async def same(self, value: object = None) -> object:
            return value

    class Talker:
        async def talk(self, target: list[Any], each: int) -> None:
            import asyncio

            await asyncio.gather(*[target[0].same.remote(1) for _ in range(each)])

    return Cell, Talker


_Cell, _Talker = _classes()


def made(bench: Bench, count: int) -> list[Any]:
    """So many light actors, all of them there."""
    actor_class: Any = bench.runtime.remote(_Cell).options(isolation="shared")
    cells = [actor_class.remote(number) for number in range(count)]
    # Constructors run in the order in which they were sent.
    bench.runtime.get([cell.same.remote() for cell in cells[-LAST:]])
    return cells


@row("kB", on=(ASYNCRAY,), target=AtMost(3), limit_s=90.0, note="of all processes together, for 100,000")
def light_actor_pss(bench: Bench) -> float:
    """How much memory does one light actor more take, its handle and instance included?"""
    few = made(bench, LAST)
    before = settled_footprint(os.getpid())
    many = made(bench, MANY)
    after = settled_footprint(os.getpid())
    assert len(few) + len(many) == LAST + MANY
    return (after.pss - before.pss) / MANY / KB


@row("actors/s", on=(ASYNCRAY,), target=AtLeast(10_000), limit_s=60.0)
def light_actor_creation(bench: Bench) -> float:
    """How many light actors a second can one caller make?"""
    made(bench, LAST)
    return bench.rate(lambda: made(bench, SOME), per_call=SOME, warm_s=0, bursts=1)


@row("calls/s", on=(ASYNCRAY,))
def light_actor_batch_1000(bench: Bench) -> float:
    """How many calls a second can one caller make of 1000 light actors, with one of each in flight?"""
    cells = made(bench, EACH)
    get = bench.runtime.get
    return bench.rate(lambda: get([cell.same.remote() for cell in cells]), per_call=EACH)


@row("calls/s", on=(ASYNCRAY,))
def light_actor_to_neighbour(bench: Bench) -> float:
    """How many calls a second can a light actor make of another one in its process?"""
    (cell,) = made(bench, 1)
    talker: Any = bench.runtime.remote(_Talker).options(isolation="shared").remote()
    get = bench.runtime.get
    get(talker.talk.remote([cell], 1))
    return bench.rate(lambda: get(talker.talk.remote([cell], EACH)), per_call=EACH)
