"""How does asyncray stand to other actor frameworks than Ray?"""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING, Any

from ..harness import ASYNCRAY, BARE, row
from ..targets import AheadOf
from ..xoscarenv import VARIABLE
from .actors import _AsyncEcho, called

if TYPE_CHECKING:
    from ..harness import Bench

EACH = 1000


@row("calls/s", on=(ASYNCRAY,), target=AheadOf("xoscar_gather_1000"), limit="xoscar_gather_1000")
def async_actor_gather_1000(bench: Bench) -> float:
    """How many calls of an async actor a second can one coroutine gather, 1000 at a time?"""
    actor = called(bench, _AsyncEcho)

    async def batch() -> None:
        await asyncio.gather(*[actor.same.remote(1) for _ in range(EACH)])

    with asyncio.Runner() as runner:
        return bench.rate(lambda: runner.run(batch()), per_call=EACH)


@row("calls/s", on=(BARE,), note="xoscar's figure, under another name for want of a column")
def xoscar_gather_1000(bench: Bench) -> float:
    """How many calls a second is that with xoscar, whose actors only coroutines can call?"""
    command = [os.environ[VARIABLE], "-W", "ignore", "-m", "benchmarks.xoscar_calls"]
    done: Any = subprocess.run(command, capture_output=True, text=True, check=True, timeout=25)
    return float(done.stdout.split()[-1])
