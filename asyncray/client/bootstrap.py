"""A driver's start and end: the node process, the loop thread, the session between them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import RaySystemError
from ..net.loops import new_loop
from ..net.stream import StreamConnection, UnixNetwork
from ..wire import messages as m
from ..wire.handshake import Identity
from .interrupts import InterruptGuard, in_main_thread
from .logs import LogPrinter
from .portal import LoopThread
from .session import Session
from .surroundings import Surroundings, TaskScope
from .waiting import Bell, ThreadParker

if TYPE_CHECKING:
    from ..config import Config
    from ..init_options import InitOptions
    from .node_process import NodeProcess

_log = logging.getLogger("asyncray")
#: Seconds that each step on the loop thread may take for somebody in a hurry.
_HURRY_S: Final = 0.3
#: Seconds after a node's death by which its template has ended everything, if it is there to do so.
_REMAINS_S: Final = 1.0


class Driver:
    """A driver's own node, and its session with it."""

    def __init__(
        self, options: InitOptions, config: Config, node: NodeProcess, guard: InterruptGuard
    ) -> None:
        self.options = options
        self._config = config
        self._node = node
        self._loop = new_loop(node.boot.loop)
        self._portal = LoopThread(self._loop)
        self._printer = LogPrinter(self._shown)
        self._ready = Bell()
        self._stopped = Bell()
        self._patient = True
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._guard = guard
        #: Made by start, on the loop.
        self.session: Session = None  # type: ignore[assignment]

    def start(self) -> Session:
        """Connect to the node and wait until it is ready.

        Raises:
            RaySystemError: when the node does not start.
        """
        self._portal.start()
        self._printer.start()
        try:
            self._portal.call(self._build)
            self._await_node()
        except BaseException:
            self._patient = False
            self.stop()
            raise
        self.session.guard_main = None if in_main_thread() else self.take_interrupts
        return self.session

    def _await_node(self) -> None:
        in_time = ThreadParker().park(self._ready.gate, self._config.start_timeout_s)
        if not in_time or self.session.failure is not None:
            raise RaySystemError(f"the node process did not start: {self._node.describe()}")

    def take_interrupts(self) -> None:
        """Handle Ctrl-C from now on, where the calling thread is the main one and nobody else does."""
        if in_main_thread():
            self._guard.install()
            self.session.guard_main = None

    def give_back_interrupts(self) -> None:
        """Stop handling Ctrl-C."""
        self._guard.uninstall()

    def _build(self) -> None:
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
                arena=self._node.take_memory(),
                spill_directory=boot.spill_directory,
            ),
            TaskScope(),
        )
        session.on_node_message = {
            m.READY: self._on_ready,
            m.LOG: self._printer.print,
            m.WARN: lambda text: _log.warning("%s", text),
            m.STOPPED: lambda: self._stopped.notify(None),
        }
        lost = session._on_control_closed

        def on_close(closed: Any, error: Exception | None) -> None:
            lost(closed, error)
            self._ready.notify(None)
            self._stopped.notify(None)
            self._loop.call_later(_REMAINS_S, self._node.end_remains)

        # Before the node's first message, which may have arrived already.
        self.session = session
        connection.on_close = on_close
        self._loop.add_reader(self._wake_fd, self._on_wake, session)
        connection.start()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a destructor after the end
            os.eventfd_write(self._wake_fd, 1)

    def _on_wake(self, session: Session) -> None:
        os.eventfd_read(self._wake_fd)
        session.references.on_wake()

    def _on_ready(self, facts: dict[str, Any]) -> None:
        self.session.facts = facts
        self._ready.notify(None)

    def _shown(self, count: int) -> None:
        """The printer has shown so many characters of output; the node may send more."""
        self.session.call_soon(self.session.control.send, [m.LOGGED, count])

    def stop(self) -> None:
        """End the node and everything under it; show what workers had written; end the loop.

        Raises:
            KeyboardInterrupt: when there was one. Everything has ended all the same, but nothing was waited
                for from then on that can take long.
        """
        interrupt: KeyboardInterrupt | None = None
        for step in (self._part, self._close_session, self._close_node, self._show_rest, self._end_loop):
            try:
                step()
            except KeyboardInterrupt as error:
                interrupt = error
                self._patient = False
                step()
        self._guard.uninstall()
        if interrupt is not None:
            raise interrupt

    def hurry(self) -> None:
        """Let a stop that is under way wait for nothing that can take long. From any thread."""
        self._patient = False
        self._stopped.notify(None)
        self._printer.give_up()

    # The steps of the end. A Ctrl-C interrupts the one that waits; it is taken again then, without patience.

    def _part(self) -> None:
        """Ask the node to end everything, and wait until it says that it has."""
        if self._patient and self.session is not None and self.session.failure is None:
            self.session.call_soon(self.session.part)
            ThreadParker().park(self._stopped.gate, self._config.start_timeout_s)

    def _close_session(self) -> None:
        if self.session is not None:
            self._portal.try_call(self.session.close, self._timeout_s(), patient=self._patient)

    def _close_node(self) -> None:
        self._node.close(patient=self._patient)

    def _show_rest(self) -> None:
        self._printer.stop(patient=self._patient)

    def _end_loop(self) -> None:
        if self._wake_fd >= 0:
            self._portal.try_call(self._close_wake_fd, self._timeout_s(), patient=self._patient)
        self._portal.stop(self._timeout_s(), patient=self._patient)

    def _close_wake_fd(self) -> None:
        fd, self._wake_fd = self._wake_fd, -1
        self._loop.remove_reader(fd)
        os.close(fd)

    def _timeout_s(self) -> float:
        """Seconds that the loop may take, which a callback of the user's may keep busy."""
        return self._config.start_timeout_s if self._patient else _HURRY_S
