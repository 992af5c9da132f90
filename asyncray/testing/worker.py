"""A simulated worker: the worker's own two modes, on the loop of the simulation."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..client.environments import unpack_environment
from ..client.session import Session
from ..client.surroundings import Surroundings
from ..ids import new_process_id
from ..net.memory import MemoryArrivals, MemoryNetwork
from ..net.stream import StreamConnection
from ..node.hosts import HOST
from ..runtime_env import NO_RUNTIME_ENV, RuntimeEnv
from ..wire.handshake import Identity
from ..worker.async_mode import AsyncWorker
from ..worker.ending import Ending
from ..worker.joining import register, run_hook
from ..worker.scope import WorkerScope
from ..worker.sync_mode import SyncWorker
from .machine import EXITED, FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..client.surroundings import TaskScope
    from ..net.memory import MemorySocket
    from ..node.boot import Boot
    from .machine import SimulatedMachine, SimulatedProcess
    from .threads import TurnThread


def new_session(
    machine: SimulatedMachine,
    process: SimulatedProcess,
    control: StreamConnection,
    scope: TaskScope,
    boot: Boot,
    process_id: bytes,
    environment: RuntimeEnv = NO_RUNTIME_ENV,
    gpus: Sequence[str] = (),
) -> Session:
    """The session of a simulated process. In the context of the process.

    Args:
        machine: Where the process lives.
        process: The process.
        control: Its connection to the node.
        scope: What is known of its running call.
        boot: What the session was started with.
        process_id: The id of the session in it.
        environment: What calls made there inherit.
        gpus: Its GPUs.
    """
    config, credentials = boot.config, boot.credentials
    address = f"asyncray-{credentials.session_id.hex()}-{process_id.hex()}"
    identity = Identity(process_id, address, process.pid)
    woken: list[Session] = []

    def wake() -> None:
        # Called from destructors, in whichever process drops the last reference.
        machine.loop.call_soon_threadsafe(woken[0].references.on_wake, context=process.context)

    session = Session(
        Surroundings(
            config=config,
            loop=machine.loop,
            network=MemoryNetwork(machine.hub, credentials, identity, config.max_frame_bytes),
            control=control,
            identity=identity,
            parker=machine.parker,
            clock=machine.loop.time,
            wake=wake,
            environment=environment,
            namespace=boot.namespace,
            arena=machine.arena,
        ),
        scope,
    )
    session.store.has_threads = False
    woken.append(session)
    session.facts = boot.facts(list(gpus))
    process.process.session = session
    return session


class SimulatedWorker:
    """One worker's process, from its start to its registration.

    Args:
        machine: Where it lives.
        process: Its process.
        control: Its end of the connection to the node.
        boot: What the session was started with.
        settings: What Boot.for_worker made.
    """

    def __init__(
        self,
        machine: SimulatedMachine,
        process: SimulatedProcess,
        control: MemorySocket,
        boot: Boot,
        settings: dict[str, Any],
    ) -> None:
        self._machine = machine
        self._process = process
        self._control = control
        self._boot = boot
        self._settings = settings
        #: Number of the running call, for the node.
        self.mark = [0]
        process.process.worker = True

    def run(self) -> None:
        """Become what the settings say, and register. On the loop, in the context of the process."""
        if not self._process.alive:
            return
        settings, boot = self._settings, self._boot
        connection = StreamConnection(self._control, self._machine.hub, boot.config.max_frame_bytes)
        process_id = new_process_id(self._machine.rng.randbytes)
        environment = unpack_environment(settings["environment"])
        is_async = settings["mode"] != "sync"
        scope = WorkerScope() if is_async else WorkerScope(self._in_thread)
        session = new_session(
            self._machine, self._process, connection, scope, boot, process_id, environment, settings["gpus"]
        )
        # As in reality: without its node a worker ends.
        connection.on_close = lambda closed, error: self._process.end(FAILED)
        connection.start()
        end = Ending(lambda: self._process.end(EXITED), lambda: self._process.end(FAILED))
        if is_async:
            start_thread = self._process.start_thread
            worker = AsyncWorker(session, scope, self._machine.loop.time, end, start_thread)
            if settings["mode"] == HOST:
                worker.host()
            retire = worker.retire
        else:
            retire = self._run_sync(session, scope, end).retire
        failure = _refused(session.environment) or run_hook(session.environment)
        register(session, settings["number"], retire, failure)

    def _run_sync(self, session: Session, scope: WorkerScope, end: Ending) -> SyncWorker:
        machine, process = self._machine, self._process
        arrivals = MemoryArrivals(machine.hub, machine.parker.park)
        threads: list[TurnThread] = []

        def interrupt() -> None:
            if worker.is_interrupt_wanted():
                machine.turns.interrupt(threads[0], KeyboardInterrupt())

        def run() -> None:
            worker.run()
            process.end(EXITED)

        worker = SyncWorker(session, scope, machine.loop.time, end, arrivals, interrupt, self.mark)
        # What was sent to it and not begun never runs.
        process.on_end.append(worker.leave)
        threads.append(process.start_thread(run))
        return worker

    def _in_thread(self) -> bool:
        return threading.current_thread() in self._process.threads


def _refused(environment: RuntimeEnv) -> str:
    """Why a simulated worker cannot be what a runtime environment asks for; empty when it can."""
    if environment.env_vars or environment.working_dir or environment.py_modules:
        return "simulated workers share one process: env_vars, working_dir and py_modules cannot be simulated"
    return ""
