"""Tasks that are there to be cancelled: each tells a beacon where it is.

They tell of their start where they can be interrupted already: who hears of it may cancel at once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import threading
import time
from typing import Any

import asyncray as ray
from tests.cluster.beacons import light


@ray.remote
def plain(value: Any = None) -> Any:
    """Return the argument."""
    return value


@ray.remote
def tell(path: str, line: object = "ran") -> str:
    """Tell a line: that this ran."""
    light(path, line)
    return str(line)


@ray.remote
def pid() -> int:
    """Return the worker's process id."""
    return os.getpid()


@ray.remote
def hold(path: str, gate: str, value: Any = "held") -> Any:
    """Tell the pid, and return the value once the gate is open."""
    light(path, os.getpid())
    _await(gate)
    return value


def _await(gate: str) -> None:
    fd = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()
    finally:
        os.close(fd)


@ray.remote(num_cpus=0)
def after(gate: str, value: Any = None) -> Any:
    """Return the value once the gate is open; takes no CPU."""
    _await(gate)
    return value


@ray.remote
def spin(path: str) -> None:
    """Run in Python code without end; tell the start, and what ended it."""
    try:
        light(path, os.getpid())
        for _ in itertools.count():
            pass
    except BaseException as error:
        light(path, type(error).__name__)
        raise


@ray.remote
def sleep(path: str) -> None:
    """Sleep without end; tell the start, and what ended it."""
    try:
        light(path, os.getpid())
        time.sleep(3600)
    except BaseException as error:
        light(path, type(error).__name__)
        raise


@ray.remote
def be_deaf(path: str) -> None:
    """Run C code that looks at no signal and keeps the interpreter to itself."""
    light(path, os.getpid())
    sum(itertools.repeat(0, 10**12))


@ray.remote
def stubborn(path: str) -> str:
    """Wait without end; answer an interrupt with a value, as a task does that is about to end anyway."""
    try:
        light(path, os.getpid())
        threading.Event().wait()
    except KeyboardInterrupt:
        light(path, "interrupted")
    return "a value all the same"


@ray.remote
def wait_for_child(path: str, child: Any, *arguments: Any) -> None:
    """Call for a child and wait for it; tell the pid before, and what ended the wait."""
    try:
        light(path, os.getpid())
        ray.get(child.remote(*arguments))
    except BaseException as error:
        light(path, type(error).__name__)
        raise


@ray.remote
def cancel_it(refs: list[Any], force: bool = False) -> None:
    """Cancel what others have made."""
    ray.cancel(*refs, force=force)


@ray.remote
async def linger(path: str) -> None:
    """Await without end; tell the start, what ended it, and that the clean-up could await too."""
    try:
        light(path, os.getpid())
        await asyncio.get_running_loop().create_future()
    except BaseException as error:
        light(path, type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)
        light(path, "cleaned up")


@ray.remote
async def block_the_loop(path: str) -> None:
    """Keep the loop of the worker to itself: nothing there can hear a cancel."""
    light(path, os.getpid())
    threading.Event().wait()


@ray.remote
async def soon(value: Any = None) -> Any:
    """Return the argument at the next turn of the loop."""
    await asyncio.sleep(0)
    return value


@ray.remote
def raise_it(path: str, error: type[BaseException]) -> None:
    """Raise such an error; tell that this ran."""
    light(path, "ran")
    raise error
