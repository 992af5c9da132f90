"""The owner: this process's objects and tasks, from the call to the value.

Everything here that touches the tables holds ``lock``, which is never held while user code runs (pickling,
callbacks, destructors) and never while a socket is written. Decisions are made by the pure machines in
``state``; what follows from them is collected and done after the lock is let go.

The lock is re-entrant only so that a destructor, which the garbage collector may run in the middle of a
guarded section, cannot deadlock: such a call is put off to the loop (see :meth:`Owner.submit`).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError, TaskCancelledError
from ..refs import ObjectRef, RefAddress, intern
from ..state.objects import FAILED, PENDING, READY, ObjectRecord, ObjectTable, Released
from ..state.tasks import (
    ARGUMENTS_READY,
    CANCELLED,
    DONE,
    FINISHED,
    QUEUED,
    RETRIED,
    WAITING,
    Descriptor,
    Task,
    Verdict,
    after_error,
    step,
)
from ..wire.messages import CANCELLED as CANCELLED_THERE
from ..wire.messages import ERROR_RETRY, MANY, OK
from ..wire.stored import Stored
from .callsites import CallSites
from .deadlines import Deadlines, expired
from .enclosures import enclosing
from .errors import encode_error
from .remaking import Remaking
from .streams import left_unread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..wire.values import Payload
    from .arguments import Arguments, Dependency
    from .enclosures import Enclosure
    from .leases import Leases
    from .priorities import Priorities
    from .session import Session
    from .terms import Terms

#: Calls that may gather while every worker is busy before a caller's thread sends some itself.
_BATCH = 32
#: Destroyed references that a call leaves to later ones, or to the loop, which looks soon: ten cost hardly
#: more than one.
_DROPPED = 16


class Owner:
    """The tables of one process, and what happens to them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.lock = threading.RLock()
        self.objects = ObjectTable()
        #: Set by the session, which makes both.
        self.leases: Leases = None  # type: ignore[assignment]
        self.priorities: Priorities = None  # type: ignore[assignment]
        #: Records whose ObjectRef was destroyed, not yet accounted for.
        self.dropped = session.references.dropped
        self._references = session.references
        #: Calls made while this thread held the lock (by a destructor); the loop submits them.
        self._put_off: deque[Task] = deque()
        self.numbers = itertools.count(1)
        #: Which line of the program made each object; None while that is not remembered.
        self.sites = CallSites(self.objects) if session.config.record_call_sites else None
        #: Unfinished tasks that return nothing, and so have no record.
        self.unreturned: dict[int, Task] = {}
        #: Waiters that want to know of every completion (see Session.wait).
        self.watchers: list[Any] = []
        self.deadlines = Deadlines(session)
        #: What was lost, and how to make it again.
        self.remaking = Remaking(session, self)
        #: Enclosures that somebody waits for.
        self.enclosures: dict[Enclosure, None] = {}

    # --- making objects and tasks -------------------------------------------------------------------------

    def put(self, payload: Payload) -> ObjectRef[Any]:
        """A new object with its value."""
        if self.dropped:
            self.drain_dropped()
        record = ObjectRecord(self._references, next(self.numbers))
        record.value = payload
        record.state = READY
        record.local = 1
        self.objects.owned[record.number] = record
        if self.sites is not None:
            self.sites.note(record.number)
        return ObjectRef(record)

    def submit(
        self,
        descriptor: Descriptor,
        arguments: Arguments,
        dependencies: list[Dependency] | None,
        parent: int | None,
        terms: Terms | None = None,
        stream: Any = None,
        light: Any = None,
    ) -> list[ObjectRef[Any]]:
        """Make a task; it is sent as soon as its arguments are there and a worker has room."""
        if self.dropped and self.session.store.held:
            # The call is to find the pages of results that are done with.
            self.drain_dropped()
        returns = descriptor.returns
        task = Task(next(self.numbers), descriptor, arguments)
        task.parent = parent
        task.terms = terms
        task.stream = stream
        if light is not None:
            light._ray_begin(task)
        if (enclosure := enclosing.get()) is not None:
            enclosure.adopt_new(self.session, task)
        refs = self._make_records(task, returns)
        if self.sites is not None:
            self.sites.note(task.number)
        if dependencies is not None:
            task.dependencies = dependencies
            task.state = WAITING
        if self.lock._is_owned():  # type: ignore[attr-defined]
            self._put_off.append(task)
            self.session.wake()
            return refs
        with self.lock:
            self.session.check_alive()
            links = self.enter(task)
        for link in links:
            link.flush()
        if len(self.dropped) >= _DROPPED:  # now, while a worker is at it
            self.drain_dropped()
        return refs

    def _admit(self, task: Task, terms: Terms) -> bool:
        """Begin what a call is subject to; False when it has failed by that. The lock is held."""
        if terms.scope is not None and not terms.scope.joined(self.session, task):
            self.fail(task, cancelled(task))
        elif terms.deadline is not None and not self.deadlines.watch(task, terms):
            self.fail(task, expired(task))
        else:
            return True
        self.session.call_soon(self.session.deliver)
        return False

    def new_number(self) -> int:
        """A number that no object or task of this process has."""
        return next(self.numbers)

    def enter(self, task: Task) -> Sequence[Any]:
        """Begin what a task is subject to, and queue it or wait for its arguments; the lock is held.

        Returns:
            The links to flush.
        """
        if task.terms is not None and not self._admit(task, task.terms):
            return ()
        if task.dependencies is None:
            return self._enqueue(task)
        task.state = WAITING
        self._await_dependencies(task, task.dependencies)
        return ()

    def _make_records(self, task: Task, returns: int) -> list[ObjectRef[Any]]:
        owned = self.objects.owned
        records = []
        if returns == 1 and task.stream is None:  # almost all
            record = owned[task.number] = ObjectRecord(self._references, task.number)
            record.task = task
            record.local = 1
            task.records = (record,)
            return [ObjectRef(record)]
        for index in range(returns):
            # The first return has the task's own number.
            record = ObjectRecord(self._references, next(self.numbers) if index else task.number)
            record.task = task
            record.local = 1
            owned[record.number] = record
            records.append(record)
        task.records = tuple(records)
        if not records:
            self.unreturned[task.number] = task
        elif task.stream is not None:
            task.stream.record = records[0]
        return [ObjectRef(record) for record in records]

    def _enqueue(self, task: Task) -> Sequence[Any]:
        """Queue a ready task; return the links to flush. The lock is held."""
        group = task.descriptor.group
        if (self.priorities.used or task.descriptor.priority) and not group.actor:
            self.priorities.enqueue(task)
        else:
            group.queue.append(task)
        if group.has_idle_lease() or len(group.queue) % _BATCH == 0:
            return self.leases.pump(group)
        self.session.pump_later(group)
        return ()

    def submit_put_off(self) -> None:
        """Submit what destructors called for while the lock was held. On the loop."""
        links: list[Any] = []
        with self.lock:
            while self._put_off:
                task = self._put_off.popleft()
                if task.state == DONE:  # failed together with everything else
                    continue
                if self.session.failure is not None:
                    self.fail(task, self.session.failure)
                else:
                    links += self.enter(task)
        for link in links:
            link.flush()

    # --- dependencies -------------------------------------------------------------------------------------

    def _await_dependencies(self, task: Task, dependencies: list[Dependency]) -> None:
        """Count the arguments that are missing; the last to come queues the task. The lock is held."""
        if task.descriptor.group.ordered:
            task.descriptor.group.queue.append(task)
        records: list[Any] = [ref._record for _, ref in dependencies]
        missing: list[ObjectRecord] = list(dict.fromkeys([r for r in records if r.state == PENDING]))
        task.missing = len(missing)
        if not missing:
            self._dependencies_done(task)
            return
        waiter = _DependencyWaiter(self, task)
        for record in missing:
            self.add_waiter(record, waiter)
        self.session.fetch(missing)

    def dependency_done(self, task: Task) -> None:
        """One missing argument has come."""
        with self.lock:
            task.missing -= 1
            if task.missing == 0 and task.state == WAITING:
                self._dependencies_done(task)

    def _dependencies_done(self, task: Task) -> None:
        group = task.descriptor.group
        failed = first_failed(task)
        if failed is not None:
            self.finish(task, FAILED, [failed.value] * len(task.records))
            if group.ordered:  # those that have waited behind it
                self.session.pump_later(group)
            return
        step(task, ARGUMENTS_READY)
        if (self.priorities.used or task.descriptor.priority) and not group.actor:
            self.priorities.enqueue(task)
        elif not group.ordered:
            group.queue.append(task)
        self.session.pump_later(group)

    # --- waiters ------------------------------------------------------------------------------------------

    def add_waiter(self, record: ObjectRecord, waiter: Any) -> bool:
        """Register *waiter*; False when the record's outcome is here already. The lock is held."""
        if record.state > 0:
            return False
        if record.waiters is None:
            record.waiters = []
        record.waiters.append(waiter)
        return True

    def remove_waiter(self, records: Iterable[ObjectRecord], waiter: Any) -> None:
        """Forget a waiter; nothing happens where it was told already."""
        with self.lock:
            for record in records:
                waiters = record.waiters
                if waiters is not None and waiter in waiters:
                    waiters.remove(waiter)
                    record.waiters = waiters or None

    # --- ends of tasks ------------------------------------------------------------------------------------

    def finish(self, task: Task, state: int, payloads: Sequence[Any], event: int = FINISHED) -> None:
        """Give a task's records their values and end it. The lock is held; waiters hear of it afterwards."""
        step(task, event)
        if self.remaking.running:
            self.remaking.ended(task, state, payloads)
        if not task.records:
            del self.unreturned[task.number]
        watched = bool(self.watchers)
        for record, payload in zip(task.records, payloads, strict=True):
            if watched or not record.local:
                self._complete(record, state, payload)
                continue
            record.value = payload
            record.state = state
            record.task = None
            if record.waiters:
                self.session.notices.append((record, record.waiters))
                record.waiters = None
        task.records = ()
        if task.lease is None or event != CANCELLED:
            # Whatever the task kept alive goes now; not while its worker may still be running it.
            task.release()

    def complete(self, record: ObjectRecord, state: int, payload: Any) -> None:
        """A record that no task of ours makes (a borrowed one) is done. The lock is held."""
        self._complete(record, state, payload)

    def _complete(self, record: ObjectRecord, state: int, payload: Any) -> None:
        record.value = payload
        record.state = state
        record.task = None
        if record.waiters:
            self.session.notices.append((record, record.waiters))
            record.waiters = None
        if self.watchers:
            self.session.notices.append((record, self.watchers[:]))
        if not record.local and record.home is None:
            self.objects.finished(record, Released())

    def results(self, lease: Any, rows: Iterable[tuple[int, int, Any]]) -> list[Task]:
        """Results came from a worker. The lock is held.

        Returns:
            Tasks that must run again.

        Raises:
            ProtocolError: when a task has another number of returns; it and those after it stay in flight.
        """
        retry: list[Task] = []
        in_flight = lease.in_flight
        for number, status, payload in rows:
            task = in_flight.get(number)
            if task is None:
                continue  # repeated
            if status != OK or len(task.records) != 1:
                _check_fits(task, status, payload)
            del in_flight[number]
            if task.state == DONE:
                task.release()
                continue  # cancelled in the meantime
            task.lease = None
            if status == OK and type(payload) is not Stored:
                self.finish(task, READY, [payload])
            elif status in (OK, MANY):
                values = [payload] if status == OK else payload
                if Stored in map(type, values):
                    self.remaking.keep(task, values)
                self.finish(task, READY, values)
            elif self._ends_badly(task, status, payload):
                task.attempt += 1
                retry.append(task)
        return retry

    def _ends_badly(self, task: Task, status: int, payload: Any) -> bool:
        """A worker reports no value. The lock is held; returns whether the task must run again."""
        if status == CANCELLED_THERE:
            forsaken = task.stream is not None and task.stream.flow.forsaken
            self.fail(task, left_unread(task) if forsaken else cancelled(task))
        elif after_error(task, retriable=status == ERROR_RETRY) is Verdict.RETRY:
            return True
        elif task.stream is not None:
            task.stream.fail(payload)
            self.finish(task, READY, [None])
        else:
            self.finish(task, FAILED, [payload] * len(task.records))
        return False

    def fail(self, task: Task, error: BaseException, event: int = FINISHED) -> None:
        """End a task with an error of our own. The lock is held."""
        self.finish(task, FAILED, [encode_error(error)] * len(task.records), event)

    def retry(self, tasks: Iterable[Task]) -> None:
        """Queue tasks again after a failure. The lock is held."""
        for task in tasks:
            task.descriptor.group.take_back([task], RETRIED)

    def fail_everything(self, error: BaseException) -> None:
        """The node is gone: nothing of this session can end any more. The lock is held."""
        for task in list(self.unreturned.values()):
            self.fail(task, error)
        for record in [*self.objects.owned.values(), *self.objects.borrowed.values()]:
            if record.state > 0:
                continue
            if record.task is not None and record.task.state != DONE:
                self.fail(record.task, error)
            else:
                self.complete(record, FAILED, encode_error(error))
        for enclosure in list(self.enclosures):
            enclosure.give_up()

    def abandon(self, error: BaseException) -> None:
        """This process is a fork: what is pending stays so for ever, and who held the lock is gone."""
        self.lock = threading.RLock()
        with self.lock:
            self.fail_everything(error)
        self.session.notices.clear()

    # --- cancelling ---------------------------------------------------------------------------------------

    def cancel(self, task: Task, *, force: bool) -> bool:
        """Cancel a task; False when there is nothing to stop. The lock is held.

        Its references fail at once. A task that was sent keeps its place in flight until its worker answers,
        and can be cancelled again, by force, as long as a reference to it is left.
        """
        if task.state == DONE:
            return force
        self.stop(task, cancelled(task))
        return True

    def stop(self, task: Task, error: BaseException) -> None:
        """End an unfinished task with *error*; its worker is to be told (Leases.cancel). The lock is held."""
        if task.state == QUEUED or task.descriptor.group.ordered:
            # It is left in its queue: the next pass drops it, and wants a worker less.
            task.descriptor.group.dead += 1
            self.session.pump_later(task.descriptor.group)
        task.cancelled = True
        records = task.records
        self.fail(task, error, CANCELLED)
        if task.lease is not None:
            for each in records:
                each.task = task

    def children(self, parent: int) -> list[Task]:
        """The unfinished tasks that call *parent* made. The lock is held."""
        # Copies: see ObjectTable.held_by_others.
        made = {r.task: None for r in list(self.objects.owned.values()) if r.state == PENDING and r.task}
        return [task for task in [*made, *list(self.unreturned.values())] if task.parent == parent]

    # --- references ---------------------------------------------------------------------------------------

    def drain_dropped(self) -> None:
        """Account for references that were destroyed."""
        dropped = self.dropped
        # A destructor that interrupted a guarded section must not change the tables: the loop will.
        if self.lock._is_owned():  # type: ignore[attr-defined]
            return
        # A value that is freed may hold references itself, which are dropped with it.
        while dropped:
            released = Released()
            with self.lock:
                self.objects.drop_all(dropped, released)
            if released.notices:
                self.session.release(released.notices)
            released.garbage.clear()
        # Freed values may have lain in the store, and the next one is to find their pages.
        self.session.store.drain()

    def ref_to(self, record: ObjectRecord) -> ObjectRef[Any]:
        """The one ObjectRef of this process for *record*. The lock is held."""
        ref = record.weak() if record.weak is not None else None
        if ref is None:
            ref = ObjectRef(record)
            record.local += 1
            intern(ref)
        return ref

    def borrow(self, address: RefAddress) -> ObjectRef[Any]:
        """The reference to an object of another process. The lock is held."""
        key = (address[0], address[2])
        record = self.objects.borrowed.get(key)
        if record is None:
            record = ObjectRecord(self._references, address[2])
            record.home = address
            self.objects.borrowed[key] = record
        return self.ref_to(record)

    def unfinished(self) -> bool:
        """Whether tasks of ours are under way."""
        return bool(self.unreturned) or any(r.state == PENDING for r in list(self.objects.owned.values()))


def cancelled(task: Task) -> TaskCancelledError:
    """The failure of a task that was cancelled."""
    return TaskCancelledError(f"the task {task.descriptor.name!r} was cancelled")


def first_failed(task: Task) -> ObjectRecord | None:
    """The first of a task's arguments whose own task failed."""
    states = [ref._record.state for _, ref in task.dependencies or ()]
    if FAILED not in states:
        return None
    assert task.dependencies is not None
    return task.dependencies[states.index(FAILED)][1]._record  # type: ignore[return-value]


def _check_fits(task: Task, status: int, payload: Any) -> None:
    """Refuse a good result for another number of returns: one comes alone, none or several as a list."""
    if status not in (OK, MANY) or task.state == DONE:
        return
    count, told = len(task.records), 1 if status == OK else len(payload)
    if told != count or (status == MANY) == (count == 1):
        raise ProtocolError(f"task {task.number} has {count} returns, not the {told} of its result")


class _DependencyWaiter:
    """Counts a task's missing arguments down."""

    __slots__ = ("_owner", "_task")

    def __init__(self, owner: Owner, task: Task) -> None:
        self._owner = owner
        self._task = task

    def notify(self, record: ObjectRecord) -> None:
        self._owner.dependency_done(self._task)
