"""Calls of an async actor of xoscar, a thousand in flight; prints how many a second.

Run by the row `xoscar_gather_1000`, with an interpreter that has xoscar, in a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import time
from typing import Any

EACH = 1000
BURSTS = 3
BURST_S = 0.25

xo: Any = importlib.import_module("xoscar")
strategies: Any = importlib.import_module("xoscar.backends.allocate_strategy")


class Echo(xo.Actor):  # type: ignore[misc]
    """Gives back what it gets."""

    async def same(self, value: object = None) -> object:
        return value


async def main() -> None:
    """Measure."""
    pool = await xo.create_actor_pool("127.0.0.1", n_process=1)
    async with pool:
        # In the pool's other process, as an actor of asyncray is in one of its own.
        place = strategies.ProcessIndex(1)
        echo = await xo.create_actor(Echo, address=pool.external_address, allocate_strategy=place)

        async def batch() -> None:
            await asyncio.gather(*[echo.same(1) for _ in range(EACH)])

        await batch()
        print(statistics.median([await _rate(batch) for _ in range(BURSTS)]))


async def _rate(batch: Any) -> float:
    started, calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < BURST_S:
        await batch()
        calls += EACH
    return calls / taken


if __name__ == "__main__":
    asyncio.run(main())
