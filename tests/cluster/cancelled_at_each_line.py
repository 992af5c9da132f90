"""A setup hook for workers: each call is cancelled by its own worker, each at another line of the framework.

The hook traces the main thread. At the first line that no earlier call was cancelled at, the running call is,
just as if its owner's cancel had come at that moment.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray.worker.sync_mode import SyncWorker

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = str(Path(ray.__file__).parent) + os.sep
#: The lines that calls were cancelled at.
lines: set[tuple[str, int]] = set()


def cancel_at_each_line() -> None:
    """Begin to cancel; in a worker's main thread."""
    worker = next(found for found in gc.get_objects() if type(found) is SyncWorker)

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        current = worker._current
        place = frame.f_code.co_filename, frame.f_lineno
        if worker._lock.locked():  # a cancel waits there, and comes right behind it
            return trace
        if event == "line" and current and not current[1].cancelled and place not in lines:
            lines.add(place)
            worker._cancel_running(*current, force=False, recursive=False)
        return trace

    sys.settrace(trace)


def count_lines() -> int:
    """At how many lines calls were cancelled; asked here, because remote functions travel by value."""
    return len(lines)


@ray.remote
def work(value: Any, ref: Any = None) -> tuple[Any, int, int]:
    """Use the framework; return the argument, the process id, and at how many lines calls were cancelled."""
    inner = ray.put([value])
    ray.get(inner)
    ray.get([inner])
    ray.wait([inner])
    sys.stdout.write("")
    return value, os.getpid(), count_lines()
