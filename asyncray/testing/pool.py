"""The spawner of a simulated node: what node.pool is to a real one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ..net.stream import StreamConnection
from ..node.forks import describe_end
from ..node.machine import WorkerProcess
from ..state.staff import PoolKey, Worker
from .machine import KILLED
from .worker import SimulatedWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.connection import Connection
    from ..node.boot import Boot
    from ..node.machine import OnConnected, OnDied
    from .machine import SimulatedMachine, SimulatedProcess


class PooledWorker(WorkerProcess):
    """A simulated worker, as its node sees it."""

    def __init__(self, worker: Worker, connection: Connection) -> None:
        super().__init__(worker, connection)
        #: None until it has been forked.
        self.simulated: SimulatedProcess | None = None
        self.mark = [0]

    def running(self) -> int:
        # Coroutines run many at a time, and note none.
        return -1 if self.worker.pool[0] != "sync" else self.mark[0]


class SimulatedPool:
    """Starts simulated workers and tells of their ends.

    Args:
        machine: Where they live.
        node: The process of the node; when it has ended, nothing is started or told any more.
        boot: What the session was started with.
        on_connected: Called with each new worker's process before it says anything.
        on_died: Called once with each worker that ended, and how.
    """

    def __init__(
        self,
        machine: SimulatedMachine,
        node: SimulatedProcess,
        boot: Boot,
        on_connected: OnConnected,
        on_died: OnDied,
    ) -> None:
        self.processes: dict[int, PooledWorker] = {}
        self.warnings: Callable[[str], None] = lambda text: None
        self._machine = machine
        self._node = node
        self._boot = boot
        self._on_connected = on_connected
        self._on_died = on_died
        self._numbers = 0
        self._ended = asyncio.Event()
        self._stopping = False

    def start(self, key: PoolKey) -> Worker:
        """Start a worker for a pool; it registers when it is ready."""
        """Start a simulated worker for a pool; it registers when it is ready."""
        self._numbers += 1
        worker = Worker(self._numbers, key)
        simulated = self._machine.new_process(f"worker {worker.number}")
        ours, theirs = self._machine.hub.pair(self._node.pid, simulated.pid)
        connection = StreamConnection(ours, self._machine.hub, self._boot.config.max_frame_bytes)
        process = PooledWorker(worker, connection)
        self.processes[worker.number] = process
        self._on_connected(process)
        connection.start()
        mode, environment, gpus = key
        settings = self._boot.for_worker(worker.number, mode, environment, gpus)
        body = SimulatedWorker(self._machine, simulated, theirs, self._boot, settings)
        process.mark = body.mark
        process.simulated = simulated
        simulated.on_reaped = lambda status: self._node.context.run(self._reaped, process, status)
        # As in reality its pid is heard of later, and later still it can work.
        self._machine.later(partial(self._forked, process))
        simulated.context.run(self._machine.later, body.run)
        return worker

    def _forked(self, process: PooledWorker) -> None:
        assert process.simulated is not None
        process.pid = process.simulated.pid
        if process.killed_for is not None:
            process.simulated.end(KILLED)

    def _reaped(self, process: PooledWorker, status: int) -> None:
        del self.processes[process.worker.number]
        if self._stopping and not self.processes:
            self._ended.set()
        if not self._node.alive:
            return
        assert process.simulated is not None
        kind, text = process.killed_for or ("died", describe_end(process.simulated.pid, status))
        process.connection.on_close = lambda connection, error: None
        process.connection.close()
        self._on_died(process, kind, text)

    def kill(self, process: WorkerProcess, kind: str, text: str) -> None:
        """End a worker now; the reason is what its owner hears."""
        """End a worker now; the reason is what its owner hears."""
        process.killed_for = process.killed_for or (kind, text)
        if process.pid and isinstance(process, PooledWorker) and process.simulated is not None:
            process.simulated.end(KILLED)

    async def stop(self) -> None:
        """End every worker, and wait until all have ended."""
        """End every worker."""
        self._stopping = True
        for process in list(self.processes.values()):
            if process.simulated is not None:
                process.simulated.end(KILLED)
        if self.processes:
            await self._ended.wait()
