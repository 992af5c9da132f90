"""A worker process, from the moment it was forked to its end."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import pickle
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from ..client.environments import unpack_environment
from ..client.portal import LoopThread
from ..client.session import Session, Surroundings
from ..client.waiting import ThreadParker
from ..config import Config
from ..ids import new_process_id
from ..net.loops import new_loop
from ..net.stream import StreamConnection, UnixNetwork
from ..process import current
from ..wire import messages as m
from ..wire.handshake import Credentials, Identity
from .async_mode import AsyncWorker
from .ending import Ending
from .output import install
from .scope import WorkerScope
from .sync_mode import SyncWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime_env import RuntimeEnv


def run_worker(control_fd: int, settings: dict[str, Any]) -> None:
    """Run a worker in this freshly forked process, until its node or its work ends.

    Args:
        control_fd: The connection to the node.
        settings: What Boot.for_worker made.
    """
    install()
    current().worker = True
    control = socket.socket(fileno=control_fd)
    loop = new_loop(settings["loop"])
    failure = _apply_environment(settings)
    if settings["mode"] == "async":
        _run_async(loop, control, settings, failure)
    else:
        _run_sync(loop, control, settings, failure)
    atexit._run_exitfuncs()


def _run_sync(
    loop: asyncio.AbstractEventLoop, control: socket.socket, settings: dict[str, Any], failure: str
) -> None:
    portal = LoopThread(loop)
    portal.start()
    scope = WorkerScope()

    def build() -> tuple[Session, SyncWorker]:
        session = _session(loop, control, settings, scope)
        return session, SyncWorker(session, scope, time.monotonic, Ending(lambda: None, _end_at_once))

    session, worker = portal.call(build)
    worker.install()
    failure = failure or _run_hook(settings)
    portal.call(lambda: _register(session, settings, worker.retire, failure))
    worker.run()
    portal.call(session.close)


def _run_async(
    loop: asyncio.AbstractEventLoop, control: socket.socket, settings: dict[str, Any], failure: str
) -> None:
    asyncio.set_event_loop(loop)
    scope = WorkerScope()
    session = _session(loop, control, settings, scope)
    worker = AsyncWorker(session, scope, time.monotonic, Ending(loop.stop, _end_at_once))
    failure = failure or _run_hook(settings)
    _register(session, settings, worker.retire, failure)
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
    )
    session = Session(surroundings, scope)

    def on_wake() -> None:
        os.eventfd_read(wake_fd)
        session.on_wake()

    loop.add_reader(wake_fd, on_wake)
    os.register_at_fork(after_in_child=current().after_fork)
    # Without its node a worker has nothing to do and nobody to end it.
    connection.on_close = lambda closed, error: os._exit(1)
    current().session = session
    connection.start()
    return session


def _end_at_once() -> None:
    os._exit(1)


def _register(session: Session, settings: dict[str, Any], retire: Callable[[], bool], failure: str) -> None:
    """Tell the node that this worker can be lent, or why it never can. On the loop."""

    def asked_to_retire() -> None:
        if not retire():
            session.control.send([m.KEEP])

    session.on_node_message[m.RETIRE] = asked_to_retire
    if failure:
        session.control.send([m.BROKEN, failure])
    else:
        identity = session.identity
        session.control.send([m.REGISTER, settings["number"], identity.address, identity.process_id])


def _apply_environment(settings: dict[str, Any]) -> str:
    """Become what the runtime environment asks for; returns what went wrong, or nothing."""
    environment = _environment(settings)
    os.environ.update(environment.environment(os.environ))
    if settings["gpus"] or "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, settings["gpus"]))
    try:
        if environment.working_dir is not None:
            os.chdir(environment.working_dir)
            sys.path.insert(0, environment.working_dir)
    except OSError as error:
        return f"the working_dir cannot be entered: {error}"
    for module in environment.py_modules:
        sys.path.insert(0, os.path.dirname(module))
    return ""


def _run_hook(settings: dict[str, Any]) -> str:
    hook = _environment(settings).worker_process_setup_hook
    if hook is None:
        return ""
    try:
        if isinstance(hook, str):
            module, _, name = hook.rpartition(".")
            hook = getattr(importlib.import_module(module), name)
        elif isinstance(hook, bytes):
            hook = pickle.loads(hook)
        hook()
    except Exception:  # noqa: BLE001 - a user's hook; whoever asked for it hears what it raised
        return "the worker_process_setup_hook failed:\n" + traceback.format_exc()
    return ""


def _environment(settings: dict[str, Any]) -> RuntimeEnv:
    return unpack_environment(settings["environment"])
