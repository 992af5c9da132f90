"""Tasks for simulations."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncray as ray
from asyncray.testing import sleep
from tests.sim import notes

HOUR_S = 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


@ray.remote
def double(value: int) -> int:
    notes.note("double")
    return 2 * value


@ray.remote
def add(left: int, right: int) -> int:
    return left + right


@ray.remote
def work(seconds: float, value: Any = None) -> Any:
    """Work for so long."""
    notes.note("work")
    sleep(seconds)
    notes.note("worked")
    return value


@ray.remote
async def idle(seconds: float, value: Any = None) -> Any:
    """Wait for so long."""
    notes.note("idle")
    await asyncio.sleep(seconds)
    return value


@ray.remote
def fail(text: str) -> None:
    notes.note("fail")
    raise ValueError(text)


@ray.remote
def fib(n: int) -> int:
    return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))


@ray.remote
async def afib(n: int) -> int:
    return n if n < 2 else sum(await ray.aio.get([afib.remote(n - 1), afib.remote(n - 2)]))


@ray.remote
def outer(seconds: float) -> int:
    """Wait for a task of its own."""
    notes.note("outer")
    value: int = ray.get(work.remote(seconds, 1))
    notes.note("outer goes on")
    return value + 1
