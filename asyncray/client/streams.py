"""Streams that this process reads: from the producer's batches to one reference an item.

Items arrive on the loop and are appended to the stream's deque; a reader takes them from there in its own
thread, without a lock and without a hop. Only who finds the deque empty waits, and only every so many items
the producer is told how far the reader is.

The end of a stream is the end of its task: of the record that `completed` refers to. All items stand in the
deque before that record is done.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError, TaskCancelledError
from ..generators import ObjectRefGenerator
from ..refs import ObjectRef
from ..state.objects import FAILED, PENDING, READY, ObjectRecord
from ..state.streams import LARGE_BYTES, NO_MORE, WITHOUT_END, Inflow
from ..state.tasks import DONE
from ..wire import messages as m
from ..wire.items import Items
from ..wire.stored import Stored
from .waiting import Bell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..state.tasks import Descriptor, Task
    from .arguments import Arguments, Dependency
    from .recalling import ItemSpec
    from .session import Session
    from .terms import Terms
    from .worker_links import WorkerLink


#: Among a task's extras: see Stream.forsake.
FORSAKEN: Final = "forsaken"


class Failure:
    """The payload of what a generator raised, as the last item of its stream."""

    __slots__ = ("payload",)

    def __init__(self, payload: Any) -> None:
        self.payload = payload


class Stream:
    """One stream of this process. It stands where a reference has its record, for ``wait``.

    Args:
        session: The session that reads it.
        bound: Items that may be unread; 0 is without end.
        soft: Whether the bound is the default, which is lifted for who waits for the end.
    """

    __slots__ = (
        "_ended", "_numbers", "_owned", "_session", "_unread", "flow", "home", "owner", "record", "spec",
        "waiters",
    )  # fmt: skip

    def __init__(self, session: Session, bound: int, *, soft: bool) -> None:
        self.owner = session.references
        self._session = session
        #: As of a record whose object is here: nothing of it is ever fetched.
        self.home = None
        self.flow = Inflow(bound, soft=soft)
        #: The record of the producing task's end; set with the task.
        self.record: ObjectRecord = None  # type: ignore[assignment]
        #: Who waits for the next item; told once, and forgotten.
        self.waiters: list[Any] = []
        #: Whether nothing more is handed out: it was closed, or the failure was taken.
        self._ended = False
        #: How to make its items again; None while it has had none in the store.
        self.spec: ItemSpec | None = None
        self._unread = self.flow.unread
        self._numbers = session.owner.numbers
        self._owned = session.owner.objects.owned

    # --- reading, in any thread -----------------------------------------------------------------------------

    @property
    def state(self) -> int:
        """Not PENDING iff the next item is there, or the end."""
        return READY if self._unread else self.record.state

    def take(self) -> ObjectRef[Any] | None:
        """The next item if it is there. This is what each item costs."""
        unread, flow = self._unread, self.flow
        try:
            payload = unread.popleft()
        except IndexError:
            return None
        if flow.discards:
            return None  # closed in this moment: items before this one may be gone
        number = next(self._numbers)
        record = ObjectRecord(self.owner, number)
        record.state = READY
        if type(payload) is Failure:
            record.state = FAILED
            payload = payload.payload
        record.value = payload
        record.local = 1
        self._owned[number] = record
        if type(payload) is Stored and self.spec is not None:
            self._session.owner.remaking.took_item(self.spec, number, payload)
        if flow.received - len(unread) >= flow.tell_at:
            self.tell()
        return ObjectRef(record)

    def next_blocking(self, end: ObjectRef[Any]) -> ObjectRef[Any]:
        """The next item, parking until it is there; *end* when that is a failure.

        Raises:
            RuntimeError: when this would block a running event loop.
            StopIteration: after the last.
        """
        waits = self._session.waits
        while (ref := self._take_or_end(end, StopIteration)) is None:
            waits.check_may_block("`async for`")
            bell = Bell()
            if self._add_waiter(bell):
                try:
                    waits.park(bell.gate, None, self._waited_for)
                finally:
                    self._remove_waiter(bell)
        return ref

    async def next_async(self, end: ObjectRef[Any]) -> ObjectRef[Any]:
        """The next item, awaiting it; *end* when that is a failure.

        Raises:
            StopAsyncIteration: after the last.
        """
        waits = self._session.waits
        while (ref := self._take_or_end(end, StopAsyncIteration)) is None:
            bell = waits.new_loop_bell()
            if self._add_waiter(bell):
                try:
                    await waits.suspend(bell.future, self._waited_for)
                finally:
                    self._remove_waiter(bell)
        return ref

    def _take_or_end(self, end: ObjectRef[Any], stop: type[Exception]) -> ObjectRef[Any] | None:
        """The next item or, when that is a failure, *end*; None while neither is there."""
        done = self.record.state != PENDING
        # In this order: all items stand there before the record is done.
        ref = self.take()
        if ref is not None:
            return ref
        if not done and not self._ended:
            self.tell()
            return None
        with self._session.owner.lock:
            if self._ended or self.record.state != FAILED:
                raise stop
            self._ended = True
            return end

    def _waited_for(self) -> tuple[Sequence[ObjectRecord], int]:
        """What who waits for the next item waits for: the producer."""
        return [self.record], 1

    def is_ready(self) -> bool:
        """Whether the next item is there."""
        return bool(self._unread) or (self.record.state == FAILED and not self._ended)

    def is_finished(self) -> bool:
        """Whether there is no next item."""
        return self._ended or (self.record.state != PENDING and not self.is_ready())

    def _add_waiter(self, waiter: Any) -> bool:
        owner = self._session.owner
        with owner.lock:
            if self.state or self._ended or not owner.add_waiter(self.record, waiter):
                return False
            self.waiters.append(waiter)
            return True

    def _remove_waiter(self, waiter: Any) -> None:
        owner = self._session.owner
        with owner.lock:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            owner.remove_waiter([self.record], waiter)

    # --- the producer ---------------------------------------------------------------------------------------

    def arrive(self, first: int, payloads: Sequence[Any], digest: int, *, large: bool = False) -> None:
        """Items have come. The owner's lock is held; waiters hear of it afterwards."""
        if large and not self.flow.discards:
            self._session.owner.remaking.keep_items(self, first, payloads)
        self.flow.arrive(first, payloads, digest, large=large)
        notices = self._session.notices
        if self.waiters:
            notices.append((self, self.waiters))  # type: ignore[arg-type]
            self.waiters = []
        if self._session.owner.watchers:
            notices.append((self, self._session.owner.watchers[:]))  # type: ignore[arg-type]

    def fail(self, payload: Any) -> None:
        """The generator raised: that is its last item. The owner's lock is held."""
        self.arrive(self.flow.received, [Failure(payload)], self.flow.digest)

    def extras(self, others: dict[str, Any] | None) -> dict[str, Any] | None:
        """What a worker must know to produce it from here on; *others* are its task's other extras.

        The owner's lock is held.
        """
        position = self.flow.position()
        if position is not None:
            others = {**(others or {}), "stream": position}
        return {**(others or {}), FORSAKEN: True} if self.flow.forsaken else others

    def tell(self) -> None:
        """Tell the producer how far the reader is, if that is of use to it. From any thread."""
        if self.flow.read < self.flow.tell_at:
            return
        with self._session.owner.lock:
            read = self.flow.due()
            link = None if read is None else self._push_credit(read)
        if link is not None:
            link.flush()

    def _push_credit(self, read: int) -> WorkerLink | None:
        """Push it to the worker that has the task; one that gets the task later is told with it."""
        task: Task | None = self.record.task
        if task is None or task.state == DONE or task.lease is None or task.lease.link is None:
            return None
        link: WorkerLink = task.lease.link
        link.connection.push([m.CREDIT, task.number, read])
        return link

    def lift(self) -> None:
        """Let the producer run to its end, if the bound is only the default."""
        with self._session.owner.lock:
            link = self._push_credit(WITHOUT_END) if self.flow.lift() else None
        if link is not None:
            link.flush()

    def forsake(self) -> None:
        """Nobody who could read is left: let the producer end, but do not let it pause for ever."""
        with self._session.owner.lock:
            self.flow.forsaken = True
            link = self._push_credit(NO_MORE)
        if link is not None:
            link.flush()

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the producer; free what was not read. From any thread, and on any loop."""
        self._discard(ended=True)
        if self.record.state == PENDING:
            self._session.cancel_record(self.record, force=False, recursive=True)

    def _discard(self, *, ended: bool) -> None:
        with self._session.owner.lock:
            self._ended = self._ended or ended
            dropped = self.flow.discard()
            if self.spec is not None:
                self.spec.unread.clear()
            told, self.waiters = self.waiters, []
        del dropped  # outside the lock: it may run destructors
        for waiter in told:
            waiter.notify(self)

    def abandon(self) -> None:
        """Close soon. From a destructor: it appends, and wakes, and nothing else."""
        if self.record.state != PENDING and not self._unread:
            return
        self._session.streams.abandoned.append(self)
        if not self.owner.drain_due:
            self.owner.on_dropped()

    def after_abandon(self) -> None:
        """Nobody will read: stop the producer, unless somebody waits for its end. On the loop."""
        record = self.record
        if record.local or record.borrowers:
            self._discard(ended=False)
            self.tell()
        else:
            self.close()


def left_unread(task: Task) -> TaskCancelledError:
    """The failure of a producer that had to pause when nobody could read any more."""
    return TaskCancelledError(
        f"the generator {task.descriptor.name!r} was stopped: it paused with so many items unread after the "
        "task group, or the call in one, to which it belongs was over, so that nobody was left to read on; "
        "read it inside the group, close it there, or give it more room by max_unread"
    )


class Streams:
    """The streams of one session: what arrives for them, and those that were dropped."""

    def __init__(self, session: Session) -> None:
        self._session = session
        #: Streams whose generators were destroyed, not yet closed.
        self.abandoned: deque[Stream] = deque()

    def submit(
        self,
        descriptor: Descriptor,
        arguments: Arguments,
        dependencies: list[Dependency] | None,
        parent: int | None,
        terms: Terms | None,
        light: Any = None,
    ) -> ObjectRefGenerator[Any]:
        """Call a generator function; see Owner.submit."""
        assert descriptor.stream is not None
        bound, soft = descriptor.stream
        stream = Stream(self._session, bound, soft=soft)
        (ref,) = self._session.owner.submit(descriptor, arguments, dependencies, parent, terms, stream, light)
        return ObjectRefGenerator(stream, ref)

    def close_abandoned(self) -> None:
        """Close the streams whose generators were destroyed. On the loop."""
        while self.abandoned:
            self.abandoned.popleft().after_abandon()

    def on_items(self, link: WorkerLink, fields: Sequence[Any], buffers: Sequence[memoryview]) -> None:
        """A worker has sent items. On the loop.

        Raises:
            ProtocolError: when they are not the next ones of a stream that it produces.
        """
        number, first, payloads, pin, digest = fields
        items = Items(payloads, buffers, self._session.store.owns_from(link.connection.peer))
        large = items.has_any_of(LARGE_BYTES)
        session = self._session
        lease = link.lease
        with session.owner.lock:
            task = None if lease is None else lease.in_flight.get(number)
            wanted = task is not None and task.state != DONE
            if wanted and task.stream is None:  # type: ignore[union-attr]
                raise ProtocolError(f"task {number} is no stream, and items came for it")
            if items.holding:
                # Also for a stream that nobody wants any more: the worker waits to hear that it may let go.
                rows = [(pin, payload, addresses) for payload, addresses in items.holding]
                session.peers.borrowing.adopt_results(link.connection.peer, rows)
            if wanted:
                task.stream.arrive(first, items.payloads, digest, large=large)  # type: ignore[union-attr]
        if wanted:
            task.stream.tell()  # type: ignore[union-attr]
        session.deliver()
