"""Objects that this process owns, put on disk while the store is short of memory, and read back on use.

    SPILL from the node -> the least recently used objects that nobody reads -> a thread writes them
    -> their records hold a Spilled instead of a Stored -> SPILLED to the node

Who reads an object is registered as its borrower (see Peers.fetch), or has it as the argument of a task of
ours that is under way. So an object can be spilled when it has no borrowers and is no such argument.

Rule 1: whether it can is decided under the owner's lock, where arguments are sent and borrowers noted; after
        it was written once more, because that takes time.
Rule 2: what could not be done at once is owed: it is done when somebody lets go of something.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ObjectLostError, OutOfDiskError, RayError
from ..state.objects import READY, ObjectRecord
from ..store.spill_file import SpillFile
from ..wire import messages as m
from ..wire.stored import Stored, aligned
from ..wire.values import Encoded, Payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..refs import ObjectRef
    from ..store.arena import Arena
    from .session import Session
    from .store import Store

#: References to a Stored that nobody looks at: its record's, and two of who counts them.
_UNSEEN: Final = 3


class Spilled:
    """A value on disk. Only its owner's record ever holds one."""

    __slots__ = ("at", "buffers", "checksum", "data_bytes", "gone", "refs", "size")

    def __init__(self, stored: Stored, at: int, size: int, checksum: int, gone: deque[Any]) -> None:
        self.at = at
        #: Bytes that it takes, as it lay in memory.
        self.size = size
        self.checksum = checksum
        self.data_bytes = stored.data_bytes
        self.buffers = stored.buffers
        self.refs: Sequence[ObjectRef[Any]] = stored.refs
        #: Told of the end of this: a destructor does nothing else.
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append((self.at, self.size))


class Spilling:
    """What one process has on disk.

    Args:
        session: The session.
        store: Its part in the store.
        arena: The memory.
    """

    def __init__(self, session: Session, store: Store, arena: Arena) -> None:
        self._session = session
        self._owner = session.owner
        self._store = store
        self._arena = arena
        self._file = SpillFile(session.spill_directory or "", session.config.disk_threshold)
        self._gone: deque[tuple[int, int]] = deque()
        #: Bytes of room that the node has asked for and not got.
        self._owed = 0
        #: Whether something is being written, or is about to be looked for.
        self._busy = False
        #: Objects and bytes that have been spilled, and restored.
        self.spilled_objects = 0
        self.spilled_bytes = 0
        self.restored_bytes = 0

    # --- spilling -------------------------------------------------------------------------------------------

    def spill(self, turn: int, wanted: int) -> None:
        """Make *wanted* bytes of room, or as many as can be, and tell the node. On the loop."""
        given = self._store.give_all()
        victims = self._victims(wanted - given) if given < wanted else []
        self._owed = wanted - given
        if not victims:
            self._tell(turn, given, "")
            return
        self._start(turn, given, victims)

    def pay(self) -> None:
        """Somebody has let go of something: perhaps what is owed can be done now."""
        if self._owed > 0 and not self._busy:
            self._busy = True
            # Together with what else comes until then.
            self._session.call_soon(self._pay)

    def _pay(self) -> None:
        self._busy = False
        victims = self._victims(self._owed)
        if victims:
            self._start(0, 0, victims)

    def _start(self, turn: int, given: int, victims: list[tuple[ObjectRecord, Stored]]) -> None:
        self._busy = True
        arguments = (turn, given, victims)
        threading.Thread(target=self._write, args=arguments, name="asyncray-spill", daemon=True).start()

    def _victims(self, wanted: int) -> list[tuple[ObjectRecord, Stored]]:
        found: list[tuple[ObjectRecord, Stored]] = []
        with self._owner.lock:
            can_go = self._spillable()
            for record in list(self._owner.objects.owned.values()):
                stored = record.value
                if type(stored) is Stored and can_go(record) and sys.getrefcount(stored) <= _UNSEEN:
                    found.append((record, stored))
        found.sort(key=lambda pair: pair[1].used)
        for count, (_, stored) in enumerate(found):
            if wanted <= 0:
                return found[:count]
            wanted -= stored.room
        return found

    def _spillable(self) -> Callable[[ObjectRecord], bool]:
        """What tells of a record whether nobody else reads its object. The lock is held."""
        under_way = self._session.leases.under_way()
        busy = {ref._record for task in under_way for _, ref in task.dependencies or ()}

        def can_go(record: ObjectRecord) -> bool:
            return record.state == READY and not record.borrowers and record not in busy

        return can_go

    def _write(self, turn: int, given: int, victims: list[tuple[ObjectRecord, Stored]]) -> None:
        """In a thread of its own."""
        written: list[tuple[ObjectRecord, Stored, Spilled]] = []
        problem = ""
        memory = self._arena.view(None)
        while victims:
            record, stored = victims.pop(0)
            size = stored.room_bytes
            try:
                at, checksum = self._file.write([memory[stored.start : stored.start + size]])
            except OutOfDiskError as error:
                problem = str(error)
                break
            written.append((record, stored, Spilled(stored, at, size, checksum, self._gone)))
            del record, stored
        victims.clear()
        self._session.call_soon(self._commit, turn, given, written, problem)

    def _commit(
        self, turn: int, given: int, written: list[tuple[ObjectRecord, Stored, Spilled]], problem: str
    ) -> None:
        freed = given
        with self._owner.lock:
            can_go = self._spillable()
            for record, stored, spilled in written:
                if record.value is stored and can_go(record):
                    record.value = spilled
                    freed += stored.room
                    self.spilled_objects += 1
                    self.spilled_bytes += spilled.size
        self._owed -= freed - given
        self._busy = False
        written.clear()
        record = stored = spilled = None  # type: ignore[assignment]
        self.drain()
        self._store.give_all()
        # Behind what has been posted: the news for who made what is free now.
        self._session.call_soon(self._tell, turn, freed, problem)

    def _tell(self, turn: int, freed: int, problem: str) -> None:
        self._store.give_all()
        if turn:
            self._session.control.send([m.SPILLED, turn, freed, problem])

    # --- reading back ---------------------------------------------------------------------------------------

    def restore(self, record: ObjectRecord, spilled: Spilled) -> Payload:
        """The value of a spilled object: in the store where there is room, else in this process's memory.

        Two may restore one object at once. Both then have the value that its record holds, unless that has
        been spilled again or freed meanwhile: what is returned then serves this process, and nobody else.

        Raises:
            ObjectLostError: when the disk does not have it any more.
        """
        extent = self._extent(spilled.size)
        if extent is None:
            data = memoryview(bytearray(spilled.size))
            self._read(spilled, data)
            parts = list(_parts(spilled, data.toreadonly()))
            return Encoded(bytes(parts[0]), parts[1:], spilled.refs)
        try:
            self._read(spilled, self._arena.place(extent[0], spilled.size))
        except BaseException:
            self._store.supply.recycle(extent[:1])
            raise
        stored = Stored(*extent, spilled.data_bytes, spilled.buffers)
        stored.refs = spilled.refs
        self._store.owns(stored)
        with self._owner.lock:
            if record.value is spilled:
                record.value = stored
                self.restored_bytes += spilled.size
            elif type(record.value) is Stored:
                # Somebody else was quicker. One place has the value: it is what others are told.
                stored = record.value
        return stored

    def restore_then(self, record: ObjectRecord, spilled: Spilled, then: Callable[[Any], None]) -> None:
        """Restore in a thread, and call *then* on the loop with the value, or with what was raised."""

        def run() -> None:
            try:
                outcome: Any = self.restore(record, spilled)
            except ObjectLostError as error:
                outcome = error
            self._session.call_soon(then, outcome)

        threading.Thread(target=run, name="asyncray-restore", daemon=True).start()

    def _extent(self, size: int) -> tuple[int, int] | None:
        try:
            return self._store.supply.reserve(size)
        except (RayError, RuntimeError):
            # It need not lie in the store to be read.
            return None

    def _read(self, spilled: Spilled, into: memoryview) -> None:
        try:
            self._file.read(into, spilled.at, spilled.checksum)
        except OSError as error:
            raise ObjectLostError(
                f"the object was put on disk while memory was short, and cannot be read back: {error}"
            ) from error

    def drain(self) -> None:
        """Give back the disk that freed objects took."""
        while self._gone and not self._file.interrupted:
            self._file.free(*self._gone.popleft())

    def close(self) -> None:
        """The session has ended."""
        self._file.close()


def _parts(spilled: Spilled, memory: memoryview) -> Iterator[memoryview]:
    at = spilled.data_bytes
    yield memory[:at]
    for size in spilled.buffers:
        at = aligned(at)
        yield memory[at : at + size]
        at += size
