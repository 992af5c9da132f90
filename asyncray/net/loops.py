"""Which event loop a process uses."""

from __future__ import annotations

import asyncio


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """An event loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
