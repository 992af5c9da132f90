"""Which event loop a process uses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """An event loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed."""
    make: Callable[[], asyncio.AbstractEventLoop] = import_loop(kind).new_event_loop
    return make()


def import_loop(kind: str) -> ModuleType:
    """The module that makes such loops; a template imports it before it forks, once for all workers."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise
        else:
            return uvloop
    return asyncio
