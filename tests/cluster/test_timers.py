"""What asyncray does later keeps nothing alive of who made it necessary."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from asyncray import aio, exceptions
from tests.cluster import cancellable as tasks

if TYPE_CHECKING:
    from tests.cluster.beacons import Beacon

HOUR_S = 3600


class Request:
    """Something that a program keeps in a context variable."""


request: ContextVar[Request] = ContextVar("request")


async def have_a_deadline(beacon: Beacon) -> None:
    await tasks.soon.options(timeout=HOUR_S).remote()


async def be_cancelled(beacon: Beacon) -> None:
    ref = tasks.linger.remote(beacon.path)
    await asyncio.to_thread(beacon.next)
    await aio.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        await ref


@pytest.mark.parametrize("work", [have_a_deadline, be_cancelled])
def test_a_context_ends_with_its_task_though_a_timer_goes_on(work: Any, beacon: Beacon) -> None:
    async def handler() -> weakref.ref[Request]:
        request.set(made := Request())
        await work(beacon)
        return weakref.ref(made)

    async def main() -> None:
        async with aio.session(num_cpus=1, _system_config={"cancel_grace_s": HOUR_S}):
            seen = await asyncio.create_task(handler())
            await tasks.soon.remote()  # by now the loop has set the timers of the calls before
            gc.collect()
            assert seen() is None

    asyncio.run(main())
