"""References: what an ObjectRef asks of the session it belongs to, and what its end leaves behind.

Every record of a session has this as its owner (refs.RefOwner): where its object lives, what has come of it,
how to wait for it.

Rule 1: destructors run in any thread, inside any lock. They append, and wake the loop, and nothing else;
        what they have appended is accounted for here (on_wake), and by calls that find some.
Rule 2: a reference that has left the process comes back as the very same object.
"""

from __future__ import annotations

import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

from ..exceptions import ObjectFreedError, ObjectLostError, SessionClosedError, TaskCancelledError
from ..ids import object_binary
from ..refs import ObjectRef, RefAddress, RefRecord, RemadeError, intern
from ..state.objects import FAILED, FREED, READY, ObjectRecord
from ..validation import check_timeout
from ..wire.stored import Stored
from ..wire.values import SCALARS, Payload, decode
from .errors import decode_error, encode_error, of_the_past
from .spilling import Spilled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from .session import Session

#: Seconds after which destroyed references are accounted for while there are many of them.
_DRAIN_AFTER_S = 0.02


class References:
    """The references of one process's session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.clock = session.clock
        #: Records whose references were destroyed, not yet accounted for.
        self.dropped: deque[Any] = deque()
        #: Whether the loop looks at what was dropped soon, so that a drop need not wake it.
        self.drain_due = False
        #: Whether the session was shut down: its references are of no use any more.
        self.closed = False
        self._sweeping_up = False
        #: References pickled where nobody counts them.
        self._pinned: list[ObjectRef[Any]] = []

    def forget(self) -> None:
        """Let go of what was pickled where nobody counts it."""
        self._pinned.clear()

    def check_open(self) -> None:
        """Raise when the session was shut down; references of one whose node has died can still be asked.

        Raises:
            SessionClosedError: after shutdown.
        """
        if self.closed:
            raise SessionClosedError(
                "the session was shut down, and this reference with it: sessions do not share objects"
            )

    # --- where objects live -----------------------------------------------------------------------------

    def address(self, record: RefRecord) -> RefAddress:
        """Where a record's object lives."""
        home: RefAddress | None = record.home  # type: ignore[attr-defined]
        if home is not None:
            return home
        return (self.session.identity.process_id, self.session.identity.address, record.number)

    def address_of(self, ref: ObjectRef[Any]) -> RefAddress:
        if self.closed:
            raise of_the_past(ref)
        record = ref._record
        if record.weak is None:
            # When the reference comes back, it must be this very object.
            intern(ref)
        return self.address(record)

    def restore_ref(self, address: RefAddress) -> ObjectRef[Any]:
        """This process's reference to an object, wherever it lives.

        Raises:
            SessionClosedError: when the object belongs to an earlier session of this process.
        """
        with self.session.owner.lock:
            if address[0] != self.session.identity.process_id:
                return self.session.owner.borrow(address)
            record = self.session.owner.objects.owned.get(address[2])
            if record is None:
                return self._freed(address[2])
            return self.session.owner.ref_to(record)

    def _freed(self, number: int) -> ObjectRef[Any]:
        record = ObjectRecord(self, number)
        record.state = FAILED
        record.value = encode_error(ObjectFreedError("the object was freed before this reference came back"))
        self.session.owner.objects.owned[number] = record
        return self.session.owner.ref_to(record)

    def binary(self, record: RefRecord) -> bytes:
        process_id, _, number = self.address(record)
        return object_binary(process_id, number)

    def task_binary(self, record: RefRecord) -> bytes:
        task = record.task  # type: ignore[attr-defined]
        process_id, _, number = self.address(record)
        return object_binary(
            process_id, self.session.owner.remaking.number_of(task) if task is not None else number
        )

    def pin_out_of_band(self, ref: ObjectRef[Any]) -> RefAddress:
        if not self._pinned:
            warnings.warn(
                "an ObjectRef was pickled by other means than a call, a put or a return value: nobody counts "
                "that copy, so its object is kept until the end of the session",
                stacklevel=3,
            )
        self._pinned.append(ref)
        return self.address_of(ref)

    def pinned(self) -> int:
        """How many references were pickled where nobody counts them."""
        return len(self._pinned)

    # --- outcomes ---------------------------------------------------------------------------------------

    def load(self, record: RefRecord) -> Any:
        state, payload = record.state, record.value  # type: ignore[attr-defined]
        if state == READY:
            self.check_open()
            if type(payload) is Spilled:
                payload = self._restored(record, payload)  # type: ignore[arg-type]
            if type(payload) is Stored:
                return self.session.store.load(payload, self._ref_to_borrowed(record))  # type: ignore[arg-type]
            return decode(payload)
        if state == FAILED:
            raise decode_error(payload)
        if state == FREED:
            raise ObjectFreedError("the object was freed with this reference, which has come back to life")
        # It was there when the caller looked, and another thread has found that it is lost.
        raise RemadeError

    def _restored(self, record: ObjectRecord, spilled: Spilled) -> Payload:
        """What was on disk.

        Raises:
            ObjectLostError: when it cannot be read, nor waited for.
            RemadeError: when it cannot be read.
        """
        assert self.session.store.spilling is not None
        try:
            return self.session.store.spilling.restore(record, spilled)
        except ObjectLostError as error:
            if not self.session.owner.remaking.lost(record, spilled, str(error)):
                raise
        raise RemadeError

    def load_all(self, records: Sequence[RefRecord]) -> list[Any]:
        self.check_open()
        load = self.load
        # What cannot change is its own payload.
        return [
            record.value if record.state == READY and type(record.value) in SCALARS else load(record)  # type: ignore[attr-defined]
            for record in records
        ]

    def _ref_to_borrowed(self, record: ObjectRecord) -> ObjectRef[Any] | None:
        """What keeps a borrowed object alive at its owner; an owned one's payload needs no such thing."""
        if record.home is None:
            return None
        with self.session.owner.lock:
            return self.session.owner.ref_to(record)

    def failure_of(self, record: RefRecord) -> BaseException | None:
        return decode_error(record.value) if record.state == FAILED else None  # type: ignore[attr-defined]

    def was_cancelled(self, record: RefRecord) -> bool:
        return record.state == FAILED and isinstance(self.failure_of(record), TaskCancelledError)

    # --- waiting ----------------------------------------------------------------------------------------

    def poll(self, record: RefRecord) -> None:
        self.session.fetch([record])  # type: ignore[list-item]

    def wait_blocking(self, record: RefRecord, timeout: float | None) -> None:
        check_timeout(timeout)
        self.session.waits.wait_all([record], timeout, "`await ref`")  # type: ignore[list-item]

    async def wait_async(self, record: RefRecord) -> None:
        await self.session.waits.wait_all_async([record])  # type: ignore[list-item]

    def add_callback(
        self, record: RefRecord, key: object, callback: Callable[[], object], context: Context | None
    ) -> None:
        self.session.waits.add_callback(record, key, callback, context)  # type: ignore[arg-type]

    def add_direct_callback(self, record: RefRecord, key: object, callback: Callable[[], object]) -> None:
        self.session.waits.add_direct_callback(record, key, callback)  # type: ignore[arg-type]

    def remove_callback(self, record: RefRecord, key: object) -> int:
        return self.session.waits.remove_callback(record, key)  # type: ignore[arg-type]

    # --- the ends of references -------------------------------------------------------------------------

    def on_wake(self) -> None:
        """References were destroyed, or destructors made calls. On the loop."""
        self.session.owner.submit_put_off()
        self.session.owner.drain_dropped()
        self.session.store.drain()
        ended = self.session.descriptors.take_ended()
        self.session.leases.links.forget(ended)
        self.session.hints.forget(ended)
        self.session.streams.close_abandoned()
        self.session.check_needed()
        if not self._sweeping_up:
            self._sweeping_up = self.drain_due = True
            self.session.loop.call_later(_DRAIN_AFTER_S, self._drain_again)

    def _drain_again(self) -> None:
        # Cleared before the look: a reference that is dropped in between wakes the loop again.
        self._sweeping_up = self.drain_due = False
        more = self.dropped or self.session.descriptors.ended or self.session.streams.abandoned
        if more or self.session.store.unaccounted:
            self.on_wake()

    def on_dropped(self) -> None:
        if self.session.failure is None:
            # Set first: whoever finds it set has its record in the deque before this wakes the loop.
            self.drain_due = True
            self.session.wake()
