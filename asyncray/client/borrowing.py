"""Borrowing: who holds references to what another process owns, and how the owner hears of it.

A reference that arrives inside a value is protected by its sender until this process has registered with
the object's owner:

- a task's arguments: the caller keeps them until the result has come, and a worker that still holds a
  reference when the task ends registers before it reports (worker.calls);
- a function's closure and globals: the caller keeps them as long as the function can be called; a worker
  registers as above at its first call, and drops the function when it hears that there will be no other;
- a task's result: the worker keeps the references until the owner of the result says UNPIN, which it does
  once it has registered for all of them;
- a fetched value: this process keeps its reference to the outer object until it has registered.

Everything here runs on the session's loop, except where it says otherwise.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError
from ..state.objects import REGISTERING, ObjectRecord, Released, unregistered
from ..wire import messages as m
from ..wire.handshake import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..net.connection import Connection
    from ..refs import ObjectRef, RefAddress
    from ..wire.values import Encoded
    from .peers import Peers
    from .session import Session


class Borrowing:
    """Registrations with the owners of what this process borrows, and those of others with this one."""

    def __init__(self, session: Session, peers: Peers) -> None:
        self._session = session
        self._owner = session.owner
        self._peers = peers
        self._requests = itertools.count(1)
        #: Registrations under way: request -> records, and what is to happen when it is answered.
        self._registering: dict[int, tuple[list[ObjectRecord], list[Callable[[], None]]]] = {}
        #: The request under way for each record.
        self._request_of: dict[ObjectRecord, int] = {}
        #: What results of tasks hold until their owner has registered, by owner and task.
        self._pinned: dict[tuple[bytes, int], _Pins] = {}

    def process_gone(self, process_id: bytes) -> None:
        """A process will register for no result, and answer no registration."""
        self.unpin_all(process_id)
        for request, (records, _) in list(self._registering.items()):
            if records and records[0].home is not None and records[0].home[0] == process_id:
                self._registered(request)

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
            self._peers.ask(process_id, address, [m.BORROW, request, numbers])

    def on_borrow(self, connection: Connection, request: int, numbers: list[Any]) -> None:
        """A peer holds references to objects of ours."""
        m.check_numbers("BORROW", numbers)
        with self._owner.lock:
            for number in numbers:
                self._owner.objects.add_borrower(number, connection.peer.process_id)
        connection.send([m.BORROWED, request])

    def on_borrowed(self, connection: Connection, request: int) -> None:
        """An owner knows what we hold."""
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
            self._peers.send_to(Identity(process_id, address, 0), [m.RELEASE, numbers])

    def on_release(self, connection: Connection, numbers: list[Any]) -> None:
        """A peer lets go of objects of ours."""
        m.check_numbers("RELEASE", numbers)
        if len(numbers) % 2:
            raise ProtocolError("RELEASE carries a number without how many notes are given up")
        released = Released()
        with self._owner.lock:
            for number, notes in zip(numbers[::2], numbers[1::2], strict=True):
                self._owner.objects.remove_borrower(number, connection.peer.process_id, notes, released)

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

    def on_unpin(self, connection: Connection, number: int) -> None:
        """The owner of a result has registered for what that refers to."""
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
            payload.refs = [self._session.references.restore_ref(address) for address in addresses]
            refs_of.setdefault(number, []).extend(payload.refs)
        for number, refs in refs_of.items():
            self._session.call_soon(self.register, refs, _Unpin(self._peers, worker, number))


class _Pins:
    """What the results of one task hold here. A task that is run again may report more than once."""

    __slots__ = ("refs", "reports")

    def __init__(self) -> None:
        self.refs: list[ObjectRef[Any]] = []
        #: Reports whose references the owner has not registered yet.
        self.reports = 0


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


class _Unpin:
    """Tells a worker that the references in a result of its are registered."""

    __slots__ = ("_number", "_peers", "_worker")

    def __init__(self, peers: Peers, worker: Identity, number: int) -> None:
        self._peers = peers
        self._worker = worker
        self._number = number

    def __call__(self) -> None:
        self._peers.send_to(self._worker, [m.UNPIN, self._number])
