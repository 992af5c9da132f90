"""ObjectRef: the future-like name of a value that may not exist yet.

A reference points at its process's record of the object; all behaviour that needs a runtime is reached
through that record's owner (the RefOwner protocol), so this file depends on nothing above it.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections import deque
    from collections.abc import Callable, Generator, Sequence
    from contextvars import Context

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

#: Where a reference lives: its owner's process id, the owner's address, the object's number there.
RefAddress = tuple[bytes, str, int]


class RemadeError(Exception):
    """The value was there, and is lost: it is being made again, or cannot be. Wait once more, and look."""


class RefOwner(Protocol):
    """What a reference needs from the session that its record belongs to."""

    #: Records whose references were destroyed, once for each.
    dropped: deque[RefRecord]
    #: Whether the deque will be looked at soon without being told.
    drain_due: bool
    #: Seconds.
    clock: Callable[[], float]
    #: The session itself, for rooms further up.
    session: Any

    def on_dropped(self) -> None:
        """A record was added to the deque, and nobody has said that it would be looked at."""

    def check_open(self) -> None:
        """Raise when the session was shut down."""

    def poll(self, record: RefRecord) -> None:
        """Somebody looks at a pending record: if it lives elsewhere, ask for its outcome."""

    def load(self, record: RefRecord) -> Any:
        """The value of a finished record; raises what the task raised, and RemadeError."""

    def load_all(self, records: Sequence[RefRecord]) -> list[Any]:
        """As load, for many."""

    def failure_of(self, record: RefRecord) -> BaseException | None:
        """What a finished record's task raised, or None."""

    def was_cancelled(self, record: RefRecord) -> bool:
        """Whether a finished record's task was cancelled."""

    async def wait_async(self, record: RefRecord) -> None:
        """Wait on the running loop until the record's outcome is here."""

    def wait_blocking(self, record: RefRecord, timeout: float | None) -> None:
        """Park the calling thread until the record's outcome is here."""

    def add_callback(
        self, record: RefRecord, key: object, callback: Callable[[], object], context: Context | None
    ) -> None:
        """Call *callback* once when the record is done, on the loop that is running now."""

    def add_direct_callback(self, record: RefRecord, key: object, callback: Callable[[], object]) -> None:
        """Call *callback* once when the record is done, in the thread that completes it."""

    def remove_callback(self, record: RefRecord, key: object) -> int:
        """Forget the callbacks under *key*; return how many there were."""

    def address_of(self, ref: ObjectRef[Any]) -> RefAddress:
        """Where the reference's object lives; the reference is about to leave the process."""

    def binary(self, record: RefRecord) -> bytes:
        """The 28 bytes of the record's object id."""

    def task_binary(self, record: RefRecord) -> bytes:
        """The bytes of the id of the task that makes the object (of the object itself for a put)."""

    def pin_out_of_band(self, ref: ObjectRef[Any]) -> RefAddress:
        """A reference is pickled where nobody counts it: keep its object for the session's life."""


class RefRecord(Protocol):
    """What a reference needs from its record."""

    owner: RefOwner
    state: int
    number: int
    #: The way back to the reference; None while it cannot come back, because it was never sent anywhere.
    weak: weakref.ref[ObjectRef[Any]] | None


class ObjectRef(Generic[T_co]):
    """A reference to a value in the object store: the result of a call or of ``put``.

    It behaves like a future without being one: it can be awaited any number of times, from any event loop
    and any thread, and passed to ``asyncio.wait``, ``gather``, ``as_completed``, ``shield``, ``wait_for``
    and ``timeout``. Cancelling an awaiter detaches that awaiter and nothing else; ``asyncray.cancel``
    cancels the work. The value lives as long as a reference to it does, in any process.
    """

    __slots__ = ("__weakref__", "_record")

    def __init__(self, record: RefRecord) -> None:
        self._record = record

    def __del__(self) -> None:
        # Runs in any thread, inside any lock, at interpreter exit: it appends, and wakes, and nothing else.
        try:
            record = self._record
        except AttributeError:
            return
        if record.weak is not None:
            # While this method runs, another thread may get hold of the reference through `weak`, and this
            # method would never run again. The end of the weak reference cannot be undone: that is counted.
            return
        owner = record.owner
        owner.dropped.append(record)
        if not owner.drain_due:
            owner.on_dropped()

    def __await__(self) -> Generator[Any, None, T_co]:
        record = self._record
        while True:
            if record.state <= 0:
                yield from record.owner.wait_async(record).__await__()
            try:
                return record.owner.load(record)  # type: ignore[no-any-return]
            except RemadeError:
                continue

    def done(self) -> bool:
        """Whether the value, or the failure, is there."""
        record = self._record
        if not record.state:
            record.owner.poll(record)
        return record_done(record)

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return record_done(self._record) and self._record.owner.was_cancelled(self._record)

    def result(self, timeout: float | None = None) -> T_co:
        """The value, waiting up to *timeout* seconds for it (None: as long as it takes).

        On a running event loop only a finished reference has a result; await the reference instead.

        Raises:
            GetTimeoutError: when the time is over; the work goes on.
            RayTaskError: when the task raised; it is an instance of what the task raised, too.
            RuntimeError: when this would block a running event loop.
        """
        return value_of(self._record, timeout)  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None, waiting up to *timeout* seconds for its end.

        Raises:
            GetTimeoutError: when the time is over.
            RuntimeError: when this would block a running event loop.
        """
        record = self._record
        if not record_done(record):
            record.owner.wait_blocking(record, timeout)
        return record.owner.failure_of(record)

    def add_done_callback(
        self, fn: Callable[[ObjectRef[T_co]], object], *, context: Context | None = None
    ) -> None:
        """Call ``fn(ref)`` when the reference is done, on the event loop that is running now.

        Without a running loop, *fn* is called by the thread that completes the reference, or at once when it
        is done already. A loop that has been closed by then is skipped. What *fn* raises goes to its loop's
        exception handler, or to the log.

        Args:
            fn: A function of one argument, the reference.
            context: What *fn* runs in; None is a copy of the caller's.
        """
        # No function of ours stands between: the user's is called where an interrupt may be raised.
        self._record.owner.add_callback(self._record, fn, functools.partial(fn, self), context)

    def remove_done_callback(self, fn: Callable[[ObjectRef[T_co]], object]) -> int:
        """Remove every registration of *fn*; return how many there were."""
        return self._record.owner.remove_callback(self._record, fn)

    def future(self) -> concurrent.futures.Future[T_co]:
        """A ``concurrent.futures.Future`` with this reference's value or failure; it needs no event loop.

        Cancelling it detaches it from the reference and nothing else.
        """
        import concurrent.futures

        record, owner = self._record, self._record.owner
        future: concurrent.futures.Future[T_co] = concurrent.futures.Future()
        key = object()

        def finish() -> None:
            if not future.running() and not future.set_running_or_notify_cancel():
                return
            error = self.exception()
            if error is not None:
                future.set_exception(error)
                return
            try:
                future.set_result(owner.load(record))
            except RemadeError:
                owner.add_direct_callback(record, key, finish)
            except BaseException as broken:  # noqa: BLE001 - a value that cannot be unpickled is its future's failure
                future.set_exception(broken)

        def detach(done: concurrent.futures.Future[T_co]) -> None:
            if done.cancelled() and owner.remove_callback(record, key):
                done.set_running_or_notify_cancel()

        owner.add_direct_callback(record, key, finish)
        future.add_done_callback(detach)
        return future

    def as_future(self) -> asyncio.Future[T_co]:
        """An ``asyncio.Future`` on the running loop with this reference's value or failure.

        Cancelling it detaches it from the reference and nothing else.

        Raises:
            RuntimeError: when no event loop is running.
        """
        import asyncio

        return asyncio.ensure_future(self, loop=asyncio.get_running_loop())

    def binary(self) -> bytes:
        """The object's id: 28 bytes."""
        return self._record.owner.binary(self._record)

    def hex(self) -> str:
        """The object's id in hexadecimal."""
        return self.binary().hex()

    def task_id(self) -> str:
        """The id of the task that makes the value, in hexadecimal."""
        return self._record.owner.task_binary(self._record).hex()

    def job_id(self) -> str:
        """The id of the process that owns the object, in hexadecimal."""
        return self.binary()[:16].hex()

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, self._record.owner.pin_out_of_band(self)

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: object) -> ObjectRef[T_co]:
        return self

    def __repr__(self) -> str:
        return f"ObjectRef({self.hex()})"


def intern(ref: ObjectRef[Any]) -> None:
    """Let a reference be found again through its record."""
    record = ref._record
    record.weak = weakref.ref(ref, functools.partial(_ended, record))


def _ended(record: RefRecord, weak: object) -> None:
    # As __del__. It uses no globals: those may be gone at interpreter exit.
    owner = record.owner
    owner.dropped.append(record)
    if not owner.drain_due:
        owner.on_dropped()


def value_of(record: RefRecord, timeout: float | None) -> Any:
    """The value of a record, waiting up to *timeout* seconds for it; raises what its task raised.

    Raises:
        GetTimeoutError: when the time is over.
        RuntimeError: when this would block a running event loop.
    """
    owner, left = record.owner, timeout
    begin = 0.0 if timeout is None else owner.clock()
    while True:
        if record.state <= 0:
            owner.wait_blocking(record, left)
        try:
            return owner.load(record)
        except RemadeError:
            left = None if timeout is None else max(0.0, begin + timeout - owner.clock())


def record_done(record: RefRecord) -> bool:
    """Whether a record has left its pending state (0); a negative one is done, with its value elsewhere."""
    return record.state != 0


def restore(process_id: bytes, address: str, number: int) -> ObjectRef[Any]:
    """The reference of this process to an object, wherever it lives; what a pickled reference calls.

    Raises:
        SessionClosedError: when this process has no open session.
    """
    from .exceptions import SessionClosedError
    from .process import current

    session = current().session
    if session is None:
        raise SessionClosedError("a reference can only be unpickled in a process with an open session")
    return session.references.restore_ref((process_id, address, number))
