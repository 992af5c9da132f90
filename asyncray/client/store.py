"""This process's part in the shared memory of its node: extents to write to, values that it holds.

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
from asyncio import _get_running_loop
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ObjectStoreFullError, ProtocolError
from ..state.extent_cache import ExtentCache
from ..state.extents import Extent, room_for
from ..wire import messages as m
from ..wire.values import Draft, Payload, decode_stored, draft, is_scalar
from .destructors import interrupts_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..refs import ObjectRef
    from ..store.arena import Arena
    from ..wire.frames import Message
    from ..wire.handshake import Identity
    from ..wire.stored import Stored
    from .session import Session
    from .waiting import Parker

#: What a node says about the store.
STORE_MESSAGES: Final = frozenset({m.EXTENTS, m.FULL, m.RECLAIM, m.GONE})
#: Bytes of extents that are asked for together, where one value is smaller.
_ASK_BYTES: Final = 4 << 20
#: Share of the store that a process may keep free for itself, as a divisor.
_KEEP_SHARE: Final = 8


class _Held:
    """A place with a value that something here uses."""

    __slots__ = ("count", "maker")

    def __init__(self, maker: Identity | bool) -> None:
        self.count = 0
        #: Who cut the extent for an object that this process owns; True: this process; False: the object is
        #: another's, and so is the extent.
        self.maker = maker


class _Request:
    """Extents that were asked for; the gate opens with the answer."""

    __slots__ = ("full", "gate", "room")

    def __init__(self, room: int) -> None:
        self.room = room
        self.gate = threading.Lock()
        self.gate.acquire()
        #: Why there are none.
        self.full: ObjectStoreFullError | None = None


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
        self._parker = parker
        #: Bytes up to which a value lives in its owner's own memory.
        self.inline_bytes = sys.maxsize if arena is None else session.config.inline_limit_bytes
        self._keep_bytes = 0 if arena is None else arena.size // _KEEP_SHARE
        self._lock = threading.Lock()
        self._cache = ExtentCache()
        self._held: dict[int, _Held] = {}
        #: Places that this process uses and whose maker is dead: the node counts them.
        self._claimed: set[int] = set()
        #: Where the Stored objects lay that are gone, not yet accounted for.
        self._dropped: deque[int] = deque()
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}

    @property
    def unaccounted(self) -> int:
        """How many Stored objects are gone and not accounted for."""
        return len(self._dropped)

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
            Exception: whatever pickling *value* raises.
            ObjectStoreFullError: when there is no room.
        """
        if is_scalar(value):
            return value  # type: ignore[return-value]
        return self.keep(draft(value))

    def keep(self, drafted: Draft) -> Payload:
        """Make a drafted value a payload; as encode."""
        if drafted.size_bytes <= self.inline_bytes:
            return drafted.finish()
        extent = self._reserve(drafted.room_bytes)
        return drafted.finish() if extent is None else self._write(drafted, extent)

    def _write(self, drafted: Draft, extent: Extent) -> Stored:
        assert self._arena is not None
        try:
            stored = drafted.store(*extent, self._arena.write)
            self._hold(True, stored)
        except BaseException:
            with self._lock:
                self._cache.recycle(extent[0])
            raise
        return stored

    def _reserve(self, size: int) -> Extent | None:
        """An extent for *size* bytes; None where this thread cannot wait for one."""
        # What is free by now must be used again: its pages are warm.
        self._session.owner.drain_dropped()
        self.drain()
        while True:
            with self._lock:
                extent = self._cache.take(size)
            if extent is not None:
                return extent
            self._session.check_alive()
            may_wait = self._may_wait()
            request = self._ask(size, again=may_wait)
            if not may_wait:
                return None
            self._parker.park(request.gate, None)
            if request.full is not None:
                raise request.full

    def _may_wait(self) -> bool:
        """Whether the node's answer can reach this thread while it waits."""
        if _get_running_loop() is self._session.loop:
            return False
        return not (self._session.owner.lock._is_owned() or interrupts_us())  # type: ignore[attr-defined]

    def _ask(self, size: int, *, again: bool) -> _Request:
        """Ask the node for extents; not again for a length under way, where nobody waits for the answer."""
        room = room_for(size)
        with self._lock:
            known = next((r for r in self._requests.values() if r.room == room), None)
            if known is not None and not again:
                return known
            number = next(self._numbers)
            request = self._requests[number] = _Request(room)
        self._session.control.send([m.NEED, number, size, max(1, _ASK_BYTES // room)])
        return request

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
        return decode_stored(stored, self._arena.view((stored, ref)))

    # --- who holds what -------------------------------------------------------------------------------------

    def borrows(self, stored: Stored) -> None:
        """Count a payload that came from elsewhere, of an object that is another process's."""
        self._hold(False, stored)

    def owns_from(self, maker: Identity) -> Callable[[Stored], None]:
        """Counts payloads of this process's own objects, which *maker* has written."""
        return partial(self._hold, maker)

    def _hold(self, maker: Identity | bool, stored: Stored) -> None:
        if self._arena is None or stored.start + stored.room > self._arena.size:
            raise ProtocolError("a value was stored where this process cannot read")
        with self._lock:
            entry = self._held.get(stored.start)
            if entry is None:
                entry = self._held[stored.start] = _Held(maker)
            elif maker is not False:
                entry.maker = maker
            entry.count += 1
        stored.keeper = self

    def hand_over(self, stored: Stored, owner: bytes) -> None:
        """A result of this process goes to its owner, who says when its extent is free."""
        if owner == self._session.identity.process_id:
            return
        with self._lock:
            self._cache.hand_over(stored.start, owner)
            del self._held[stored.start]
        stored.keeper = None

    def dropped(self, start: int) -> None:
        """A Stored is gone. It runs in destructors, so it appends, and wakes, and nothing else."""
        self._dropped.append(start)
        session = self._session
        if not session.drain_due:
            session.on_dropped()

    def drain(self) -> None:
        """Account for what is gone; from any thread."""
        if not self._dropped:
            return
        makers: dict[Identity, list[int]] = {}
        back: list[int] = []
        with self._lock:
            while self._dropped:
                start = self._dropped.popleft()
                entry = self._held[start]
                entry.count -= 1
                if not entry.count:
                    del self._held[start]
                    self._free(start, entry.maker, makers, back)
            back += self._cache.surplus(self._keep_bytes)
        if back:
            self._session.control.send([m.GIVE, back])
        if makers:
            self._session.call_soon(self._tell_makers, makers)

    def _free(
        self, start: int, maker: Identity | bool, makers: dict[Identity, list[int]], back: list[int]
    ) -> None:
        if start in self._claimed:
            self._claimed.discard(start)
            back.append(start)
        elif maker is True:
            self._cache.recycle(start)
        elif maker is not False:
            makers.setdefault(maker, []).append(start)

    def _tell_makers(self, makers: dict[Identity, list[int]]) -> None:
        for maker, starts in makers.items():
            # To a dead one nothing need be said: the node asks, and nobody claims these.
            self._session.peers.send_to(maker, [m.RECYCLE, starts])

    def recycled(self, owner: bytes, starts: Sequence[int]) -> None:
        """An owner has no use any more for values that this process wrote for it."""
        with self._lock:
            for start in starts:
                self._cache.recycle_from(start, owner)
            back = self._cache.surplus(self._keep_bytes)
        if back:
            self._session.control.send([m.GIVE, back])

    # --- what the node says (on the loop) -------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        """One of STORE_MESSAGES."""
        kind, *fields = message
        if kind == m.EXTENTS:
            self.granted(*fields)
        elif kind == m.FULL:
            self.refused(*fields)
        elif kind == m.RECLAIM:
            self.reclaimed(*fields)
        else:
            m.check_numbers("GONE", fields[2])
            self.gone(*fields)

    def granted(self, number: int, extents: list[Any]) -> None:
        """The node grants extents."""
        with self._lock:
            self._cache.add(_checked(extents))
        self._answered(number)

    def refused(self, number: int, size: int, capacity: int, taken: int, largest: int) -> None:
        """The node has no room."""
        self._answered(
            number,
            ObjectStoreFullError(
                f"no room for {size} bytes: {taken} of the object store's {capacity} bytes are taken, and "
                f"the longest free piece has {largest}; drop references that are not needed, or give init a "
                "larger object_store_memory"
            ),
        )

    def _answered(self, number: int, full: ObjectStoreFullError | None = None) -> None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.full = full
            request.gate.release()

    def reclaimed(self, turn: int) -> None:
        """The node is short of memory: give back what is free here."""
        self._session.owner.drain_dropped()
        self.drain()
        with self._lock:
            back = self._cache.surplus(0)
        if back:
            self._session.control.send([m.GIVE, back])
        self._session.control.send([m.SETTLED, turn, [], []])

    def gone(self, turn: int, process_id: bytes, starts: list[Any]) -> None:
        """A process has died: say which of these extents are used here, and which it had owned values in."""
        # What it sent before it died may be about these.
        self._session.leases.drain(process_id)
        self._session.peers.drain(process_id)
        self._session.owner.drain_dropped()
        self.drain()
        with self._lock:
            used = [start for start in starts if start in self._held]
            self._claimed.update(used)
            orphans = self._cache.orphans(process_id)
        self._session.control.send([m.SETTLED, turn, used, orphans])

    def fail(self) -> None:
        """The session has ended: whoever waits for memory hears of it."""
        for number in list(self._requests):
            self._answered(number)


def _checked(extents: Iterable[Any]) -> list[Extent]:
    checked = []
    for extent in extents:
        if type(extent) is not list or [type(number) for number in extent] != [int, int]:
            raise ProtocolError("an extent is a place and a length")
        checked.append((extent[0], extent[1]))
    return checked
