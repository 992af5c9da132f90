"""Gates: results that are pending until a test says otherwise, and no sleep anywhere.

A gate is a named pipe. A coroutine on a worker waits until there is a byte in it, and nobody ever takes that
byte out: once open, a gate stays open. All gates of a session share one worker, and none of its CPUs.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncray as ray
from asyncray.process import current

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from asyncray import ObjectRef

    Factory = Callable[[], asyncio.AbstractEventLoop]
    Run = Callable[[Coroutine[Any, Any, Any]], Any]

#: Seconds after which something that should come has not come.
LIMIT_S = 20


@ray.remote(num_cpus=0)
async def behind(path: str, value: Any) -> Any:
    """Return the value, or raise it when it is an exception, once the gate is open."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    opened = asyncio.Event()
    loop.add_reader(fd, opened.set)
    try:
        await opened.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    if isinstance(value, BaseException):
        raise value
    return value


@ray.remote
def passed_on(value: Any, argument: Any) -> Any:
    """Return the argument; a cheap way to have many results wait for one."""
    return argument


@ray.remote
def same(value: Any) -> Any:
    """Return the value."""
    return value


@ray.remote
def fail(text: str) -> None:
    """Raise a ValueError."""
    raise ValueError(text)


class Gate:
    """Something that results wait for."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / uuid4().hex)
        os.mkfifo(self.path)
        # For both directions: neither this nor a worker's open has to wait for the other.
        self._fd = os.open(self.path, os.O_RDWR)

    def ref(self, value: Any = None) -> ObjectRef[Any]:
        """A reference to the value, pending until the gate is open; an exception is raised then."""
        return behind.remote(self.path, value)

    def open(self) -> None:
        """Let all results come, now and later."""
        os.write(self._fd, b".")

    def close(self) -> None:
        """Let go of everything that still waits."""
        os.unlink(self.path)  # noqa: PTH108
        os.close(self._fd)


class Gates:
    """Makes gates, and closes them at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Gate] = []

    def new(self) -> Gate:
        """One more gate."""
        gate = Gate(self._folder)
        self._made.append(gate)
        return gate

    def pending(self, value: Any = None) -> ObjectRef[Any]:
        """A reference that is pending to the end of the test."""
        return self.new().ref(value)

    def close(self) -> None:
        """Close them all."""
        for gate in self._made:
            gate.close()


def run_on(loop_factory: Factory, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a new loop; one that hangs fails."""

    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await coroutine

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(limited())


def waiters(ref: ObjectRef[Any]) -> list[Any]:
    """Who waits for a reference."""
    return list(ref._record.waiters or [])  # type: ignore[attr-defined]


def watchers() -> list[Any]:
    """Who waits for any completion of the session."""
    session = current().session
    return [] if session is None else session.owner.watchers


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def least(measure: Callable[[], float]) -> float:
    """The best of three: others work on this machine, too."""
    return min(measure() for _ in range(3))


async def begun(look: Callable[[], list[Any]], by: int = 1) -> None:
    """Return when so many wait; `look` says who."""
    while len(look()) < by:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
