"""The node's worker processes: forked, connected, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from ..net.local import local_pair
from ..net.stream import StreamConnection
from ..runtime_env import RuntimeEnv
from ..state.staff import PoolKey, Worker
from ..wire.handshake import Identity
from .forks import Reaper, TemplateLink, describe_end
from .machine import UNFORKED, WorkerProcess
from .marks import Mark
from .spawn import acts_at_start, start_python, variables_of
from .template import DIED, FAILED, FORKED, kill_group

#: Seconds that a template has to end its workers and itself when it is asked to.
_END_S: Final = 0.4
#: Seconds that what was killed has to leave the process table.
_REAP_S: Final = 0.2

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.connection import Connection
    from .boot import Boot
    from .logs import LogHub, WorkerOutput
    from .machine import OnConnected, OnDied


class ForkedWorker(WorkerProcess):
    """One worker's process, connection and output."""

    def __init__(self, worker: Worker, connection: Connection, mark: Mark | None) -> None:
        super().__init__(worker, connection)
        self.outputs: list[WorkerOutput] = []
        #: Read ends of its output, until its pid is known.
        self.pipes: list[int] = []
        self.template: TemplateLink | None = None
        #: None where there were no descriptors to start it.
        self.mark = mark

    def running(self) -> int:
        # Coroutines run many at a time, and note none.
        return -1 if self.worker.pool[0] != "sync" or self.mark is None else self.mark.read()


class _Channels:
    """What leads to a worker that is about to be forked: our end, and its own, of each.

    Raises:
        OSError: when there are not enough descriptors; none is kept then.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as opened:
            self.control = socket.socketpair()
            for end in self.control:
                opened.callback(end.close)
            self.out = os.pipe()
            for fd in self.out:
                opened.callback(os.close, fd)
            self.err = os.pipe()
            for fd in self.err:
                opened.callback(os.close, fd)
            self.mark = Mark()
            opened.pop_all()

    def for_worker(self) -> list[int]:
        """The descriptors that the worker gets."""
        return [self.control[1].fileno(), self.out[1], self.err[1], self.mark.fd]

    def forget_workers_ends(self) -> None:
        """Close our copies of the worker's ends; it has its own."""
        self.control[1].close()
        os.close(self.out[1])
        os.close(self.err[1])


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
        on_connected: OnConnected,
        on_died: OnDied,
    ) -> None:
        self._loop = loop
        self._boot = boot
        self._logs = logs
        self._on_connected = on_connected
        self._on_died = on_died
        self.processes: dict[int, ForkedWorker] = {}
        self._by_pid: dict[int, ForkedWorker] = {}
        self._numbers = 0
        #: The template of each environment that acts at an interpreter's start; () is the usual one.
        self._templates: dict[tuple[tuple[str, str], ...], TemplateLink] = {}
        self._stopping = False
        self._reaper = Reaper(loop)
        #: Set when the last template has ended after stop.
        self.ended = asyncio.Event()
        self.warnings: Callable[[str], None] = lambda text: None

    def adopt_template(self, sock: socket.socket, pid: int) -> None:
        """Use the template that was forked before this loop existed."""
        self._templates[()] = self._link(sock, pid)

    def _link(self, sock: socket.socket, pid: int) -> TemplateLink:
        self._reaper.watch(pid)
        return TemplateLink(self._loop, sock, pid, self._on_event, self._on_template_gone)

    # --- starting -----------------------------------------------------------------------------------------

    def start(self, key: PoolKey) -> Worker:
        """Start a worker for a pool; it registers when it is ready."""
        self._numbers += 1
        worker = Worker(self._numbers, key)
        try:
            channels = _Channels()
        except OSError as error:
            return self._cannot_start(worker, error)
        connection = StreamConnection(channels.control[0], self._loop, self._boot.config.max_frame_bytes)
        process = ForkedWorker(worker, connection, channels.mark)
        self.processes[worker.number] = process
        self._on_connected(process)
        process.pipes = [channels.out[0], channels.err[0]]
        mode, environment, gpus = key
        settings = self._boot.for_worker(worker.number, mode, environment, gpus)
        self._fork(process, settings, channels.for_worker())
        channels.forget_workers_ends()
        return worker

    def _cannot_start(self, worker: Worker, error: OSError) -> Worker:
        """Tell of a worker's end that had no beginning, as of any other."""
        nowhere, _ = local_pair(self._post, Identity(b"", "", 0))
        process = self.processes[worker.number] = ForkedWorker(worker, nowhere, None)
        self._on_connected(process)
        self._loop.call_soon(self._ended, process, UNFORKED, f"and no process can be started: {error}")
        return worker

    def _post(self, call: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_soon(call, *arguments)

    def _fork(self, process: ForkedWorker, settings: dict[str, Any], fds: list[int]) -> None:
        try:
            template = self._template(settings["environment"])
            asked = template.fork(process.worker.number, settings, fds)
        except OSError as error:
            why = f"and no process can be started: {error}"
            self._loop.call_soon(self._ended, process, UNFORKED, why)
            return
        process.template = template
        if asked:
            process.connection.resume_reading()
        else:  # dead, and this process ends with it as soon as that is told
            self._forget(template)

    def _template(self, environment: bytes) -> TemplateLink:
        key = tuple(sorted(item for item in variables_of(environment).items() if acts_at_start(item[0])))
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._new_template(RuntimeEnv(env_vars=key))
        return template

    def _new_template(self, variables: RuntimeEnv) -> TemplateLink:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = [self._boot.store_fd] if self._boot.store_bytes else []
        popen = start_python("template", theirs, variables.environment(os.environ), memory)
        theirs.close()
        # The template is watched through its pidfd and reaped with all others; Popen must not do it too.
        popen.returncode = 0
        with contextlib.suppress(BrokenPipeError):  # an end as quick as that is told like any other
            ours.send(self._boot.pack())
        link = self._link(ours, popen.pid)
        if variables:
            link.name = "with " + ", ".join(f"{name}={text!r}" for name, text in variables.env_vars)
        return link

    # --- what templates say -------------------------------------------------------------------------------

    def _on_event(self, kind: str, fields: list[Any]) -> None:
        if kind == FORKED:
            self._forked(*fields)
        elif kind == DIED:
            self._died(*fields)
        elif kind == FAILED:
            number, text = fields
            self._ended(self.processes[number], UNFORKED, f"and no process can be forked: {text}")
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

    def _ended(self, process: ForkedWorker, kind: str, text: str) -> None:
        if self.processes.pop(process.worker.number, None) is None:
            return
        for output in process.outputs:
            output.finish()
        for fd in process.pipes:
            os.close(fd)
        process.connection.on_close = lambda connection, error: None
        process.connection.close()
        self._on_died(process, kind, text)
        if process.mark is not None:
            process.mark.close()

    def _on_template_gone(self, template: TemplateLink) -> None:
        self._forget(template)
        how = describe_end(template.pid, self._reaper.status(template.pid))
        orphans = [process for process in self.processes.values() if process.template is template]
        for process in orphans:
            # The kernel has killed it with its template; what it had started itself goes now.
            if process.pid:
                kill_group(process.pid)
                self._by_pid.pop(process.pid, None)
                text = f"process {process.pid} ended with its template: {how}"
            else:
                text = f"its template {template.name}: {how}"
            self._ended(process, "died", text)
        if self._stopping and not self._templates:
            self.ended.set()

    def _forget(self, template: TemplateLink) -> None:
        """Use it no more; the next worker gets a new one."""
        for key, known in list(self._templates.items()):
            if known is template:
                del self._templates[key]

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
        try:
            async with asyncio.timeout(_END_S):
                await self.ended.wait()
        except TimeoutError:
            # It imports something that a user wants to have preloaded, or waits for what cannot be killed.
            for template in list(self._templates.values()):
                template.kill()
            await self.ended.wait()
        await self._reaper.finish(_REAP_S)
