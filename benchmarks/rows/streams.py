"""What does an item of a streaming generator cost?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..harness import Bench, row
from ..targets import TimesRay

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Items of one stream: Ray takes a second or two for them.
ITEMS = 10_000


def items(count: int) -> Iterator[int]:
    """The generator: the numbers from 0 on."""
    for number in range(count):  # noqa: UP028 - Ray fails on `yield from` of something that is no generator
        yield number


@row("items/s", target=TimesRay(20))
def stream_items(bench: Bench) -> float:
    """How many items a second can one caller get out of one stream, value by value?"""
    stream: Any = bench.runtime.remote(items)
    get = bench.runtime.get

    def read() -> None:
        for ref in stream.remote(ITEMS):
            get(ref)

    return bench.rate(read, per_call=ITEMS, bursts=1)


@row("items/s", target=TimesRay(20))
def stream_items_async(bench: Bench) -> float:
    """How many items a second can a coroutine get out of one stream, value by value?"""
    stream: Any = bench.runtime.remote(items)

    async def read() -> None:
        async for ref in stream.remote(ITEMS):
            await ref

    return bench.rate(lambda: asyncio.run(read()), per_call=ITEMS, bursts=1)
