"""The shortest proof that an installed asyncray works: `python tests/smoke.py`. Needs no pytest.

Run by .ci/run on each supported Python, against the installed package: blocking calls, a session on the
caller's loop, a worker that is killed in the middle of a task, and nothing left behind.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

import asyncray as ray
from asyncray import aio


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote
async def square_soon(x: int) -> int:
    await asyncio.sleep(0)
    return x * x


@ray.remote
def die_at_first(marker: str) -> str:
    """Kill the process that runs this, unless the marker shows that one died already."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return "survived"
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


def blocking_calls() -> None:
    ray.init(num_cpus=2)
    try:
        refs = [square.remote(i) for i in range(100)]
        assert ray.get(refs) == [i * i for i in range(100)]
        ready, rest = ray.wait(refs, num_returns=3)
        assert (len(ready), len(rest)) == (3, 97)
        assert ray.get(square.remote(ray.put(7))) == 49
    finally:
        ray.shutdown()


async def calls_on_a_loop() -> None:
    async with aio.session(num_cpus=2):
        squares = await asyncio.gather(*(square_soon.remote(i) for i in range(100)))
        assert squares == [i * i for i in range(100)]
        async with asyncio.timeout(30):
            assert await square.remote(3) == 9


def a_killed_worker() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=2)
        try:
            retried = die_at_first.remote(str(Path(folder, "retried")))
            assert ray.get(retried, timeout=30) == "survived"
            once = die_at_first.options(max_retries=0).remote(str(Path(folder, "once")))
            assert isinstance(once.exception(timeout=30), ray.exceptions.WorkerCrashedError)
        finally:
            ray.shutdown()


def nothing_left() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if children.exists():
        assert children.read_text() == "", f"still running: {children.read_text()}"


def main() -> None:
    started = time.monotonic()
    blocking_calls()
    asyncio.run(calls_on_a_loop())
    a_killed_worker()
    nothing_left()
    where = Path(ray.__file__).parent
    took = time.monotonic() - started
    print(f"smoke: Python {platform.python_version()}: {where} works ({took:.1f} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
