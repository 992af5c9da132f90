"""The node process of a driver: what it is told, how it is started, how it ends.

This file is imported before anything heavy is, because the node's start is the longest part of ``init``.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING

from ..ids import new_process_id
from ..node.boot import Boot
from ..node.gpus import visible_gpus
from ..node.memory import total_bytes
from ..node.spawn import start_python
from ..resources import UNITS, Resources, to_units
from ..state.extents import PAGE
from ..store.arena import Arena, make_memory
from ..wire.handshake import Credentials
from .environments import pack_environment
from .interrupts import interruptible

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from ..config import Config
    from ..init_options import InitOptions

_LENGTH = struct.Struct("<I")
#: Milliseconds that a node may take to end after its connection has closed.
_GRACE_MS = 5000
#: The same for somebody in a hurry.
_HURRY_MS = 500


class NodeProcess:
    """The node process of a driver, as its parent sees it."""

    def __init__(self, options: InitOptions, config: Config, loop: str) -> None:
        _fill_standard_streams()
        self.boot = _boot(options, config, loop)
        ours, theirs = socket.socketpair()
        self._sock: socket.socket | None = ours
        self._memory_closed = False
        packed = self.boot.pack()
        try:
            with theirs:
                memory = [self.boot.store_fd]
                self._process: subprocess.Popen[bytes] = start_python("node", theirs, inherited=memory)
        except BaseException:
            ours.close()
            self._close_memory()
            raise
        try:
            ours.sendall(_LENGTH.pack(len(packed)) + packed)
        except BaseException:
            self.close(patient=False)
            raise

    def take_socket(self) -> socket.socket:
        """The driver's end of the connection; once."""
        sock, self._sock = self._sock, None
        assert sock is not None
        return sock

    def take_memory(self) -> Arena:
        """The object store, mapped; once.

        Raises:
            OSError: when it cannot be mapped.
        """
        try:
            return Arena(self.boot.store_fd, self.boot.store_bytes)
        finally:
            self._close_memory()

    def _close_memory(self) -> None:
        if not self._memory_closed:
            self._memory_closed = True
            os.close(self.boot.store_fd)

    def describe(self) -> str:
        """What is known of how it goes."""
        code = self._process.poll()
        return f"process {self._process.pid} " + ("is silent" if code is None else f"exited with code {code}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def close(self, *, patient: bool = True) -> None:
        """Wait for its end, which the closed connection has brought about; insist if need be.

        Raises:
            KeyboardInterrupt: when that wait is interrupted; never where it is not patient.
        """
        if self._sock is not None:
            self._sock.close()
        self._close_memory()
        if self._process.returncode is None and not self._ends(patient=patient):
            self._process.send_signal(signal.SIGKILL)
        # In a hurry too: who ends by itself also reaps what it had started, and needs milliseconds for both.
        self._end_remains(wait=True, patient=True)
        self._process.wait()

    def end_remains(self) -> None:
        """Where the node has crashed, end what nobody ends any more: its template may have died with it."""
        self._end_remains(wait=False, patient=False)

    def _end_remains(self, *, wait: bool, patient: bool) -> None:
        if self._process.returncode is None:
            from ..node.remains import end_session, has_crashed

            if has_crashed(self._process.pid, wait=wait):
                end_session(self._process.pid, patient=patient)

    def _ends(self, *, patient: bool) -> bool:
        """Wait for its end. Popen's own wait with a timeout looks at growing intervals, and so too late."""
        try:
            pidfd = os.pidfd_open(self._process.pid)
        except ProcessLookupError:  # reaped by the kernel, where the program ignores SIGCHLD
            return True
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return _poll(poll) if patient else bool(poll.poll(_HURRY_MS))
        finally:
            os.close(pidfd)


@interruptible
def _poll(poll: select.poll) -> bool:
    return bool(poll.poll(_GRACE_MS))


def _fill_standard_streams() -> None:
    """Open what a program was started without: the next socket would stand in the place of its output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # It gets the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _boot(options: InitOptions, config: Config, loop: str) -> Boot:
    gpus = visible_gpus()
    if options.num_gpus is not None:
        named = len(gpus) >= options.num_gpus
        gpus = gpus[: options.num_gpus] if named else list(map(str, range(options.num_gpus)))
    store_bytes = _store_bytes(options)
    return Boot(
        config=config,
        credentials=Credentials(os.urandom(8), os.urandom(32)),
        driver_pid=os.getpid(),
        driver_process_id=new_process_id(os.urandom),
        resources=_resources(options, len(gpus)),
        gpus=gpus,
        labels=dict(options.labels),
        preload=list(options.preload),
        environment=pack_environment(options.runtime_env),
        namespace=options.namespace or os.urandom(8).hex(),
        loop=loop,
        log_to_driver=options.log_to_driver,
        # A node may be given more CPUs than there are, for tasks that mostly wait.
        start_ahead=len(os.sched_getaffinity(0)),
        store_bytes=store_bytes,
        store_fd=make_memory(store_bytes),
        spill_directory=options.object_spilling_directory or "",
    )


def _store_bytes(options: InitOptions) -> int:
    """Bytes of the object store: as Ray, 30 % of the memory."""
    return (options.object_store_memory or int(total_bytes() * 0.3)) // PAGE * PAGE


def _resources(options: InitOptions, gpus: int) -> dict[str, int]:
    """What the node has, in units by name."""
    cpus = options.num_cpus if options.num_cpus is not None else len(os.sched_getaffinity(0))
    memory = total_bytes()
    units = {name: to_units(name, quantity) for name, quantity in options.resources.items()}
    units["CPU"] = to_units("num_cpus", cpus)
    units["GPU"] = gpus * UNITS
    # What objects do not take is there for the tasks themselves.
    store = _store_bytes(options)
    units["object_store_memory"] = to_units("object_store_memory", store)
    units["memory"] = max(0, memory - store) * UNITS
    return Resources(units).to_wire()


def default_loop(environ: Mapping[str, str]) -> str:
    """Which event loop the processes of a session use: ASYNCRAY_LOOP, or uvloop where it is installed.

    Raises:
        ValueError: when the variable names no loop.
    """
    loop = environ.get("ASYNCRAY_LOOP", "auto")
    if loop not in ("auto", "asyncio", "uvloop"):
        raise ValueError(f"ASYNCRAY_LOOP must be 'auto', 'asyncio' or 'uvloop', not {loop!r}")
    return loop
