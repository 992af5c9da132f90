"""Links: the connections over which this process sends calls to workers, lease after lease.

A link outlives the lease that it was made for: what the worker was told of functions over it counts for the
next one, too. What a worker says, and that a connection has broken, is for the leases to judge.

Everything here runs on the session's loop without the owner's lock, except where it says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError
from ..wire import messages as m
from ..wire.handshake import TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..net.connection import Connection
    from ..state.pipeline import Lease
    from ..wire.frames import Message
    from ..wire.handshake import Identity
    from .session import Session


class WorkerLink:
    """The connection over which this owner sends tasks to one worker, lease after lease."""

    __slots__ = ("broken", "connection", "described", "lease")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: Numbers of the descriptors that the worker knows.
        self.described: set[int] = set()
        #: The lease in force; None between two.
        self.lease: Lease | None = None
        #: What one of the two ends did not understand, as the end of a sentence; empty while all is well.
        self.broken = ""

    def lend(self, lease: Lease) -> None:
        """A lease is in force from now on.

        Raises:
            ProtocolError: when another one is: the results of its calls would be taken for this one's.
        """
        if self.lease is not None:
            raise ProtocolError("a worker that this process has already was said to be another one")
        self.lease = lease

    def flush(self) -> None:
        """Send what was pushed."""
        self.connection.flush()


class WorkerLinks:
    """The links of one process, by worker."""

    def __init__(
        self,
        session: Session,
        on_message: Callable[[WorkerLink, Message, list[memoryview]], None],
        on_close: Callable[[WorkerLink, Exception | None], None],
    ) -> None:
        self._session = session
        self._owner = session.owner
        self._on_message = on_message
        self._on_close = on_close
        self._links: dict[bytes, WorkerLink] = {}

    def connect(self, worker: Identity, network: Any = None) -> WorkerLink | None:
        """The link to a worker, made at its first use; None when the worker is dead.

        Args:
            worker: Who it is: leased by this process, or by another for its actors.
            network: How to get there; None: as to all others.

        Raises:
            OSError: when this process has no descriptor left for it.
        """
        process_id = worker.process_id
        link = self._links.get(process_id)
        if link is not None and not link.connection.closed:
            return link
        try:
            connection = (network or self._session.network).connect(worker.address, TASK)
        except ConnectionError:
            return None
        connection.peer = worker
        link = WorkerLink(connection)
        connection.on_message = lambda _, message, buffers: self._on_message(link, message, buffers)
        connection.on_close = lambda _, error: self._closed(process_id, link, error)
        self._links[process_id] = link
        self._session.start_connection(connection)
        return link

    def _closed(self, process_id: bytes, link: WorkerLink, error: Exception | None) -> None:
        if self._links.get(process_id) is link:
            del self._links[process_id]
        self._on_close(link, error)

    def connections(self) -> list[Connection]:
        """Every connection to a worker."""
        return [link.connection for link in self._links.values()]

    def idle_link(self, process_id: bytes) -> WorkerLink | None:
        """The link to a worker that waits for a call of ours, if it does. From any thread."""
        link = self._links.get(process_id)
        lease = None if link is None else link.lease
        return link if lease is not None and not lease.in_flight and not lease.closing else None

    def drain(self, process_id: bytes) -> None:
        """Handle what a worker has sent, now."""
        link = self._links.get(process_id)
        if link is not None:
            link.connection.drain()

    def forget(self, numbers: Sequence[int]) -> None:
        """Tell workers which descriptors will never be used again."""
        if not numbers:
            return
        links: list[WorkerLink | Connection] = []
        with self._owner.lock:
            for link in self._links.values():
                known = link.described.intersection(numbers)
                if known:
                    link.described -= known
                    link.connection.push([m.FORGET, sorted(known)])
                    links.append(link)
        flush_all(links)

    def close(self) -> None:
        """Close every connection to a worker."""
        for link in list(self._links.values()):
            link.connection.on_close = lambda connection, error: None
            link.connection.close()
        self._links.clear()


def flush_all(links: Iterable[WorkerLink | Connection]) -> None:
    """Send what was pushed to each. Without the lock."""
    for link in links:
        link.flush()
