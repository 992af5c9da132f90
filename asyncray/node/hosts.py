"""The processes that host light actors: made when somebody asks for one, and told of to all who have asked.

A host goes by its runtime environment and an index; which indexes there are, those who make light actors
decide (client.lights), so that nobody here looks at actors. A host that has been empty for a while says so
and is asked to retire; until it has answered, whoever asks for it waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..exceptions import ProtocolError
from ..state.staff import HOSTING, RETIRING
from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..state.staff import Worker
    from ..wire.frames import Message
    from .machine import WorkerProcess

#: How a host runs: as an async worker that is never lent.
HOST: Final = "host"
#: How its end is told when it had nothing left: nothing that was sent to it was begun.
RETIRED: Final = "retired"
#: Starts in a row that may fail before those who wait are told so.
_MOST_FAILURES: Final = 3
#: Indexes of hosts of one environment.
_MOST_HOSTS: Final = 4096


class _Host:
    """One host: its process, and who has asked for it."""

    __slots__ = ("failures", "process", "ready", "retiring", "told", "waiting")

    def __init__(self) -> None:
        #: None while there is none.
        self.process: WorkerProcess | None = None
        #: Whether it has registered.
        self.ready = False
        self.retiring = False
        #: Who knows where it is, and must hear of its end.
        self.told: dict[bytes, None] = {}
        #: Who waits to hear where it is.
        self.waiting: dict[bytes, None] = {}
        self.failures = 0


class Hosts:
    """All hosts of one node.

    Args:
        start: Starts a host for a packed environment; raises ValueError when that is none.
        send: Sends a message to a process; nothing happens when it is gone.
        move: Notes a worker's new state.
    """

    def __init__(
        self,
        start: Callable[[bytes], WorkerProcess],
        send: Callable[[bytes, Message], None],
        move: Callable[[Worker, str], None],
    ) -> None:
        self._start = start
        self._send = send
        self._move = move
        self._hosts: dict[tuple[bytes, int], _Host] = {}

    def wanted(self, sender: bytes, environment: bytes, index: int) -> None:
        """A process asks for a host.

        Raises:
            ProtocolError: when there can be no such host.
        """
        if not 0 <= index < _MOST_HOSTS:
            raise ProtocolError(f"there is no host {index}")
        host = self._hosts.get((environment, index)) or _Host()
        beginning = host.process is None
        if beginning:
            self._begin(environment, host)
        # Only now: with an environment that is none, there is no such host.
        self._hosts[environment, index] = host
        host.waiting[sender] = None
        if not beginning and host.ready and not host.retiring:
            self._tell(environment, index, host)

    def _begin(self, environment: bytes, host: _Host) -> None:
        try:
            host.process = self._start(environment)
        except ValueError as error:
            raise ProtocolError(f"a host cannot have that environment: {error}") from error

    def _tell(self, environment: bytes, index: int, host: _Host) -> None:
        process = host.process
        assert process is not None
        message = [m.HOST_AT, environment, index, process.address, process.worker.process_id, process.pid]
        waiting, host.waiting = host.waiting, {}
        host.told.update(waiting)
        for process_id in waiting:
            self._send(process_id, message)

    def registered(self, worker: Worker) -> None:
        """A worker has registered; a host is never lent."""
        found = self._of(worker)
        if found is None:
            return
        (environment, index), host = found
        self._move(worker, HOSTING)
        host.ready = True
        host.failures = 0
        self._tell(environment, index, host)

    def idle(self, sender: bytes) -> WorkerProcess | None:
        """A host has been empty for a while; returns its process, which is to be asked to retire."""
        for host in self._hosts.values():
            process = host.process
            if process is not None and process.worker.process_id == sender and not host.retiring:
                host.retiring = True
                self._move(process.worker, RETIRING)
                return process
        return None

    def process(self, process_id: bytes) -> WorkerProcess | None:
        """The process of a host that is there."""
        for host in self._hosts.values():
            if host.ready and host.process is not None and host.process.worker.process_id == process_id:
                return host.process
        return None

    def kept(self, sender: bytes) -> None:
        """A host that was asked to retire is needed, and stays."""
        for (environment, index), host in self._hosts.items():
            process = host.process
            if process is not None and process.worker.process_id == sender and host.retiring:
                host.retiring = False
                self._move(process.worker, HOSTING)
                self._tell(environment, index, host)

    def gone(self, worker: Worker, kind: str, text: str) -> Callable[[], None] | None:
        """A worker has died; returns what tells those who used it as a host, None when it was none.

        Args:
            worker: The worker.
            kind: The kind of its end.
            text: How it ended.
        """
        found = self._of(worker)
        if found is None:
            return None
        key, host = found
        ready, retiring = host.ready, host.retiring
        told = host.told
        host.process, host.ready, host.retiring, host.told = None, False, False, {}
        if not ready:
            host.failures += 1
            if kind == "environment" or host.failures >= _MOST_FAILURES:
                self._deny(key, host, text)
        kind = RETIRED if retiring and kind == "died" else kind
        message = [m.HOST_LOST, worker.process_id, kind, text]

        def tell() -> None:
            for process_id in told:
                self._send(process_id, message)
            if host.waiting and host.process is None:
                self._begin(key[0], host)
            elif not host.waiting and host.process is None and self._hosts.get(key) is host:
                del self._hosts[key]

        return tell

    def _deny(self, key: tuple[bytes, int], host: _Host, reason: str) -> None:
        waiting, host.waiting, host.failures = host.waiting, {}, 0
        for process_id in waiting:
            self._send(process_id, [m.HOST_DENIED, *key, reason])

    def owner_gone(self, process_id: bytes) -> None:
        """A process has died: it need not hear of any host."""
        for host in self._hosts.values():
            host.told.pop(process_id, None)
            host.waiting.pop(process_id, None)

    def _of(self, worker: Worker) -> tuple[tuple[bytes, int], _Host] | None:
        if worker.pool[0] != HOST:
            return None
        for key, host in self._hosts.items():
            if host.process is not None and host.process.worker is worker:
                return key, host
        return None

    def __len__(self) -> int:
        return sum(host.process is not None for host in self._hosts.values())
