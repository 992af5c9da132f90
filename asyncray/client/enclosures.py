"""Enclosures: calls that must not outlive the block, or the call, in which they were made.

    with enclosed(enclosure): f.remote()    # the call belongs to the enclosure
    enclosure.cancel()                      # its references fail at once, its workers are told to stop
    await enclosure.wait_async()            # nothing of it runs any more, anywhere

A task is under way from its submission until it has really ended: until its worker has answered or died,
not only until its reference has failed. A call that belongs to an enclosure is told so (WHOLE, in its
extras), and the worker that runs it keeps an enclosure for what it calls in turn: it answers once that has
ended, too. So the end of a call means the end of everything below it.

Rule 1: `ended` of a task is said under the owner's lock, once, by Task.release.
Rule 2: who waits is woken by the end of the session, too: its workers end with it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..state.objects import PENDING
from ..state.tasks import DONE
from .destructors import interrupts_us
from .waiting import Bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..state.objects import ObjectRecord
    from ..state.tasks import Task
    from .session import Session

#: What the calls of the running code belong to.
enclosing: Final[ContextVar[Enclosure | None]] = ContextVar("asyncray_enclosure", default=None)
#: Among a task's extras: it ends when all that it has called for has ended.
WHOLE: Final = "whole"


class Enclosure:
    """Calls that end together.

    Args:
        outer: What encloses this one; its calls belong there, too.
    """

    __slots__ = ("_closed", "_foreign", "_outer", "_session", "_streaming", "_under_way", "_waiters")

    def __init__(self, outer: Enclosure | None = None) -> None:
        #: Whose calls they are; None before the first. A block may be older than the session inside it.
        self._session: Session | None = None
        self._outer = outer
        #: Tasks that have not really ended, by number; cancelled ones of other processes by their record.
        self._under_way: dict[Any, Task | None] = {}
        #: Who is told when there is none of them left.
        self._waiters: list[Any] = []
        #: Borrowed records whose tasks, in other processes, belong here.
        self._foreign: dict[ObjectRecord, None] = {}
        #: Those of its own calls that make streams.
        self._streaming: dict[Any, Task] = {}
        self._closed = False

    def adopt_new(self, session: Session, task: Task) -> None:
        """A task of *session* that is about to be submitted belongs here."""
        enclosure: Enclosure | None = self
        while enclosure is not None:
            if enclosure._take(session, task, made=True):
                task.extras = {**(task.extras or {}), WHOLE: True}
            enclosure = enclosure._outer

    def adopt(self, session: Session, record: ObjectRecord) -> None:
        """The task that makes an object belongs here from now on, if it is under way.

        One of another process is cancelled with the others; only then its end is waited for here.
        """
        with session.owner.lock:
            if record.home is not None:
                self._begin(session)
                self._foreign[record] = None
                return
            task = record.task
            if task is not None and (task.state != DONE or _is_at_its_worker(task)):
                self._take(session, task)

    def _take(self, session: Session, task: Task, *, made: bool = False) -> bool:
        """Count a task in, *made* iff it was called for here; False when this is closed, or another's."""
        with session.owner.lock:
            if self._closed or not self._begin(session):
                return False
            if task.number not in self._under_way:
                self._under_way[task.number] = task
                task.enclosures = [*(task.enclosures or ()), self]
            if made and task.stream is not None:
                self._streaming[task.number] = task
            return True

    def _begin(self, session: Session) -> bool:
        """Whether calls of *session* may belong here: it is the first one, or the one before has ended."""
        if self._session is None or self._session.failure is not None:
            self._under_way.clear()
            self._streaming.clear()
            self._session = session
        return self._session is session

    def ended(self, task: Task) -> None:
        """A task has really ended. The lock is held."""
        self._forget(task.number)

    def _forget(self, key: Any) -> None:
        self._under_way.pop(key, None)
        self._streaming.pop(key, None)
        if not self._under_way:
            self._wake()

    def give_up(self) -> None:
        """The session has ended: nothing will be heard of any task. The lock is held."""
        self._under_way.clear()
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        assert self._session is not None
        self._session.owner.enclosures.pop(self, None)
        for waiter in waiters:
            waiter.notify(None)

    def is_empty(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def close(self) -> None:
        """Take no more tasks: those that come are their caller's own business, or the outer enclosure's."""
        self._closed = True

    def cancel(self) -> None:
        """Cancel everything under way, with all it has called for. From any thread."""
        session = self._session
        if session is None:
            return
        if interrupts_us():
            # A waiter may be in the middle of being told: nobody can be told from here.
            session.call_soon(self.cancel)
            return
        with session.owner.lock:
            foreign = [record for record in self._foreign if record.state == PENDING]
            self._foreign.clear()
            self._under_way.update(dict.fromkeys(foreign))
            tasks = [task for task in self._under_way.values() if task is not None and task.state != DONE]
            for task in tasks:
                session.owner.cancel(task, force=False)
        for record in foreign:
            session.cancel_record(record, force=False, recursive=True)
            then = partial(self._foreign_ended, session, record)
            session.call_soon(session.peers.when_ended, record, then)
        if tasks:
            session.call_soon(_tell_workers, session, tasks)
            session.deliver()

    def forsake_streams(self) -> None:
        """Nobody is left to read the streams of these calls: their producers may end, but not pause."""
        session = self._session
        if session is None or not self._streaming:
            return
        with session.owner.lock:
            streams = [task.stream for task in self._streaming.values() if task.state != DONE]
        for stream in streams:
            stream.forsake()

    def _foreign_ended(self, session: Session, record: ObjectRecord) -> None:
        with session.owner.lock:
            self._forget(record)

    async def wait_async(self) -> None:
        """Wait on the running loop until nothing is under way."""
        while (session := self._session) is not None and self._under_way:
            waiter = session.waits.new_loop_bell()
            if self._register(session, waiter):
                try:
                    await session.waits.suspend(waiter.future, self._waited_for)
                finally:
                    self._unregister(session, waiter)

    def wait(self) -> None:
        """Park the calling thread until nothing is under way."""
        while (session := self._session) is not None and self._under_way:
            bell = Bell()
            if self._register(session, bell):
                try:
                    session.waits.park(bell.gate, None, self._waited_for)
                finally:
                    self._unregister(session, bell)

    def _waited_for(self) -> tuple[list[ObjectRecord], int]:
        """What who waits for the end waits for. Tasks that are being stopped end soon, and do not count."""
        tasks = list(self._under_way.values())
        records = [task.records[0] for task in tasks if task is not None and task.records]
        return records, len(records)

    def when_empty(self, then: Callable[[], None]) -> None:
        """Call *then* once nothing is under way, which may be now; it may be called under the lock."""
        if self._session is None or not self._register(self._session, _Then(then)):
            then()

    def _register(self, session: Session, waiter: Any) -> bool:
        owner = session.owner
        with owner.lock:
            if session.failure is not None:
                self._under_way.clear()
            if not self._under_way:
                return False
            self._waiters.append(waiter)
            owner.enclosures[self] = None
            return True

    def _unregister(self, session: Session, waiter: Any) -> None:
        owner = session.owner
        with owner.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if not self._waiters:
                owner.enclosures.pop(self, None)


class _Then:
    """Calls a function when it is told."""

    __slots__ = ("_then",)

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def notify(self, record: ObjectRecord | None) -> None:
        self._then()


@contextmanager
def enclosed(enclosure: Enclosure) -> Iterator[None]:
    """Calls made in the block belong to *enclosure*."""
    token = enclosing.set(enclosure)
    try:
        yield
    finally:
        enclosing.reset(token)


def _tell_workers(session: Session, tasks: list[Task]) -> None:
    for task in tasks:
        session.leases.cancel(task, force=False, recursive=True)


def _is_at_its_worker(task: Task) -> bool:
    return task.lease is not None and task.lease.in_flight.get(task.number) is task
