"""Talking to other processes: the connections, who is dead, and which part handles what is said.

    fetching    asks for values, and answers who asks (client.fetching)
    borrowing   registers with owners, and keeps what others have registered for (client.borrowing)

Everything here runs on the session's loop, except where it says otherwise.

Rule: a process is dead once it cannot be reached; whatever waits for it is answered then (Peers._lose).
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import OwnerDiedError, ProtocolError
from ..state.objects import FAILED, PENDING, REMOTE, Released
from ..wire import messages as m
from ..wire.handshake import PEER, Identity
from .borrowing import Borrowing
from .enclosures import Enclosure
from .errors import encode_error
from .fetching import Fetching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..net.connection import Connection
    from ..state.objects import ObjectRecord
    from ..wire.frames import Buffer, Message
    from .session import Session

_log = logging.getLogger("asyncray")
#: Seconds between two attempts to connect while no descriptor is left: nothing tells when there is one again.
_CONNECT_AGAIN_S: Final = 0.5


class Peers:
    """This process's connections to others, and both sides of what is said on them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._owner = session.owner
        #: By process; two where both had connected to each other at once. What is sent goes to the first.
        self._connections: dict[bytes, list[Connection]] = {}
        self._dead: set[bytes] = set()
        #: What waits for a descriptor to connect with, by process.
        self._delayed: dict[bytes, list[tuple[Message, Sequence[Buffer]]]] = {}
        self._requests = itertools.count(1)
        #: Questions about the ends of others' tasks: who was asked, and what is to happen then.
        self._ends: dict[int, tuple[bytes, Callable[[], None]]] = {}
        self.fetching = Fetching(session, self)
        self.borrowing = Borrowing(session, self)
        #: Set by a worker: handles RECALL and CANCEL.
        self.on_worker_message: Callable[[Connection, Message], None] | None = None
        self._handlers = self._all_handlers()

    def _all_handlers(self) -> dict[int, Callable[..., None]]:
        """What is done about each message that a peer sends, but for those with large parts."""
        session = self._session
        return {
            m.CANCEL_OBJECT: self._on_cancel,
            m.GET: self.fetching.on_get,
            m.BORROW: self.borrowing.on_borrow,
            m.BORROWED: self.borrowing.on_borrowed,
            m.RELEASE: self.borrowing.on_release,
            m.UNPIN: self.borrowing.on_unpin,
            m.RECYCLE: self._on_recycle,
            m.ENDED: self._on_ended,
            m.INQUIRE: self._on_inquire,
            m.REPLY: self._on_reply,
            m.ACTOR_WHERE: session.actors.on_where,
            m.ACTOR_AT: session.actors.on_at,
            m.ACTOR_KILL: session.actors.on_kill,
            m.LIGHT_WHERE: session.lights.news.on_where,
            m.LIGHT_AT: session.lights.strangers.on_at,
        }

    # --- connections --------------------------------------------------------------------------------------

    def accepted(self, connection: Connection) -> None:
        """Another process has connected to talk."""
        self._use(connection)

    def send_to(self, peer: Identity, message: Message, buffers: Sequence[Buffer] = ()) -> bool:
        """Send to another process, connecting first if need be; False when it is dead."""
        known = self._connections.get(peer.process_id)
        delayed = self._delayed.get(peer.process_id)
        if delayed is not None:  # nothing may overtake it
            delayed.append((message, buffers))
            return True
        try:
            connection = known[0] if known else self._connect(peer)
        except OSError as error:
            _log.warning("cannot connect to process %d, and will try again: %s", peer.pid, error)
            self._delayed[peer.process_id] = [(message, buffers)]
            self._session.loop.call_later(_CONNECT_AGAIN_S, self._send_delayed, peer)
            return True
        if connection is None:
            return False
        connection.send(message, buffers)
        return True

    def ask(self, process_id: bytes, address: str, message: Message) -> None:
        """Send what must be answered: if the process is dead, whatever waits for it hears of that now."""
        if not self.send_to(Identity(process_id, address, 0), message):
            self._lose(process_id)

    def _send_delayed(self, peer: Identity) -> None:
        for message, buffers in self._delayed.pop(peer.process_id):
            self.send_to(peer, message, buffers)

    def _connect(self, peer: Identity) -> Connection | None:
        """Connect to a process; None when it is dead.

        Raises:
            OSError: when this process has no descriptor left for it.
        """
        if peer.process_id in self._dead:
            return None
        try:
            connection = self._session.network.connect(peer.address, PEER)
        except ConnectionError:
            self._lose(peer.process_id)
            return None
        connection.peer = peer
        self._use(connection)
        self._session.start_connection(connection)
        return connection

    def _use(self, connection: Connection) -> None:
        self._connections.setdefault(connection.peer.process_id, []).append(connection)
        connection.on_message = self._on_message
        connection.on_close = self._on_close

    def _on_close(self, connection: Connection, error: Exception | None) -> None:
        self.fetching.forget(connection)
        process_id = connection.peer.process_id
        self._connections[process_id].remove(connection)
        if not self._connections[process_id]:
            del self._connections[process_id]
            self._lose(process_id, error if isinstance(error, ProtocolError) else None)

    def _lose(self, process_id: bytes, error: ProtocolError | None = None) -> None:
        """A process is gone: it borrows nothing, it pins nothing, and what it owned is lost.

        The same when the two did not understand each other, because neither knows what the other missed. But
        then they may begin anew.
        """
        how = "the process that owned this object has died, and its value with it"
        if error is None:
            self._dead.add(process_id)
        else:
            how = f"the connection with the process that owns this object has broken: {error}"
        released = Released()
        with self._owner.lock:
            owned = self._owner.objects.process_gone(process_id, released)
            for record in owned:
                if record.state in (PENDING, REMOTE):
                    self._owner.complete(record, FAILED, encode_error(OwnerDiedError(how)))
        self.borrowing.process_gone(process_id)
        for request, (asked, then) in list(self._ends.items()):
            if asked == process_id:
                del self._ends[request]
                then()
        self._session.inquiries.lost(process_id)
        self._session.actors.process_gone(process_id, dead=error is None)
        self._session.deliver()
        self._session.check_needed()

    def connections(self) -> list[Connection]:
        """Every connection there is."""
        return [connection for known in self._connections.values() for connection in known]

    def drain(self, process_id: bytes) -> None:
        """Handle what another process has sent, now."""
        for connection in list(self._connections.get(process_id, ())):
            connection.drain()

    def drain_all(self) -> None:
        """Handle what all others have sent, now."""
        for connection in self.connections():
            connection.drain()

    def close(self) -> None:
        """Close every connection; nobody is told that this means death."""
        for connection in self.connections():
            connection.on_close = lambda closed, error: None
            connection.close()
        self._connections.clear()

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, connection: Connection, message: Message, buffers: list[memoryview]) -> None:
        handler = self._handlers.get(message[0])
        if handler is not None:
            handler(connection, *message[1:])
        elif message[0] == m.VALUES:
            self.fetching.on_values(connection, message[1], buffers)
        elif self.on_worker_message is not None and message[0] in (m.RECALL, m.CANCEL):
            self.on_worker_message(connection, message)
        else:
            raise ProtocolError(f"a peer does not send message number {message[0]} here")
        self._session.check_needed()

    def _on_recycle(self, connection: Connection, starts: list[Any]) -> None:
        self._session.store.recycle(connection.peer.process_id, starts)

    def _on_inquire(self, connection: Connection, number: int, what: str, argument: Any) -> None:
        self._session.inquiries.asked(connection, number, what, argument)

    def _on_reply(self, connection: Connection, number: int, answer: Any) -> None:
        self._session.inquiries.replied(connection, number, answer)

    def _on_cancel(self, connection: Connection, number: int, force: bool, recursive: bool) -> None:
        record = self._owner.objects.owned.get(number)
        if record is not None:
            self._session.cancel_record(record, force=force, recursive=recursive)

    def when_ended(self, record: ObjectRecord, then: Callable[[], None]) -> None:
        """Call *then* when the task that makes a borrowed object has really ended, or its owner is dead."""
        assert record.home is not None
        process_id, address, number = record.home
        request = next(self._requests)
        self._ends[request] = (process_id, then)
        self.ask(process_id, address, [m.ENDED, request, [number]])

    def _on_ended(self, connection: Connection, request: int, numbers: list[Any]) -> None:
        if numbers:
            m.check_numbers("ENDED", numbers)
            self._tell_end(connection, request, numbers)
            return
        asked, then = self._ends.get(request, (b"", None))
        if then is not None and asked == connection.peer.process_id:
            del self._ends[request]
            then()

    def _tell_end(self, connection: Connection, request: int, numbers: list[int]) -> None:
        enclosure = Enclosure()
        for number in numbers:
            if (record := self._owner.objects.owned.get(number)) is not None:
                enclosure.adopt(self._session, record)
        enclosure.when_empty(lambda: self._session.call_soon(connection.send, [m.ENDED, request, []]))
