"""A module with a context variable that travels, and tasks that tell what they find in it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import asyncray as ray
from asyncray import aio

#: Travels.
trace_id: ContextVar[Any] = aio.carry(ContextVar("trace_id", default="none"))
#: Stays.
local: ContextVar[str] = ContextVar("local", default="default")


def seen() -> tuple[Any, str]:
    """What the running code finds."""
    return trace_id.get(), local.get()


def set_both(value: Any) -> None:
    """Set both variables."""
    trace_id.set(value)
    local.set("set by a task")


@ray.remote
def found() -> tuple[Any, str]:
    """What a synchronous task finds."""
    return seen()


@ray.remote
async def found_async() -> tuple[Any, str]:
    """What a coroutine finds."""
    return seen()


@ray.remote
def found_below() -> list[tuple[Any, str]]:
    """What nested tasks find."""
    return ray.get([found.remote(), found_async.remote()])


@ray.remote
async def found_below_async() -> list[tuple[Any, str]]:
    """What tasks nested in a coroutine find."""
    told: list[tuple[Any, str]] = await aio.get([found.remote(), found_async.remote()])
    return told


@ray.remote
def set_and_find(value: Any) -> tuple[tuple[Any, str], tuple[Any, str]]:
    """What is found here, and in a nested task after it was set."""
    before = seen()
    set_both(value)
    return before, ray.get(found.remote())
