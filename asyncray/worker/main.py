"""A worker process, from the moment it was forked to its end."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from ..client.environments import unpack_environment
from ..client.interrupts import InterruptGuard, Interrupts
from ..client.portal import LoopThread
from ..client.session import Session
from ..client.surroundings import Surroundings
from ..client.waiting import ThreadParker
from ..config import Config
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
from ..wire.handshake import Credentials, Identity
from .async_mode import AsyncWorker
from .ending import Ending
from .joining import register, run_hook
from .output import install
from .scope import WorkerScope
from .stalls import StallWatch
from .sync_mode import SyncWorker

if TYPE_CHECKING:
    from collections.abc import Callable


def run_worker(control_fd: int, mark_fd: int, settings: dict[str, Any]) -> None:
    """Run a worker in this freshly forked process, until its node or its work ends.

    Args:
        control_fd: The connection to the node.
        mark_fd: Where it notes what it runs.
        settings: What Boot.for_worker made.
    """
    install()
    current().worker = True
    control = socket.socket(fileno=control_fd)
    loop = new_loop(settings["loop"])
    failure = _apply_environment(settings)
    mark = cell(mark_fd)
    os.close(mark_fd)
    if settings["mode"] != "sync":
        _run_async(loop, control, settings, failure)
    else:
        _run_sync(loop, control, mark, settings, failure)
    atexit._run_exitfuncs()


def _run_sync(
    loop: asyncio.AbstractEventLoop,
    control: socket.socket,
    mark: memoryview,
    settings: dict[str, Any],
    failure: str,
) -> None:
    portal = LoopThread(loop)
    portal.start()
    scope = WorkerScope()
    cancels = Interrupts()

    def build() -> tuple[Session, SyncWorker]:
        session = _session(loop, control, settings, scope)
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
    loop: asyncio.AbstractEventLoop, control: socket.socket, settings: dict[str, Any], failure: str
) -> None:
    asyncio.set_event_loop(loop)
    scope = WorkerScope()
    session = _session(loop, control, settings, scope)
    end = Ending(loop.stop, _end_at_once, _leave_fork)
    worker = AsyncWorker(session, scope, time.monotonic, end, _start_thread)
    worker.actor.stalls = StallWatch(loop, _start_thread)
    if settings["mode"] == HOST:
        worker.host()
    failure = failure or run_hook(session.environment)
    register(session, settings["number"], worker.retire, failure)
    loop.run_forever()
    session.close()


def _session(
    loop: asyncio.AbstractEventLoop, control: socket.socket, settings: dict[str, Any], scope: WorkerScope
) -> Session:
    config = Config.from_wire(settings["config"])
    credentials = Credentials(settings["session_id"], settings["token"])
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
        environment=_environment(settings),
        namespace=settings["namespace"],
        arena=_arena(*settings["store"]),
        spill_directory=settings["spill_directory"],
    )
    session = Session(surroundings, scope)
    session.facts = settings["facts"]

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


def _arena(fd: int, size: int) -> Arena | None:
    """The object store, whose memory was inherited."""
    if not size:
        return None
    arena = Arena(fd, size)
    os.close(fd)
    return arena


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


def _apply_environment(settings: dict[str, Any]) -> str:
    """Become what the runtime environment asks for; returns what went wrong, or nothing."""
    environment = _environment(settings)
    # Those that act at an interpreter's start stand there already: this process's template has them.
    later = tuple(item for item in environment.env_vars if not acts_at_start(item[0]))
    os.environ.update(RuntimeEnv(env_vars=later).environment(os.environ))
    gpus = settings["facts"]["gpus"]
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


def _environment(settings: dict[str, Any]) -> RuntimeEnv:
    return unpack_environment(settings["environment"])
