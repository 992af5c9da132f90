"""The life of a runtime in a fresh process: import, init, the first task, shutdown; each timed.

Only the standard library's light modules are imported here, so that a runtime pays for its own imports.
"""

from __future__ import annotations

import importlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .runtime import Runtime

NUM_CPUS = 2


@dataclass(slots=True)
class Life:
    """What one process saw of its runtime; times in seconds, ``shutdown_s`` None until it was shut down."""

    import_s: float
    init_s: float
    first_task_s: float
    shutdown_s: float | None = None


def begin(name: str, store_bytes: int = 0) -> tuple[Runtime, Life]:
    """Import the runtime called ``name``, start it on ``NUM_CPUS`` CPUs and run one task.

    Args:
        name: The package.
        store_bytes: Size of its object store; 0 leaves it to the runtime, as most programs do.
    """
    started = time.perf_counter()
    module = importlib.import_module(name)
    imported = time.perf_counter()
    runtime = cast("Runtime", module)
    runtime.init(
        address="local",
        num_cpus=NUM_CPUS,
        include_dashboard=False,
        logging_level=logging.ERROR,
        **({"object_store_memory": store_bytes} if store_bytes else {}),
    )
    ready = time.perf_counter()
    runtime.get(runtime.remote(lambda: b"ok").remote())
    finished = time.perf_counter()
    for part in ("exceptions", "util"):
        importlib.import_module(f"{name}.{part}")
    return runtime, Life(imported - started, ready - imported, finished - ready)


def end(runtime: Runtime, life: Life) -> None:
    """Shut the runtime down and note how long that took."""
    started = time.perf_counter()
    runtime.shutdown()
    life.shutdown_s = time.perf_counter() - started
