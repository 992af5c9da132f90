"""Talking to other processes about objects: fetching values, borrowing references, cancelling.

Everything here runs on the session's loop, except where it says otherwise.

A reference that arrives inside a value is protected by its sender until this process has registered with
the object's owner:

- a task's arguments: the caller keeps them until the result has come, and a worker that still holds a
  reference when the task ends registers before it reports (worker.execution);
- a function's closure and globals: the caller keeps them as long as the function can be called; a worker
  registers as above at its first call, and drops the function when it hears that there will be no other;
- a task's result: the worker keeps the references until the owner of the result says UNPIN, which it does
  once it has registered for all of them;
- a fetched value: this process keeps its reference to the outer object until it has registered.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..exceptions import OwnerDiedError, ProtocolError
from ..state.objects import (
    FAILED,
    PENDING,
    READY,
    REGISTERING,
    REMOTE,
    ObjectRecord,
    Released,
    unregistered,
)
from ..wire import messages as m
from ..wire.handshake import PEER, Identity
from ..wire.stored import Stored
from ..wire.values import BufferFeed, Encoded, field_bytes, from_wire, to_wire
from .enclosures import Enclosure
from .errors import encode_error
from .replies import Answer, row_of
from .spilling import Spilled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..net.connection import Connection
    from ..refs import ObjectRef, RefAddress
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
        #: Registrations under way: request -> records, and what is to happen when it is answered.
        self._registering: dict[int, tuple[list[ObjectRecord], list[Callable[[], None]]]] = {}
        #: The request under way for each record.
        self._request_of: dict[ObjectRecord, int] = {}
        #: What results of tasks hold until their owner has registered, by owner and task.
        self._pinned: dict[tuple[bytes, int], _Pins] = {}
        #: Questions about the ends of others' tasks: who was asked, and what is to happen then.
        self._ends: dict[int, tuple[bytes, Callable[[], None]]] = {}
        #: Answers to GET that are ready to be sent, by connection.
        self._answers: dict[Connection, list[Answer]] = {}
        #: Set by a worker: handles RECALL and CANCEL.
        self.on_worker_message: Callable[[Connection, Message], None] | None = None

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
        self._answers.pop(connection, None)
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
        self.unpin_all(process_id)
        for request, (records, _) in list(self._registering.items()):
            if records and records[0].home is not None and records[0].home[0] == process_id:
                self._registered(request)
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
        handler = self._HANDLERS.get(message[0])
        if handler is not None:
            handler(self, connection, *message[1:])
        elif message[0] == m.VALUES:
            self._on_values(connection, message[1], buffers)
        elif self.on_worker_message is not None and message[0] in (m.RECALL, m.CANCEL):
            self.on_worker_message(connection, message)
        else:
            raise ProtocolError(f"a peer does not send message number {message[0]} here")
        self._session.check_needed()

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
        if not self.send_to(Identity(process_id, address, 0), [m.ENDED, request, [number]]):
            self._lose(process_id)

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

    # --- fetching values ----------------------------------------------------------------------------------

    def fetch(self, records: Iterable[ObjectRecord], *, whole: bool) -> None:
        """Ask the owners of borrowed objects for their values, as soon as there are any.

        Args:
            records: Borrowed records.
            whole: Whether a large value is wanted too, or only the news that it is there.
        """
        wanted: dict[RefAddress, list[int]] = {}
        for record in records:
            pending = record.state == PENDING and not record.fetching
            if record.home is not None and (pending or (whole and record.state == REMOTE)):
                record.fetching = True
                process_id, address, _ = record.home
                wanted.setdefault((process_id, address, 0), []).append(record.number)
        limit = 0 if whole else self._session.config.inline_limit_bytes
        for (process_id, address, _), numbers in wanted.items():
            if not self.send_to(Identity(process_id, address, 0), [m.GET, numbers, limit]):
                self._lose(process_id)

    def _on_get(self, connection: Connection, numbers: list[Any], limit: int) -> None:
        m.check_numbers("GET", [*numbers, limit])
        with self._owner.lock:
            for number in numbers:
                record = self._owner.objects.owned.get(number)
                if record is None:
                    self._answer(connection, number, limit)
                else:
                    self._answer_when_done(connection, record, limit)

    def _answer(self, connection: Connection, record: ObjectRecord | int, limit: int) -> None:
        """Answer a GET soon, together with others that are ready by then."""
        answers = self._answers.get(connection)
        if answers is None:
            answers = self._answers[connection] = []
            self._session.loop.call_soon(self._send_answers, connection)
        answers.append(Answer(record, limit))

    def _restore(self, connection: Connection, answer: Answer) -> None:
        """Answer when the value has been read back from disk."""
        spilling, record = self._session.store.spilling, answer.record
        assert spilling is not None
        assert record is not None

        def then(outcome: Any) -> None:
            if connection.closed:
                return
            buffers: list[Buffer] = []
            if isinstance(outcome, Exception):
                if self._owner.remaking.lost(record, spilled, str(outcome)):
                    self._answer_when_done(connection, record, answer.limit)
                    return
                row = [record.number, m.ERROR, encode_error(outcome)]
            elif type(outcome) is Stored:
                # Its record may hold it no more: spilled again, or freed.
                self._answer(connection, record, 0)
                return
            else:
                row = [record.number, m.OK, to_wire(outcome, buffers)]
            connection.send([m.VALUES, [row]], buffers)

        spilled = record.value
        if type(spilled) is not Spilled:  # another thread has read it back in this moment
            self._answer(connection, record, answer.limit)
            return
        spilling.restore_then(record, spilled, then)

    def _answer_when_done(self, connection: Connection, record: ObjectRecord, limit: int) -> None:
        """Answer at once or, when the value is being made, then."""
        with self._owner.lock:
            if not self._owner.add_waiter(record, _Asked(self, connection, limit)):
                self._answer(connection, record, limit)

    def answer_soon(self, connection: Connection, record: ObjectRecord, limit: int) -> None:
        """As _answer, from any thread."""
        self._session.call_soon(self._answer, connection, record, limit)

    def _send_answers(self, connection: Connection) -> None:
        answers = self._answers.pop(connection, None)
        if not answers or connection.closed:
            return
        buffers: list[Buffer] = []
        rows: list[list[Any]] = []
        gathered = 0
        config = self._session.config
        for answer in answers:
            if self._is_on_disk(answer):
                self._restore(connection, answer)
                continue
            if gathered > config.batch_bytes:
                connection.push([m.VALUES, rows], buffers)
                rows, buffers, gathered = [], [], 0
            before = len(buffers)
            value = self._lent(connection, answer)
            row = row_of(answer, value, buffers, config.largest_value_bytes)
            if row is None:
                self._answer_when_done(connection, answer.record, answer.limit)  # type: ignore[arg-type]
                continue
            rows.append(row)
            gathered += field_bytes(rows[-1][2]) + sum(map(len, buffers[before:]))
        connection.send([m.VALUES, rows], buffers)

    def _is_on_disk(self, answer: Answer) -> bool:
        return not answer.limit and answer.record is not None and type(answer.record.value) is Spilled

    def _lent(self, connection: Connection, answer: Answer) -> Any:
        """The payload that is sent. Who is told where a value lies holds it from now on, until it lets go."""
        if answer.record is None:
            return None
        with self._owner.lock:
            payload = answer.record.value
            if answer.tells_place(payload):
                self._owner.objects.add_borrower(answer.number, connection.peer.process_id)
        return payload

    def _on_values(self, connection: Connection, rows: list[Any], buffers: list[memoryview]) -> None:
        m.check_rows("VALUES", rows, 3)
        process_id = connection.peer.process_id
        feed = BufferFeed(buffers, self._session.store.borrows)
        inner: list[tuple[ObjectRef[Any], list[ObjectRef[Any]]]] = []
        unwanted: list[int] = []  # and how many notes of each are given up: one
        with self._owner.lock:
            for number, status, field in rows:
                payload, addresses = from_wire(field, feed)
                if status != m.OK:
                    m.check_status("VALUES", status, payload)
                record = self._owner.objects.borrowed.get((process_id, number))
                if type(payload) is Stored:
                    if record is None:
                        unwanted += (number, 1)
                    else:
                        self._owner.objects.lent(record)
                if record is None or record.state in (READY, FAILED):
                    continue
                if addresses:
                    payload.refs = [self._session.restore_ref(address) for address in addresses]  # type: ignore[union-attr]
                    inner.append((self._owner.ref_to(record), list(payload.refs)))  # type: ignore[union-attr]
                self._arrived(record, status, payload)
        if unwanted:
            connection.send([m.RELEASE, unwanted])
        for outer, refs in inner:
            self.register(refs, _Hold([outer]))
        self._session.deliver()

    def _arrived(self, record: ObjectRecord, status: int, payload: Any) -> None:
        """Record what came: the value, the failure, or the news that the value is too large to come along."""
        record.fetching = False
        if status == m.ELSEWHERE:
            self._owner.complete(record, REMOTE, None)
        else:
            self._owner.complete(record, READY if status == m.OK else FAILED, payload)

    # --- borrowing ----------------------------------------------------------------------------------------

    def register(self, refs: Iterable[ObjectRef[Any]], then: Callable[[], None]) -> None:
        """Tell the owners of *refs* that this process holds them; call *then* when all have answered."""
        by_home: dict[tuple[bytes, str], list[ObjectRecord]] = {}
        records: list[ObjectRecord] = list(dict.fromkeys(ref._record for ref in refs))  # type: ignore[misc]
        # A registration that is under way counts too: the sender must hold on until that is answered.
        joined = {self._request_of[record] for record in records if record in self._request_of}
        with self._owner.lock:
            for record in unregistered(records):
                record.borrowing = REGISTERING
                by_home.setdefault(record.home[:2], []).append(record)  # type: ignore[index]
        countdown = _Calls(len(by_home) + len(joined), then)
        for request in joined:
            self._registering[request][1].append(countdown)
        for (process_id, address), records in by_home.items():
            request = next(self._requests)
            self._registering[request] = (records, [countdown])
            self._request_of.update(dict.fromkeys(records, request))
            numbers = [record.number for record in records]
            if not self.send_to(Identity(process_id, address, 0), [m.BORROW, request, numbers]):
                self._lose(process_id)

    def _on_borrow(self, connection: Connection, request: int, numbers: list[Any]) -> None:
        m.check_numbers("BORROW", numbers)
        with self._owner.lock:
            for number in numbers:
                self._owner.objects.add_borrower(number, connection.peer.process_id)
        connection.send([m.BORROWED, request])

    def _on_borrowed(self, connection: Connection, request: int) -> None:
        records, _ = self._registering.get(request, ((), ()))
        if any(record.home[0] != connection.peer.process_id for record in records if record.home):
            raise ProtocolError("a process answered a registration that is not its to answer")
        self._registered(request)

    def _registered(self, request: int) -> None:
        entry = self._registering.pop(request, None)
        if entry is None:
            return
        records, calls = entry
        released = Released()
        with self._owner.lock:
            for record in records:
                del self._request_of[record]
                self._owner.objects.registered(record, released)
        self.release(released.notices)
        for then in calls:
            then()

    def release(self, notices: Iterable[tuple[RefAddress, int]]) -> None:
        """Tell owners that this process let go of what it had borrowed, and how many notes it gives up."""
        by_home: dict[tuple[bytes, str], list[int]] = {}
        for (process_id, address, number), notes in notices:
            by_home.setdefault((process_id, address), []).extend((number, notes))
        for (process_id, address), numbers in by_home.items():
            if process_id not in self._dead:
                self.send_to(Identity(process_id, address, 0), [m.RELEASE, numbers])

    def _on_recycle(self, connection: Connection, starts: list[Any]) -> None:
        self._session.store.recycle(connection.peer.process_id, starts)

    def _on_release(self, connection: Connection, numbers: list[Any]) -> None:
        m.check_numbers("RELEASE", numbers)
        if len(numbers) % 2:
            raise ProtocolError("RELEASE carries a number without how many notes are given up")
        released = Released()
        with self._owner.lock:
            for number, notes in zip(numbers[::2], numbers[1::2], strict=True):
                self._owner.objects.remove_borrower(number, connection.peer.process_id, notes, released)

    # --- references inside results ------------------------------------------------------------------------

    def pin(self, owner: bytes, number: int, refs: Sequence[ObjectRef[Any]]) -> None:
        """Hold what a result refers to, until its owner has registered. From any thread."""
        with self._owner.lock:
            pins = self._pinned.setdefault((owner, number), _Pins())
            pins.refs.extend(refs)
            pins.reports += 1

    def pins(self) -> int:
        """How many results hold references that their owners have not registered yet."""
        return len(self._pinned)

    def registering(self) -> int:
        """How many registrations have not been answered."""
        return len(self._registering)

    def _on_unpin(self, connection: Connection, number: int) -> None:
        key = (connection.peer.process_id, number)
        with self._owner.lock:
            pins = self._pinned.get(key)
            if pins is None:
                return
            pins.reports -= 1
            if not pins.reports:
                del self._pinned[key]

    def unpin_all(self, process_id: bytes) -> None:
        """A process is gone: it will not register for any result."""
        with self._owner.lock:
            for key in [key for key in self._pinned if key[0] == process_id]:
                del self._pinned[key]

    def adopt_results(
        self, worker: Identity, holding: Iterable[tuple[int, Encoded, list[RefAddress]]]
    ) -> None:
        """Turn the addresses inside results into references. The owner's lock is held."""
        refs_of: dict[int, list[ObjectRef[Any]]] = {}
        for number, payload, addresses in holding:
            payload.refs = [self._session.restore_ref(address) for address in addresses]
            refs_of.setdefault(number, []).extend(payload.refs)
        for number, refs in refs_of.items():
            self._session.call_soon(self.register, refs, _Unpin(self, worker, number))

    _HANDLERS: ClassVar[dict[int, Callable[..., None]]] = {
        m.CANCEL_OBJECT: _on_cancel,
        m.GET: _on_get,
        m.BORROW: _on_borrow,
        m.BORROWED: _on_borrowed,
        m.RELEASE: _on_release,
        m.UNPIN: _on_unpin,
        m.RECYCLE: _on_recycle,
        m.ENDED: _on_ended,
        m.INQUIRE: _on_inquire,
        m.REPLY: _on_reply,
        m.ACTOR_WHERE: lambda self, *fields: self._session.actors.on_where(*fields),
        m.ACTOR_AT: lambda self, *fields: self._session.actors.on_at(*fields),
        m.ACTOR_KILL: lambda self, *fields: self._session.actors.on_kill(*fields),
        m.LIGHT_WHERE: lambda self, *fields: self._session.lights.on_where(*fields),
        m.LIGHT_AT: lambda self, *fields: self._session.lights.strangers.on_at(*fields),
    }


class _Pins:
    """What the results of one task hold here. A task that is run again may report more than once."""

    __slots__ = ("refs", "reports")

    def __init__(self) -> None:
        self.refs: list[ObjectRef[Any]] = []
        #: Reports whose references the owner has not registered yet.
        self.reports = 0


class _Asked:
    """Answers a peer's GET when the object is done."""

    __slots__ = ("_connection", "_limit", "_peers")

    def __init__(self, peers: Peers, connection: Connection, limit: int) -> None:
        self._peers = peers
        self._connection = connection
        self._limit = limit

    def notify(self, record: ObjectRecord) -> None:
        self._peers.answer_soon(self._connection, record, self._limit)


class _Calls:
    """Calls a function after so many calls of its own; at once for none."""

    __slots__ = ("_left", "_then")

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left = count
        self._then = then
        if not count:
            then()

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            self._then()


class _Hold:
    """Keeps objects alive until it is called."""

    __slots__ = ("_held",)

    def __init__(self, held: list[Any]) -> None:
        self._held = held

    def __call__(self) -> None:
        self._held.clear()


class _Unpin:
    """Tells a worker that the references in a result of its are registered."""

    __slots__ = ("_number", "_peers", "_worker")

    def __init__(self, peers: Peers, worker: Identity, number: int) -> None:
        self._peers = peers
        self._worker = worker
        self._number = number

    def __call__(self) -> None:
        self._peers.send_to(self._worker, [m.UNPIN, self._number])
