"""Records of the objects that a process knows, and who keeps each of them alive.

An object lives at its owner. It is kept by the owner's own references to it and by its borrowers: other
processes that hold references and have said so. References inside values, arguments, closures and stored
objects need no count of their own: whoever holds the value holds the ObjectRef objects inside it.

A borrower is protected by the sender's reference until the owner has answered its registration
(UNREGISTERED -> REGISTERING -> REGISTERED); a reference that dies before it registers needs no message.

An owner counts how often it has noted each borrower, and a borrower how many of these notes it has heard of.
Who lets go says how many it gives up. So a note that is on its way when its reader lets go, and is read when
the reference has come again, is the new one's, and the old one's end does not take it along.

Rule 1: whether an object may be freed is decided in this file and nowhere else.
Rule 2: this file does no I/O: what must be told to others comes back in :class:`Released`.
Rule 3: nothing here runs user code, so it may be called under the owner's lock. Freed values are handed
        back, because dropping them can run destructors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .lineage import Lineage

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable
    from weakref import ReferenceType

    from ..refs import ObjectRef, RefAddress, RefOwner
    from .tasks import Task

# States of a record. `state != PENDING` asks whether it is done, `state > 0` whether its outcome is here.
PENDING: Final = 0
READY: Final = 1
FAILED: Final = 2
#: Nobody held it any more. Only who holds it without being counted ever sees this.
FREED: Final = 3
#: Borrowed, finished, and too large to have been sent along: the value is at its owner.
REMOTE: Final = -1

UNREGISTERED: Final = 0
REGISTERING: Final = 1
REGISTERED: Final = 2


class ObjectRecord:
    """What this process knows of one object."""

    __slots__ = (
        "borrowers", "borrowing", "fetching", "home", "local", "noted", "number", "owner", "state", "task",
        "value", "waiters", "weak",
    )  # fmt: skip

    def __init__(self, owner: RefOwner, number: int) -> None:
        self.owner = owner
        self.number = number
        #: PENDING, READY, FAILED, REMOTE or FREED.
        self.state = PENDING
        #: The payload when READY; the error's payload when FAILED.
        self.value: Any = None
        #: Called, with the record, when it is done. None iff nobody waits.
        self.waiters: list[Any] | None = None
        #: The task that makes the object; None for a put, a borrowed object, and when it has ended. One that
        #: was cancelled after it was sent stays here: its worker may still be at it.
        self.task: Task | None = None
        #: ObjectRef objects of this process that have not been dropped.
        self.local = 0
        #: Who registered, and how often that was noted; None iff nobody ever did. Owned objects only.
        self.borrowers: dict[bytes, int] | None = None
        #: The way back to the ObjectRef that is alive; None while it was never sent anywhere. Its end is what
        #: is counted then, see refs.intern.
        self.weak: ReferenceType[ObjectRef[Any]] | None = None
        #: Where the object lives; None iff this process owns it.
        self.home: RefAddress | None = None
        #: UNREGISTERED, REGISTERING or REGISTERED. Borrowed objects only.
        self.borrowing = UNREGISTERED
        #: Notes of the owner's that this process has heard of. Borrowed objects only.
        self.noted = 0
        #: Whether the value has been asked for. Borrowed objects only.
        self.fetching = False


class Released:
    """What follows from references that went away; the caller carries it out, outside its lock."""

    __slots__ = ("garbage", "notices")

    def __init__(self) -> None:
        #: Values that nobody needs any more, to be dropped outside the lock.
        self.garbage: list[Any] = []
        #: Borrowed objects whose owners must hear that this process let go, and how many notes it gives up.
        self.notices: list[tuple[RefAddress, int]] = []


class ObjectTable:
    """All records of one process, by where their objects live."""

    __slots__ = ("borrowed", "lineage", "lives", "on_unheld", "owned")

    def __init__(self) -> None:
        self.owned: dict[int, ObjectRecord] = {}
        self.borrowed: dict[tuple[bytes, int], ObjectRecord] = {}
        #: How to make owned objects in the store again.
        self.lineage = Lineage()
        #: Records that are actors' lives: what handles refer to, pending as long as the actor may live.
        self.lives: set[ObjectRecord] = set()
        #: Called with such a record when nobody holds it any more, there where it lives or here.
        self.on_unheld: Callable[[ObjectRecord], None] = lambda record: None

    def drop_all(self, dropped: deque[ObjectRecord], released: Released) -> None:
        """ObjectRefs of this process are gone: their records, once for each."""
        owned, garbage, lineage = self.owned, released.garbage, self.lineage
        while dropped:
            record = dropped.popleft()
            if record.local != 1 or record.state == PENDING or record.home is not None or record.borrowers:
                self.drop_local(record, released)
                continue
            # As below, for most: a value of our own that nobody holds any more.
            record.local = 0
            if owned.pop(record.number, None) is not None:
                garbage.append(record.value)
                record.state = FREED
                record.value = None
                if lineage.specs:
                    garbage += lineage.let_go(record.number)

    def drop_local(self, record: ObjectRecord, released: Released) -> None:
        """One ObjectRef of this process is gone."""
        record.local -= 1
        if record.local:
            return
        if record.home is None:
            self._free_if_unheld(record, released)
            return
        if record.borrowing != REGISTERING:
            self._let_go(record, released)

    def registered(self, record: ObjectRecord, released: Released) -> None:
        """The owner has answered this process's registration as borrower."""
        if record.borrowing == REGISTERING:
            record.borrowing = REGISTERED
            record.noted += 1
        if not record.local:
            self._let_go(record, released)

    def lent(self, record: ObjectRecord) -> None:
        """The owner has noted this process as borrower without being asked."""
        record.noted += 1
        if record.borrowing == UNREGISTERED:
            record.borrowing = REGISTERED

    def add_borrower(self, number: int, process_id: bytes) -> bool:
        """Note that another process holds an owned object; False when the object is gone."""
        record = self.owned.get(number)
        if record is None:
            return False
        if record.borrowers is None:
            record.borrowers = {}
        record.borrowers[process_id] = record.borrowers.get(process_id, 0) + 1
        return True

    def remove_borrower(self, number: int, process_id: bytes, notes: int, released: Released) -> None:
        """Another process gave up so many notes of an owned object. Of unknown ones nothing changes."""
        record = self.owned.get(number)
        if record is None or not record.borrowers or process_id not in record.borrowers:
            return
        record.borrowers[process_id] -= notes
        if record.borrowers[process_id] <= 0:
            del record.borrowers[process_id]
            self._free_if_unheld(record, released)

    def process_gone(self, process_id: bytes, released: Released) -> list[ObjectRecord]:
        """A process died: it borrows nothing any more. Returns the borrowed records that it owned."""
        for record in list(self.owned.values()):
            if record.borrowers and process_id in record.borrowers:
                del record.borrowers[process_id]
                self._free_if_unheld(record, released)
        return [record for (home, _), record in self.borrowed.items() if home == process_id]

    def finished(self, record: ObjectRecord, released: Released) -> None:
        """An owned record has got its value; nobody may be left who wants it."""
        self._free_if_unheld(record, released)

    def held_by_others(self) -> bool:
        """Whether another process holds an object that this one owns."""
        # A copy: a thread that makes objects adds them without the lock.
        return any(record.borrowers for record in list(self.owned.values()))

    def validate(self) -> None:
        """Assert every invariant; for tests and debugging."""
        for number, record in self.owned.items():
            assert record.number == number
            assert record.home is None
            assert record.local >= 0
            assert record.local or record.borrowers or record.state == PENDING, record.number
        for (process_id, number), record in self.borrowed.items():
            assert record.home is not None
            assert (record.home[0], record.home[2]) == (process_id, number)
            assert record.local > 0 or record.borrowing == REGISTERING

    def _free_if_unheld(self, record: ObjectRecord, released: Released) -> None:
        if record.local or record.borrowers:
            return
        if record.state == PENDING:
            if record in self.lives:
                self.on_unheld(record)
            return
        if self.owned.pop(record.number, None) is not None:
            released.garbage.append(record.value)
            if self.lineage.specs:
                released.garbage += self.lineage.let_go(record.number)
            # In this order: who reads the value and then the state knows whether it is one.
            record.state = FREED
            record.value = None

    def _let_go(self, record: ObjectRecord, released: Released) -> None:
        home = record.home
        assert home is not None
        if self.borrowed.pop((home[0], home[2]), None) is None:
            return
        released.garbage.append(record.value)
        if record.borrowing == REGISTERED:
            released.notices.append((home, record.noted))
        if record in self.lives:
            self.on_unheld(record)


def unconfirmed(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """The borrowed records among *records* that are still held and whose owner has not said that it knows."""
    return [
        record
        for record in records
        if record.home is not None and record.local and record.borrowing != REGISTERED
    ]


def unregistered(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """The borrowed records among *records* that are still held and whose owner does not know it."""
    return [
        record
        for record in records
        if record.home is not None and record.local and record.borrowing == UNREGISTERED
    ]
