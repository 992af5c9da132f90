"""Waits for the ends of processes that are not our children."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Watch:
    """Holds on to processes by descriptor: their ends can be awaited, and no id be mistaken."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors: dict[int, int] = {}
        for pid in pids:
            try:
                self._descriptors[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue  # It has ended since it was seen, which is what is waited for.

    async def survivors(self, timeout_s: float) -> list[int]:
        """Wait until all have ended, at most ``timeout_s`` seconds: those that have not."""
        waiting = {pid: asyncio.create_task(readable(it)) for pid, it in self._descriptors.items()}
        if waiting:
            await asyncio.wait(waiting.values(), timeout=timeout_s)
        alive = [pid for pid, task in waiting.items() if not task.done()]
        for pid in alive:
            waiting[pid].cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)
        return alive

    def close(self) -> None:
        """Let go of the processes."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


async def readable(descriptor: int) -> None:
    """Wait until ``descriptor`` can be read; that of a process can once it has ended."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
