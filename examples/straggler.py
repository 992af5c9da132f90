"""A straggler: take what is there in time, then cancel what is late.

Five of six tasks are done at once; the last would take a minute. `wait` with a timeout returns those that
made it, `get` with a timeout gives up on the late one, and `cancel` ends it, so that its worker is free
again. The same is then done in a coroutine, where `asyncio.timeout` gives up and the ref raises
`TaskCancelledError` to its awaiter.

    python examples/straggler.py         # an argument is the seconds to wait for the late one (default 0.5)
"""

import asyncio
import sys
import time

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import GetTimeoutError, TaskCancelledError


@ray.remote
def work(number: int) -> int:
    time.sleep(60 if number == 3 else 0.01)
    return number


def blocking(patience_s: float) -> None:
    ray.init(num_cpus=2)
    refs = [work.remote(number) for number in range(6)]
    in_time, late = ray.wait(refs, num_returns=len(refs), timeout=patience_s)
    print(f"in time: {sorted(ray.get(in_time))}; late: {len(late)}")
    try:
        ray.get(late[0], timeout=0)
    except GetTimeoutError:
        ray.cancel(late[0])
    try:
        ray.get(late[0])
    except TaskCancelledError:
        print("the late one was cancelled; its worker does other work:", ray.get(work.remote(7)))
    ray.shutdown()


async def awaiting(patience_s: float) -> None:
    async with aio.session(num_cpus=2):
        late = work.remote(3)
        try:
            async with asyncio.timeout(patience_s):
                await late
        except TimeoutError:  # only the waiting ended: the task goes on until it is cancelled
            await aio.cancel(late)
        await aio.wait([late])
        print("in a coroutine: cancelled is", late.cancelled())


def main(patience_s: float = 0.5) -> None:
    blocking(patience_s)
    asyncio.run(awaiting(patience_s))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
