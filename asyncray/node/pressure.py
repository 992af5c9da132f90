"""Memory pressure: the newest retriable task is killed before the kernel kills something else.

The kernel has no wake-up for this that an ordinary user may have, so it is looked at from time to time, and
only while leases are in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from ..config import Config
    from ..state.scheduler import Grant, Scheduler
    from .machine import UseOf, WorkerPool, WorkerProcess
    from .memory import MemoryUse


class MemoryWatch:
    """Looks at the memory in use, and ends a worker when there is too much of that."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        scheduler: Scheduler,
        pool: WorkerPool,
        use_of: UseOf,
    ) -> None:
        self._loop = loop
        self._config = config
        self._scheduler = scheduler
        self._pool = pool
        self._use_of = use_of
        self._looking = False
        self._looks = 0
        #: What each lease's worker was running when it was looked at, and at which look that was new.
        self._seen: dict[int, tuple[int, int]] = {}

    def wake(self) -> None:
        """Leases may have been granted: look from now on."""
        if self._scheduler.grants and not self._looking:
            self._looking = True
            self._loop.call_later(self._config.memory_poll_s, self._look)

    def _look(self) -> None:
        self._looking = False
        self._looks += 1
        self._seen = {number: self._sight(grant) for number, grant in self._scheduler.grants.items()}
        self.wake()
        limit = self._config.memory_limit_bytes
        pids = [process.pid for process in self._pool.processes.values() if process.pid] if limit else None
        use = self._use_of(pids, limit)
        if use.above(self._config.memory_threshold):
            self._relieve(use)

    def _sight(self, grant: Grant) -> tuple[int, int]:
        process = self._process(grant)
        running = 0 if process is None else process.running()
        before = self._seen.get(grant.number)
        return before if before is not None and before[0] == running else (running, self._looks)

    def _relieve(self, use: MemoryUse) -> None:
        busy = {number: look for number, (running, look) in self._seen.items() if running}
        grant = self._scheduler.expendable(busy)
        process = None if grant is None else self._process(grant)
        if process is None or process.killed_for is not None:
            return  # nothing runs, or what was killed is not quite dead
        size = self._use_of([process.pid], 0).used_bytes
        self._pool.kill(
            process,
            "memory",
            f"memory ran out: {use.used_bytes >> 20} MiB of {use.total_bytes >> 20} MiB were in use, and "
            f"process {process.pid}, which ran it, had {size >> 20} MiB of them",
        )

    def _process(self, grant: Grant) -> WorkerProcess | None:
        return self._pool.processes.get(grant.worker.number)
