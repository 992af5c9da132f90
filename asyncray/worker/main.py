"""A worker process, from the moment it was forked to its end."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.environments import unpack_environment
from ..client.interrupts import InterruptGuard, Interrupts
from ..client.portal import LoopThread
from ..client.session import Session
from ..client.surroundings import Surroundings
from ..client.waiting import ThreadParker
from ..ids import new_process_id
from ..net.channel import SocketArrivals
from ..net.loops import new_loop
from ..net.stream import StreamConnection, UnixNetwork
from ..node.hosts import HOST
from ..node.marks import cell
from ..node.spawn import acts_at_start
from ..process import current
from ..runtime_env import RuntimeEnv
from ..store.arena import Arena
from ..wire.handshake import Identity
from .async_mode import AsyncWorker
from .ending import Ending
from .joining import register, run_hook
from .output import install
from .scope import WorkerScope
from .stalls import StallWatch
from .sync_mode import SyncWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..node.boot import Boot


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a template has ready for its workers: each would have to make it anew, in pages of its own."""

    boot: Boot
    arena: Arena | None

    def run(self, control_fd: int, mark_fd: int, settings: dict[str, Any]) -> None:
        """Run a worker in this freshly forked process, until its node or its work ends.

        Args:
            control_fd: The connection to the node.
            mark_fd: Where it notes what it runs.
            settings: What Boot.for_worker made.
        """
        current().worker = True
        control = socket.socket(fileno=control_fd)
        loop = new_loop(self.boot.loop)
        environment = unpack_environment(settings["environment"])
        failure = _apply_environment(environment, settings["gpus"])
        mark = cell(mark_fd)
        os.close(mark_fd)
        make_session = partial(self._session, loop, control, environment, settings["gpus"])
        if settings["mode"] == "sync":
            _run_sync(loop, make_session, mark, settings, failure)
        else:
            _run_async(loop, make_session, settings, failure)
        atexit._run_exitfuncs()

    def _session(
        self,
        loop: asyncio.AbstractEventLoop,
        control: socket.socket,
        environment: RuntimeEnv,
        gpus: list[str],
        scope: WorkerScope,
    ) -> Session:
        config, credentials = self.boot.config, self.boot.credentials
        process_id = new_process_id(os.urandom)
        address = f"asyncray-{credentials.session_id.hex()}-{process_id.hex()}"
        identity = Identity(process_id, address, os.getpid())
        connection = StreamConnection(control, loop, config.max_frame_bytes)
        wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        surroundings = Surroundings(
            config=config,
            loop=loop,
            network=UnixNetwork(loop, credentials, identity, config.max_frame_bytes),
            control=connection,
            identity=identity,
            parker=ThreadParker(),
            clock=time.monotonic,
            wake=lambda: os.eventfd_write(wake_fd, 1),
            environment=environment,
            namespace=self.boot.namespace,
            arena=self.arena,
            spill_directory=self.boot.spill_directory,
        )
        session = Session(surroundings, scope)
        session.facts = self.boot.facts(gpus)

        def on_wake() -> None:
            os.eventfd_read(wake_fd)
            session.references.on_wake()

        loop.add_reader(wake_fd, on_wake)
        os.register_at_fork(after_in_child=current().after_fork)
        # Without its node a worker has nothing to do and nobody to end it.
        connection.on_close = lambda closed, error: os._exit(1)
        current().session = session
        connection.start()
        return session


def prepare(boot: Boot) -> Callable[[int, int, dict[str, Any]], None]:
    """Have ready what all workers need alike; in their template. Returns what runs one of them."""
    # What a loop calls for the first time is looked up by the dynamic linker, in pages that are copied then.
    new_loop(boot.loop).close()
    install()
    arena = None
    if boot.store_bytes:
        arena = Arena(boot.store_fd, boot.store_bytes)
        os.close(boot.store_fd)
    return Prepared(boot, arena).run


def _run_sync(
    loop: asyncio.AbstractEventLoop,
    make_session: Callable[[WorkerScope], Session],
    mark: memoryview,
    settings: dict[str, Any],
    failure: str,
) -> None:
    portal = LoopThread(loop)
    portal.start()
    scope = WorkerScope()
    cancels = Interrupts()

    def build() -> tuple[Session, SyncWorker]:
        session = make_session(scope)
        end = Ending(lambda: None, _end_at_once, _leave_fork)
        arrivals = SocketArrivals()
        return session, SyncWorker(session, scope, time.monotonic, end, arrivals, cancels.ask, mark)

    session, worker = portal.call(build)
    cancels.wanted = worker.is_interrupt_wanted
    cancels.install()
    InterruptGuard(Interrupts(worker.is_running)).install()
    failure = failure or run_hook(session.environment)
    portal.call(lambda: register(session, settings["number"], worker.retire, failure))
    worker.run()
    portal.call(session.close)


def _run_async(
    loop: asyncio.AbstractEventLoop,
    make_session: Callable[[WorkerScope], Session],
    settings: dict[str, Any],
    failure: str,
) -> None:
    asyncio.set_event_loop(loop)
    scope = WorkerScope()
    session = make_session(scope)
    end = Ending(loop.stop, _end_at_once, _leave_fork)
    worker = AsyncWorker(session, scope, time.monotonic, end, _start_thread)
    worker.actor.stalls = StallWatch(loop, _start_thread)
    if settings["mode"] == HOST:
        worker.host()
    failure = failure or run_hook(session.environment)
    register(session, settings["number"], worker.retire, failure)
    loop.run_forever()
    session.close()


def _start_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="asyncray-method", daemon=True).start()


def _end_at_once() -> None:
    os._exit(1)


def _leave_fork(error: BaseException | None) -> None:
    """End as the fork of an ordinary program does: with its exit code, or a traceback if it raised."""
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code or 0
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201 - what sys.exit("text") does
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _apply_environment(environment: RuntimeEnv, gpus: list[str]) -> str:
    """Become what the runtime environment asks for; returns what went wrong, or nothing."""
    if environment.env_vars:
        # Those that act at an interpreter's start stand there already: this process's template has them.
        later = tuple(item for item in environment.env_vars if not acts_at_start(item[0]))
        os.environ.update(RuntimeEnv(env_vars=later).environment(os.environ))
    if gpus or "CUDA_VISIBLE_DEVICES" not in dict(environment.env_vars):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    try:
        if environment.working_dir is not None:
            os.chdir(environment.working_dir)
            sys.path.insert(0, environment.working_dir)
    except OSError as error:
        return f"the working_dir cannot be entered: {error}"
    for module in environment.py_modules:
        sys.path.insert(0, os.path.dirname(module))
    return ""
