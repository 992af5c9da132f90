"""The node's worker processes: forked, connected, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import msgpack

from ..net.stream import StreamConnection
from ..state.scheduler import PoolKey, Worker
from .forks import TemplateLink, describe_end, reap_orphans
from .spawn import needs_own_template, start_python
from .template import DIED, FAILED, FORKED, kill_group, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from .boot import Boot
    from .logs import LogHub, WorkerOutput


class WorkerProcess:
    """One worker's process, connection and output."""

    def __init__(self, worker: Worker, connection: StreamConnection) -> None:
        self.worker = worker
        self.connection = connection
        #: 0 until the template has told it.
        self.pid = 0
        #: Where it listens; empty until it has registered.
        self.address = ""
        self.outputs: list[WorkerOutput] = []
        #: Why the node killed it: (kind, explanation). None when it did not.
        self.killed_for: tuple[str, str] | None = None
        #: Read ends of its output, until its pid is known.
        self.pipes: list[int] = []
        self.template: TemplateLink | None = None


class Pool:
    """Starts workers and tells of their ends.

    Args:
        loop: The node's loop.
        boot: What the session was started with.
        logs: Where the workers' output goes.
        on_connected: Called with each new worker's process before it says anything.
        on_died: Called once with each worker that ended, and how.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        boot: Boot,
        logs: LogHub,
        on_connected: Callable[[WorkerProcess], None],
        on_died: Callable[[WorkerProcess, str, str], None],
    ) -> None:
        self._loop = loop
        self._boot = boot
        self._logs = logs
        self._on_connected = on_connected
        self._on_died = on_died
        self.processes: dict[int, WorkerProcess] = {}
        self._by_pid: dict[int, WorkerProcess] = {}
        self._numbers = 0
        #: The template of each environment that acts at an interpreter's start; () is the usual one.
        self._templates: dict[tuple[tuple[str, str], ...], TemplateLink] = {}
        self._stopping = False
        #: Set when the last template has ended after stop.
        self.ended = asyncio.Event()
        self.warnings: Callable[[str], None] = lambda text: None

    def adopt_template(self, sock: socket.socket, pid: int) -> None:
        """Use the template that was forked before this loop existed."""
        self._templates[()] = TemplateLink(self._loop, sock, pid, self._on_event, self._on_template_gone)

    # --- starting -----------------------------------------------------------------------------------------

    def start(self, key: PoolKey) -> Worker:
        """Start a worker for a pool; it registers when it is ready."""
        self._numbers += 1
        worker = Worker(self._numbers, key)
        ours, theirs = socket.socketpair()
        connection = StreamConnection(ours, self._loop, self._boot.config.max_frame_bytes)
        process = WorkerProcess(worker, connection)
        self.processes[worker.number] = process
        self._on_connected(process)
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        process.pipes = [out_r, err_r]
        mode, environment, gpus = key
        settings = self._boot.for_worker(worker.number, mode, environment, gpus)
        process.template = self._template(environment)
        sent = process.template.fork(worker.number, settings, [theirs.fileno(), out_w, err_w])
        theirs.close()
        os.close(out_w)
        os.close(err_w)
        if sent:
            connection.start()
        else:
            self._loop.call_soon(self._ended, process, "died", "its template process had died")
        return worker

    def _template(self, environment: bytes) -> TemplateLink:
        variables: dict[str, str] = msgpack.unpackb(environment).get("env_vars", {}) if environment else {}
        key: tuple[tuple[str, str], ...] = ()
        if needs_own_template(variables):
            key = tuple(sorted(variables.items()))
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._new_template(dict(key))
        return template

    def _new_template(self, variables: dict[str, str]) -> TemplateLink:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        popen = start_python("template", theirs, {**os.environ, **variables})
        theirs.close()
        # The template is watched and reaped through its pidfd; Popen must not do it too.
        popen.returncode = 0
        ours.send(pack([self._boot.preload, self._boot.loop]))
        return TemplateLink(self._loop, ours, popen.pid, self._on_event, self._on_template_gone)

    # --- what templates say -------------------------------------------------------------------------------

    def _on_event(self, kind: str, fields: list[Any]) -> None:
        if kind == FORKED:
            self._forked(*fields)
        elif kind == DIED:
            self._died(*fields)
        elif kind == FAILED:
            number, text = fields
            self._ended(self.processes[number], "died", f"no process could be forked for it: {text}")
        else:
            for text in fields[0]:
                self.warnings(text)

    def _forked(self, number: int, pid: int) -> None:
        process = self.processes[number]
        process.pid = pid
        self._by_pid[pid] = process
        process.outputs = [
            self._logs.add(fd, stream, pid)
            for fd, stream in zip(process.pipes, ("stdout", "stderr"), strict=True)
        ]
        process.pipes = []
        if process.killed_for is not None:
            kill_group(pid)

    def _died(self, pid: int, status: int) -> None:
        process = self._by_pid.pop(pid, None)
        if process is not None:
            kind, text = process.killed_for or ("died", describe_end(pid, status))
            self._ended(process, kind, text)

    def _ended(self, process: WorkerProcess, kind: str, text: str) -> None:
        if self.processes.pop(process.worker.number, None) is None:
            return
        for output in process.outputs:
            output.finish()
        for fd in process.pipes:
            os.close(fd)
        process.connection.on_close = lambda connection, error: None
        process.connection.close()
        self._on_died(process, kind, text)

    def _on_template_gone(self, template: TemplateLink) -> None:
        for key, known in list(self._templates.items()):
            if known is template:
                del self._templates[key]
        orphans = [process for process in self.processes.values() if process.template is template]
        for process in orphans:
            # The kernel has killed it with its template; what it had started itself goes now.
            if process.pid:
                kill_group(process.pid)
                self._by_pid.pop(process.pid, None)
            how = "its template process died, and it with it"
            self._ended(process, "died", f"process {process.pid} ended: {how}")
        reap_orphans()
        if self._stopping and not self._templates:
            self.ended.set()

    # --- ending -------------------------------------------------------------------------------------------

    def kill(self, process: WorkerProcess, kind: str, text: str) -> None:
        """End a worker now; the reason is what its owner hears."""
        process.killed_for = process.killed_for or (kind, text)
        if process.pid:
            with contextlib.suppress(ProcessLookupError):
                kill_group(process.pid)

    async def stop(self) -> None:
        """End every worker and template, and pass on what they had written."""
        self._stopping = True
        if not self._templates:
            self.ended.set()
        for template in list(self._templates.values()):
            template.close()
        await self.ended.wait()
