"""Tasks that call for tasks and take a while to end; each notes when it begins, and when it has ended."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

import asyncray as ray
from asyncray.testing import sleep
from tests.sim import notes

#: Seconds that the clean-up of a task takes here: less than the grace of a cancelled one.
TIDY_S = 1.0

#: For blocks of several statements: a group is one.
raising = pytest.raises
failing = partial(raising, ExceptionGroup)


@ray.remote
def tidy(seconds: float, value: Any = None) -> Any:
    """Work for so long, and take a while to end, however that comes."""
    notes.note("began")
    try:
        sleep(seconds)
    finally:
        try:
            sleep(TIDY_S)
        finally:
            notes.note("ended")
    return value


@ray.remote
async def tidy_coroutine(seconds: float, value: Any = None) -> Any:
    """The same as a coroutine."""
    notes.note("began")
    try:
        await asyncio.sleep(seconds)
    finally:
        try:
            await asyncio.sleep(TIDY_S)
        finally:
            notes.note("ended")
    return value


@ray.remote
def parent(child: Any, seconds: float) -> Any:
    """Wait for a child."""
    notes.note("began")
    try:
        return ray.get(child.remote(seconds))
    finally:
        notes.note("ended")


@ray.remote
async def coroutine_parent(child: Any, seconds: float) -> Any:
    """The same as a coroutine."""
    notes.note("began")
    try:
        return await child.remote(seconds)
    finally:
        notes.note("ended")


@ray.remote
def leave_behind(child: Any, seconds: float) -> str:
    """Call for a child and do not wait for it."""
    child.remote(seconds)
    child.options(num_returns=0).remote(seconds)
    return "left"


@ray.remote
async def leave_behind_in_a_coroutine(child: Any, seconds: float) -> str:
    """The same as a coroutine."""
    child.remote(seconds)
    return "left"


@ray.remote
def fail_after(seconds: float, error: BaseException) -> None:
    """Raise so much later."""
    sleep(seconds)
    raise error


def assert_all_ended() -> None:
    """Nothing that began is still running."""
    assert notes.noted["began"], "nothing has begun"
    assert notes.noted["began"] == notes.noted["ended"], notes.noted


def matching(group: BaseExceptionGroup[Any], kind: type[BaseException]) -> int:
    """How many of the errors are of a kind; all must be."""
    assert all(isinstance(error, kind) for error in group.exceptions), group.exceptions
    return len(group.exceptions)
