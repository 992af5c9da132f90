"""Fetching values: asking the owners of borrowed objects for them, and answering those who ask here.

    borrower                         owner
      | -- GET (numbers, limit) ------> |   answered when there is a value, however long that takes
      | <-------------------- VALUES -- |

Answers that are ready in the same pass of the loop go together. A value above the limit is answered with the
news that it is there; of a stored one the borrower hears where it lies, and holds it from then on.

Everything here runs on the session's loop, except where it says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..state.objects import FAILED, PENDING, READY, REMOTE, ObjectRecord
from ..wire import messages as m
from ..wire.stored import Stored
from ..wire.values import BufferFeed, field_bytes, from_wire, to_wire
from .errors import encode_error
from .replies import Answer, row_of
from .spilling import Spilled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..net.connection import Connection
    from ..refs import ObjectRef
    from ..wire.frames import Buffer
    from .peers import Peers
    from .session import Session


class Fetching:
    """Both sides of GET and VALUES."""

    def __init__(self, session: Session, peers: Peers) -> None:
        self._session = session
        self._owner = session.owner
        self._peers = peers
        #: Answers to GET that are ready to be sent, by connection.
        self._answers: dict[Connection, list[Answer]] = {}

    def forget(self, connection: Connection) -> None:
        """A connection is closed: nobody waits for answers on it."""
        self._answers.pop(connection, None)

    def fetch(self, records: Iterable[ObjectRecord], *, whole: bool) -> None:
        """Ask the owners of borrowed objects for their values, as soon as there are any.

        Args:
            records: Borrowed records.
            whole: Whether a large value is wanted too, or only the news that it is there.
        """
        wanted: dict[tuple[bytes, str], list[int]] = {}
        for record in records:
            pending = record.state == PENDING and not record.fetching
            if record.home is not None and (pending or (whole and record.state == REMOTE)):
                record.fetching = True
                process_id, address, _ = record.home
                wanted.setdefault((process_id, address), []).append(record.number)
        limit = 0 if whole else self._session.config.inline_limit_bytes
        for (process_id, address), numbers in wanted.items():
            self._peers.ask(process_id, address, [m.GET, numbers, limit])

    def on_get(self, connection: Connection, numbers: list[Any], limit: int) -> None:
        """A peer wants the values of objects of ours."""
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
            row = self._row(connection, answer, buffers)
            if row is None:
                self._answer_when_done(connection, answer.record, answer.limit)  # type: ignore[arg-type]
                continue
            rows.append(row)
            gathered += field_bytes(rows[-1][2]) + sum(map(len, buffers[before:]))
        connection.send([m.VALUES, rows], buffers)

    def _is_on_disk(self, answer: Answer) -> bool:
        return not answer.limit and answer.record is not None and type(answer.record.value) is Spilled

    def _row(self, connection: Connection, answer: Answer, buffers: list[Buffer]) -> list[Any] | None:
        """The row that answers; None when the value is being made again.

        Who is told where a value lies holds it from now on, until it lets go. Both are one step: a value that
        another thread finds lost in between would be told to nobody, and held for ever.
        """
        most, value = self._session.config.largest_value_bytes, None
        if answer.record is not None:
            with self._owner.lock:
                value = answer.record.value
                if type(value) is Stored:
                    row = row_of(answer, value, buffers, most)
                    if row is not None and row[1] == m.OK:
                        self._owner.objects.add_borrower(answer.number, connection.peer.process_id)
                    return row
        return row_of(answer, value, buffers, most)

    def on_values(self, connection: Connection, rows: list[Any], buffers: list[memoryview]) -> None:
        """What we have asked for has come."""
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
                    payload.refs = [self._session.references.restore_ref(address) for address in addresses]  # type: ignore[union-attr]
                    inner.append((self._owner.ref_to(record), list(payload.refs)))  # type: ignore[union-attr]
                self._arrived(record, status, payload)
        if unwanted:
            connection.send([m.RELEASE, unwanted])
        for outer, refs in inner:
            self._peers.borrowing.register(refs, _Hold([outer]))
        self._session.deliver()

    def _arrived(self, record: ObjectRecord, status: int, payload: Any) -> None:
        """Record what came: the value, the failure, or the news that the value is too large to come along."""
        record.fetching = False
        if status == m.ELSEWHERE:
            self._owner.complete(record, REMOTE, None)
        else:
            self._owner.complete(record, READY if status == m.OK else FAILED, payload)


class _Asked:
    """Answers a peer's GET when the object is done."""

    __slots__ = ("_connection", "_fetching", "_limit")

    def __init__(self, fetching: Fetching, connection: Connection, limit: int) -> None:
        self._fetching = fetching
        self._connection = connection
        self._limit = limit

    def notify(self, record: ObjectRecord) -> None:
        self._fetching.answer_soon(self._connection, record, self._limit)


class _Hold:
    """Keeps objects alive until it is called."""

    __slots__ = ("_held",)

    def __init__(self, held: list[Any]) -> None:
        self._held = held

    def __call__(self) -> None:
        self._held.clear()
