"""A driver's start and end: the node process, the loop thread, the session between them."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from ..exceptions import RaySystemError
from ..net.loops import new_loop
from ..net.stream import StreamConnection, UnixNetwork
from ..wire import messages as m
from ..wire.handshake import Identity
from .interrupts import InterruptGuard
from .logs import LogPrinter
from .portal import LoopThread
from .session import Session, Surroundings, TaskScope
from .waiting import ThreadParker

if TYPE_CHECKING:
    from ..config import Config
    from ..init_options import InitOptions
    from .node_process import NodeProcess

_log = logging.getLogger("asyncray")


class Driver:
    """A driver's own node, and its session with it."""

    def __init__(self, options: InitOptions, config: Config, node: NodeProcess) -> None:
        self.options = options
        self._config = config
        self._node = node
        self._loop = new_loop(node.boot.loop)
        self._portal = LoopThread(self._loop)
        self._printer = LogPrinter(self._shown)
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._guard: InterruptGuard | None = None
        #: Made by start, on the loop.
        self.session: Session = None  # type: ignore[assignment]

    def start(self) -> Session:
        """Connect to the node and wait until it is ready.

        Raises:
            RaySystemError: when the node does not start.
        """
        self._portal.start()
        try:
            self.session = self._portal.call(self._build)
            self._await_node()
        except BaseException:
            self.stop()
            raise
        self._guard = InterruptGuard(self.session.call_later)
        self.take_interrupts()
        return self.session

    def _await_node(self) -> None:
        if not self._ready.wait(self._config.start_timeout_s) or self.session.failure is not None:
            raise RaySystemError(f"the node process did not start: {self._node.describe()}")

    def take_interrupts(self) -> None:
        """Handle Ctrl-C, where the calling thread is the main one and nobody else does."""
        if self._guard is not None:
            self._guard.install()

    def give_back_interrupts(self) -> None:
        """Stop handling Ctrl-C."""
        if self._guard is not None:
            self._guard.uninstall()

    def _build(self) -> Session:
        """Make the session. On the loop."""
        boot = self._node.boot
        process_id = boot.driver_process_id
        address = f"asyncray-{boot.credentials.session_id.hex()}-{process_id.hex()}"
        identity = Identity(process_id, address, os.getpid())
        limit = self._config.max_frame_bytes
        connection = StreamConnection(self._node.take_socket(), self._loop, limit)
        session = Session(
            Surroundings(
                config=self._config,
                loop=self._loop,
                network=UnixNetwork(self._loop, boot.credentials, identity, limit),
                control=connection,
                identity=identity,
                parker=ThreadParker(),
                clock=time.monotonic,
                wake=self._wake,
                environment=self.options.runtime_env,
                namespace=boot.namespace,
            ),
            TaskScope(),
        )
        session.on_node_message = {
            m.READY: self._on_ready,
            m.LOG: self._printer.print,
            m.WARN: lambda text: _log.warning("%s", text),
            m.STOPPED: self._stopped.set,
        }
        lost = session._on_control_closed

        def on_close(closed: Any, error: Exception | None) -> None:
            lost(closed, error)
            self._ready.set()
            self._stopped.set()

        connection.on_close = on_close
        self._loop.add_reader(self._wake_fd, self._on_wake, session)
        connection.start()
        return session

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a destructor after the end
            os.eventfd_write(self._wake_fd, 1)

    def _on_wake(self, session: Session) -> None:
        os.eventfd_read(self._wake_fd)
        session.on_wake()

    def _on_ready(self, facts: dict[str, Any]) -> None:
        self.session.facts = facts
        self._ready.set()

    def _shown(self, count: int) -> None:
        """The printer has shown so many characters of output; the node may send more."""
        self.session.call_soon(self.session.control.send, [m.LOGGED, count])

    def stop(self) -> None:
        """End the node and everything under it; show what workers had written; end the loop. Never raises."""
        session = self.session
        if session is not None and session.failure is None:
            session.call_soon(session.control.send, [m.STOP])
            self._stopped.wait(self._config.start_timeout_s)
        if session is not None:
            with contextlib.suppress(RaySystemError):
                self._portal.call(session.close)
        self._node.close()
        self._printer.stop()
        self._loop.call_soon_threadsafe(self._loop.remove_reader, self._wake_fd)
        self._portal.stop()
        os.close(self._wake_fd)
        self._wake_fd = -1
        if self._guard is not None:
            self._guard.uninstall()
