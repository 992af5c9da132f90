"""This process's part in the shared memory of its node: values that it writes, reads and holds.

    encode    pickle -> an extent of this process's own, or of the node -> one copy -> Stored
    load      Stored -> read-only parts of the mapping -> unpickle; who holds a part holds a pin

Who frees: a value's owner does, when the last Stored of it there is gone: its record is freed (no reference,
no borrower), and no view of its own is left. A reader's views keep its reference, and so its registration as
borrower. The extent then goes back to its maker, which uses it again.

Rule 1: nothing is said about a value while all is well, but that its extent is free again. Only when a
        process has died, the node asks the others which of its extents they still use (GONE, SETTLED).
Rule 2: the lock guards the tables here and nothing else is called under it. Destructors only append.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError
from ..wire import messages as m
from ..wire.values import Draft, Payload, decode_stored, draft, is_scalar
from .inventory import inventory
from .moving import Moving
from .offload import in_thread
from .spilling import Spilling
from .supply import Supply

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..refs import ObjectRef
    from ..state.extents import Extent
    from ..store.arena import Arena
    from ..wire.handshake import Identity
    from ..wire.stored import Stored
    from .session import Session
    from .waiting import Parker

#: Bytes whose copy would be felt on a loop: a tenth of a millisecond.
_LONG_COPY_BYTES: Final = 1 << 20


class Prepared:
    """A value that is encoded already; encode takes it as it is."""

    __slots__ = ("payload",)

    def __init__(self, payload: Payload) -> None:
        self.payload = payload


class _Origin(Enum):
    """Where the extent of a value comes from, when no other process cut it for an object of this one."""

    #: This process cut it.
    HERE = auto()
    #: The object is another's, and so is the extent.
    ELSEWHERE = auto()


class _Held:
    """A place with a value that something here uses."""

    __slots__ = ("count", "maker")

    def __init__(self, maker: Identity | _Origin) -> None:
        self.count = 0
        #: The process that cut the extent for an object that this one owns.
        self.maker = maker


class Store:
    """What a session knows of the shared memory.

    Args:
        session: The session.
        arena: The memory; None where there is none, and every value lives in its owner's own memory.
        parker: How a thread waits for the node's answer.
    """

    def __init__(self, session: Session, arena: Arena | None, parker: Parker) -> None:
        self._session = session
        self._arena = arena
        self.supply = Supply(session, 0 if arena is None else arena.size, parker)
        #: Bytes up to which a value lives in its owner's own memory.
        self.inline_bytes = sys.maxsize if arena is None else session.config.inline_limit_bytes
        #: Whether coroutines leave long copies to a thread; a simulation has none to spare.
        self.has_threads = True
        #: Re-entrant for the same reason as the supply's.
        self._lock = threading.RLock()
        self._held: dict[int, _Held] = {}
        #: Places that this process uses and whose maker is dead: the node counts them.
        self._claimed: set[int] = set()
        #: Where the Stored objects lay that are gone, not yet accounted for.
        self._dropped: deque[int] = deque()
        self._uses = itertools.count(1)
        self.moving = Moving(session)
        #: What is on disk; None where nothing can be put there.
        self.spilling: Spilling | None = None
        if arena is not None and session.spill_directory is not None:
            self.spilling = Spilling(session, self, arena)

    @property
    def unaccounted(self) -> int:
        """How many Stored objects are gone and not accounted for."""
        return len(self._dropped)

    @property
    def capacity(self) -> int:
        """Bytes that the store may take; 0 where there is none."""
        return 0 if self._arena is None else self._arena.size

    @property
    def held(self) -> int:
        """How many places hold a value that something here uses."""
        return len(self._held)

    # --- writing --------------------------------------------------------------------------------------------

    def encode(self, value: object) -> Payload:
        """The form in which *value* travels, as `wire.values.encode`, in shared memory when it is large.

        It waits for the node where memory must be asked for; on the session's own loop, where nothing can
        wait, the value stays in this process's memory then.

        Raises:
            Exception: whatever pickling *value* raises, or Supply.reserve does.
        """
        if is_scalar(value):
            return value  # type: ignore[return-value]
        if type(value) is Prepared:
            return value.payload
        return self.keep(draft(value))

    def belongs(self, drafted: Draft) -> bool:
        """Whether a value is large enough for the store."""
        return drafted.size_bytes > self.inline_bytes

    def keep(self, drafted: Draft) -> Payload:
        """Make a drafted value a payload; as encode."""
        if drafted.size_bytes <= self.inline_bytes:
            return drafted.finish()
        self._settle()
        extent = None if self._interrupted() else self.supply.reserve(drafted.room_bytes)
        return drafted.finish() if extent is None else self._write(drafted, extent)

    async def keep_async(self, drafted: Draft) -> Payload:
        """Make a drafted value a payload, from any loop, without holding it up.

        Raises:
            ObjectStoreFullError: when there is no room.
            OutOfDiskError: when there is none to make room on, either.
        """
        if drafted.size_bytes <= self.inline_bytes:
            return drafted.finish()
        self._settle()
        extent = await self.supply.reserve_async(drafted.room_bytes)
        if drafted.size_bytes < _LONG_COPY_BYTES or not self.has_threads:
            return self._write(drafted, extent)
        # Cancelled meanwhile, the thread goes on, and what it returns is dropped.
        return await in_thread(self._write, drafted, extent)

    def _write(self, drafted: Draft, extent: Extent) -> Stored:
        assert self._arena is not None
        try:
            stored = drafted.store(*extent, self._arena.write)
            self.owns(stored)
        except BaseException:
            self.supply.recycle(extent[:1])
            raise
        return stored

    def _interrupted(self) -> bool:
        """Whether the caller is a destructor in the middle of a guarded section."""
        return self.supply.interrupted or self._lock._is_owned()  # type: ignore[attr-defined]

    def _settle(self) -> None:
        """What is free by now must be used again: its pages are warm."""
        self._session.owner.drain_dropped()
        self.drain()

    # --- reading --------------------------------------------------------------------------------------------

    def load(self, stored: Stored, ref: ObjectRef[Any] | None) -> Any:
        """The value of a stored payload. What it holds of the store is read-only, and keeps *ref* alive.

        Args:
            stored: The payload.
            ref: The reference to its object; None for one of this process, whose payload is enough.

        Raises:
            Exception: whatever unpickling raises.
        """
        assert self._arena is not None
        stored.used = next(self._uses)
        return decode_stored(stored, self._arena.view((stored, ref)))

    # --- who holds what -------------------------------------------------------------------------------------

    def owns(self, stored: Stored) -> None:
        """Count a payload that this process wrote, of an object of its own."""
        self._hold(_Origin.HERE, stored)

    def borrows(self, stored: Stored) -> None:
        """Count a payload that came from elsewhere, of an object that is another process's."""
        self._hold(_Origin.ELSEWHERE, stored)

    def owns_from(self, maker: Identity) -> Callable[[Stored], None]:
        """Counts payloads of this process's own objects, which *maker* has written."""
        return partial(self._hold, maker)

    def _hold(self, maker: Identity | _Origin, stored: Stored) -> None:
        if self._arena is None or stored.start + stored.room > self._arena.size:
            raise ProtocolError("a value was stored where this process cannot read")
        with self._lock:
            entry = self._held.get(stored.start)
            if entry is None:
                entry = self._held[stored.start] = _Held(maker)
            elif maker is not _Origin.ELSEWHERE:
                entry.maker = maker
            entry.count += 1
        stored.keeper = self
        stored.used = next(self._uses)

    def hand_over(self, stored: Stored, owner: bytes) -> None:
        """A result of this process goes to its owner, who says when its extent is free.

        The owner may be this process, as of an actor that calls itself: until the result has arrived, nothing
        here holds it.
        """
        stored.keeper = None
        with self._lock:
            entry = self._held[stored.start]
            # What lay here before may be gone and not accounted for: an argument that another thread had.
            entry.count -= 1
            entry.maker = _Origin.ELSEWHERE
            if not entry.count:
                del self._held[stored.start]
        if not self.supply.hand_over(stored.start, owner):
            # Nobody is left to say so: it is free when this is gone.
            self.owns(stored)

    def dropped(self, start: int) -> None:
        """A Stored is gone. It runs in destructors, so it appends, and wakes, and nothing else."""
        self._dropped.append(start)
        references = self._session.references
        if not references.drain_due:
            references.on_dropped()

    def drain(self) -> None:
        """Account for what is gone; from any thread."""
        if self.spilling is not None:
            self.spilling.drain()
        if not self._dropped or self._interrupted():
            return
        makers: dict[Identity, list[int]] = {}
        mine: list[int] = []
        claimed: list[int] = []
        with self._lock:
            while self._dropped:
                start = self._dropped.popleft()
                entry = self._held[start]
                entry.count -= 1
                if entry.count:
                    continue
                del self._held[start]
                if start in self._claimed:
                    self._claimed.discard(start)
                    claimed.append(start)
                elif entry.maker is _Origin.HERE:
                    mine.append(start)
                elif entry.maker is not _Origin.ELSEWHERE:
                    makers.setdefault(entry.maker, []).append(start)
        self.supply.recycle(mine)
        self.supply.give(claimed)
        if makers:
            self._tell_makers(makers)

    def _tell_makers(self, makers: dict[Identity, list[int]]) -> None:
        """Tell those who made results that their extents are free; from any thread."""
        for maker in list(makers):
            link = self._session.leases.links.idle_link(maker.process_id)
            if link is not None:
                # Before our next call there, which then finds its pages.
                link.connection.send([m.RECYCLE, makers.pop(maker)])
        if makers:
            self._session.call_soon(self._tell_others, makers)

    def _tell_others(self, makers: dict[Identity, list[int]]) -> None:
        for maker, starts in makers.items():
            if maker.process_id == self._session.identity.process_id:
                self.supply.recycle_from(maker.process_id, starts)
                continue
            # To a dead one nothing need be said: the node asks, and nobody claims these.
            self._session.peers.send_to(maker, [m.RECYCLE, starts])

    def recycle(self, owner: bytes, starts: list[Any]) -> None:
        """An owner has no use any more for results that this process made for it. From any thread.

        Raises:
            ProtocolError: when it says something else.
        """
        m.check_numbers("RECYCLE", starts)
        self.supply.recycle_from(owner, starts)

    # --- what the node says (on the loop) -------------------------------------------------------------------

    def handlers(self) -> dict[int, Callable[..., None]]:
        """What is done about each message of the node's that concerns the store."""
        return {
            m.EXTENTS: self.supply.granted,
            m.FULL: self.supply.refused,
            m.RECLAIM: self._reclaimed,
            m.GONE: self._gone,
            m.SPILL: self._spill,
            m.TELL: self._tell,
        }

    def _tell(self, turn: int) -> None:
        self._session.control.send([m.TOLD, turn, inventory(self._session)])

    def _reclaimed(self, turn: int) -> None:
        """The node is short of memory: give back what is free here."""
        # An owner that has just spilled a result of ours has said so before it told the node.
        self._session.peers.drain_all()
        self.give_all()
        self._session.control.send([m.SETTLED, turn, [], []])

    def give_all(self) -> int:
        """Give the node back what is free here; returns how many bytes that were."""
        self._session.read_tasks()
        self.supply.save()
        self._settle()
        return self.supply.give_surplus(0)

    def _spill(self, turn: int, wanted: int) -> None:
        if self.spilling is not None:
            self.spilling.spill(turn, wanted)
        else:
            self._session.control.send([m.SPILLED, turn, self.give_all(), ""])

    def _gone(self, turn: int, dead: list[Any], starts: list[Any]) -> None:
        """Processes have died: say which of these extents are used here, and which had values of theirs."""
        m.check_numbers("GONE", starts)
        m.check_processes("GONE", dead)
        for process_id in dead:
            # What it sent before it died may be about these.
            self._session.leases.links.drain(process_id)
            self._session.peers.drain(process_id)
        self._settle()
        with self._lock:
            used = [start for start in starts if start in self._held]
            self._claimed.update(used)
        orphans = [start for process_id in dead for start in self.supply.orphans(process_id)]
        self._session.control.send([m.SETTLED, turn, used, orphans])

    def fail(self) -> None:
        """Nothing can be had from the node any more. What is here can still be read."""
        self.supply.fail()

    def close(self) -> None:
        """The session has ended."""
        self.moving.close()
        if self.spilling is not None:
            self.spilling.close()
