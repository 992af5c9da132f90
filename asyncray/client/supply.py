"""Extents for this process to write to: those it has been granted, and asking the node for more."""

from __future__ import annotations

import itertools
import threading
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ObjectStoreFullError, OutOfDiskError, ProtocolError
from ..state.extent_cache import ExtentCache
from ..state.extents import Extent, room_for
from ..wire import messages as m
from .destructors import interrupts_us
from .waiting import Bell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .session import Session
    from .waiting import Parker, Waiter

#: Bytes of extents that are asked for together, where one value is smaller.
_ASK_BYTES: Final = 4 << 20
#: Share of the store that a process may keep free for itself, as a divisor.
_KEEP_SHARE: Final = 8
#: And bytes that it keeps at most: what lies with one process warm, another cannot use.
_KEEP_BYTES: Final = 256 << 20
#: Seconds that a running loop is held up by the node's answer before the caller is told to await instead.
_LOOP_PATIENCE_S: Final = 0.1


class _Request:
    """Extents that were asked for; told of the answer."""

    __slots__ = ("error", "extent", "room", "waiter")

    def __init__(self, room: int, waiter: Waiter | None) -> None:
        self.room = room
        #: None where nobody waits, or not any more.
        self.waiter = waiter
        #: What came for who waits. It is not among the free ones, which go back when others ask for them.
        self.extent: Extent | None = None
        #: Why there are none.
        self.error: ObjectStoreFullError | OutOfDiskError | None = None


class Supply:
    """This process's extents.

    Args:
        session: The session.
        capacity: Bytes of the whole store.
        parker: How a thread waits for the node's answer.
    """

    def __init__(self, session: Session, capacity: int, parker: Parker) -> None:
        self._session = session
        self._parker = parker
        self._capacity = capacity
        self._share_bytes = self._keep_bytes = min(capacity // _KEEP_SHARE, _KEEP_BYTES)
        #: Guards the cache. Re-entrant only so that a destructor, which the garbage collector may run in the
        #: middle of a guarded section, finds it taken instead of waiting for itself.
        self._lock = threading.RLock()
        self._cache = ExtentCache()
        #: Whether a look at what lies here unused is to come.
        self._trimming = False
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        #: Processes that have died. An actor outlives its callers, and may be about to make a result for one.
        self._dead: set[bytes] = set()

    # --- taking ---------------------------------------------------------------------------------------------

    @property
    def interrupted(self) -> bool:
        """Whether the caller is a destructor in the middle of a guarded section of this object."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def take(self, size: int) -> Extent | None:
        """An extent that is at hand."""
        if self.interrupted:
            return None
        with self._lock:
            return self._cache.take(size)

    def reserve(self, size: int) -> Extent | None:
        """An extent for *size* bytes, from the node if need be.

        On the session's own loop nothing can wait for that: it is None then, and the next finds what was
        asked for.

        Raises:
            ObjectStoreFullError: when there is no room.
            OutOfDiskError: when there is none to make room on, either.
            RuntimeError: when this would hold up a running event loop.
        """
        while (extent := self.take(size)) is None:
            self._session.check_alive()
            if not self._may_wait():
                self._ask_ahead(size)
                return None
            if (extent := self._await(size)) is not None:
                break
        return extent

    def _await(self, size: int) -> Extent | None:
        """Ask for an extent and wait for it; None when the session ended meanwhile."""
        bell = Bell()
        request = self._ask(size, bell)
        patience_s = None if _get_running_loop() is None else _LOOP_PATIENCE_S
        try:
            answered = self._parker.park(bell.gate, patience_s)
        except BaseException:
            self._give_up(request)
            raise
        if not answered:
            self._give_up(request)
            raise RuntimeError(
                "the object store is full, and waiting for room would block the running event loop; use "
                "`await asyncray.aio.put(value)` instead"
            )
        if request.error is not None:
            raise request.error
        return request.extent

    async def reserve_async(self, size: int) -> Extent:
        """As reserve, from any loop.

        Raises:
            ObjectStoreFullError: when there is no room.
            OutOfDiskError: when there is none to make room on, either.
        """
        while (extent := self.take(size)) is None:
            self._session.check_alive()
            waiter = self._session.waits.new_loop_bell()
            request = self._ask(size, waiter)
            try:
                await waiter.future
            except BaseException:
                self._give_up(request)
                raise
            if request.error is not None:
                raise request.error
            if (extent := request.extent) is not None:
                break
        return extent

    def _give_up(self, request: _Request) -> None:
        """Who asked does not wait any more: what came, or comes, is free."""
        with self._lock:
            request.waiter, extent = None, request.extent
            request.extent = None
        if extent is not None:
            self.recycle(extent[:1])

    def _may_wait(self) -> bool:
        """Whether the node's answer can reach this thread while it waits."""
        if _get_running_loop() is self._session.loop:
            return False
        return not (self._session.owner.lock._is_owned() or interrupts_us())  # type: ignore[attr-defined]

    def _ask_ahead(self, size: int) -> None:
        room = room_for(size)
        if not any(request.room == room for request in list(self._requests.values())):
            self._ask(size, None)

    def _ask(self, size: int, waiter: Waiter | None) -> _Request:
        room = room_for(size)
        number = next(self._numbers)
        request = self._requests[number] = _Request(room, waiter)
        self._session.control.send([m.NEED, number, size, max(1, _ASK_BYTES // room)])
        return request

    # --- giving back ----------------------------------------------------------------------------------------

    def recycle(self, starts: Iterable[int]) -> None:
        """These are free again."""
        with self._lock:
            for start in starts:
                self._cache.recycle(start)
        self.give_surplus(self._keep_bytes)
        self._trim_later()

    def recycle_from(self, owner: bytes, starts: Iterable[int]) -> None:
        """An owner has no use any more for results that this process wrote for it."""
        with self._lock:
            for start in starts:
                self._cache.recycle_from(start, owner)
        self.give_surplus(self._keep_bytes)
        self._trim_later()

    def hand_over(self, start: int, owner: bytes) -> bool:
        """The value there belongs to another process from now on; False when that is dead."""
        with self._lock:
            if owner in self._dead:
                return False
            self._cache.hand_over(start, owner)
        return True

    def orphans(self, owner: bytes) -> list[int]:
        """A process is dead: where the results lie that it owned. They are not this process's any more."""
        with self._lock:
            self._dead.add(owner)
            return self._cache.orphans(owner)

    def give_surplus(self, keep_bytes: int) -> int:
        """Give free extents back to the node, but for so many bytes; returns how many bytes went.

        Unless all go, the one that was used last stays, however long it is: a loop that makes one value
        after the other finds its pages.
        """
        with self._lock:
            before = self._cache.free_bytes
            back = self._cache.surplus(keep_bytes, spare_last=keep_bytes > 0)
            given = before - self._cache.free_bytes
        self.give(back)
        return given

    def _trim_later(self) -> None:
        """See to it that what lies here unused goes back; from any thread."""
        if not self._trimming and self._cache.free_bytes:
            self._trimming = True
            self._session.call_later(self._session.config.store_idle_s, self._trim)

    def _trim(self) -> None:
        # Cleared before the look: what is recycled in between is found, or looked at anew.
        self._trimming = False
        with self._lock:
            unneeded = self._cache.unneeded()
        self.give(unneeded)
        self._trim_later()

    def save(self) -> None:
        """Others wait for memory: keep nothing free here, until the node has some again for this process."""
        self._keep_bytes = 0

    def give(self, starts: Sequence[int]) -> None:
        """Give extents back to the node."""
        if starts:
            self._session.control.send([m.GIVE, starts])

    # --- what the node answers (on the loop) ----------------------------------------------------------------

    def granted(self, number: int, extents: list[Any]) -> None:
        """The node grants extents.

        Raises:
            ProtocolError: when one is not in the store, or is this process's already.
        """
        self._keep_bytes = self._share_bytes
        request = self._requests.get(number)
        with self._lock:
            granted = _checked(extents, self._capacity)
            if len({start for start, _ in granted}) < len(granted) or any(
                self._cache.has(*e) for e in granted
            ):
                raise ProtocolError("the node grants a part of the store twice")
            self._cache.add(granted)
            if request is not None and request.waiter is not None:
                request.extent = self._cache.take(request.room)
        self._answered(number)
        self._trim_later()

    def refused(self, number: int, size: int, capacity: int, taken: int, largest: int, disk: str) -> None:
        """The node has no room."""
        sizes = (
            f"no room for {size} bytes: {taken} of the object store's {capacity} bytes are taken, and the "
            f"longest free piece has {largest}"
        )
        if disk:
            self._answered(number, OutOfDiskError(f"{sizes}; nothing more can be spilled: {disk}"))
            return
        advice = "drop references that are not needed, or give init a larger object_store_memory"
        self._answered(number, ObjectStoreFullError(f"{sizes}; {advice}"))

    def _answered(self, number: int, error: ObjectStoreFullError | OutOfDiskError | None = None) -> None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.error = error
            waiter = request.waiter
            if waiter is not None:
                waiter.notify(None)  # type: ignore[arg-type]

    def fail(self) -> None:
        """The session has ended: whoever waits for memory hears of it."""
        for number in list(self._requests):
            self._answered(number)


def _checked(extents: Iterable[Any], capacity: int) -> list[Extent]:
    checked = []
    for extent in extents:
        if type(extent) is not list or [type(number) for number in extent] != [int, int]:
            raise ProtocolError("an extent is a place and a length")
        start, room = extent
        if start < 0 or room <= 0 or start + room > capacity:
            raise ProtocolError(f"{room} bytes from {start} on are no part of a store of {capacity} bytes")
        checked.append((start, room))
    return checked
