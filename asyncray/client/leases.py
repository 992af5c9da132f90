"""Leases: how this process's ready tasks reach workers, and what happens when one is lost.

    pump(class) -> assign (pure) -> frames to workers; what is left over is demanded from the node

The node grants the lease of a worker; from then on the owner and the worker talk directly. A lease that
has nothing to do is kept for a while, because the next call of a loop then costs no grant, and is given
back at once when the node says that somebody waits (WANTED).

Rule 1: messages to a worker are pushed under the owner's lock, so that a descriptor always goes before the
        tasks that use it; they are flushed after the lock is let go.
Rule 2: a lost worker is what the node says it is (LOST); a broken connection alone only leads to asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import (
    OutOfMemoryError,
    ProtocolError,
    RaySystemError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ..state.objects import READY
from ..state.pipeline import Lease, SchedulingClass, measured
from ..state.tasks import DONE, Descriptor, Task, Verdict, after_worker_death
from ..wire import messages as m
from ..wire.handshake import TASK, Identity
from ..wire.values import BufferFeed, Encoded, from_wire, to_wire
from .arguments import arguments_to_wire

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from ..config import Config
    from ..net.connection import Connection
    from ..refs import RefAddress
    from ..wire.frames import Buffer, Message
    from .session import Session


class WorkerLink:
    """The connection over which this owner sends tasks to one worker, lease after lease."""

    __slots__ = ("connection", "described", "lease")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: Numbers of the descriptors that the worker knows.
        self.described: set[int] = set()
        #: The lease in force; None between two.
        self.lease: Lease | None = None

    def flush(self) -> None:
        """Send what was pushed."""
        self.connection.flush()


class Leases:
    """All leases of one owner. Methods need the owner's lock unless they say otherwise."""

    def __init__(self, session: Session, config: Config) -> None:
        self._session = session
        self._owner = session.owner
        self._config = config
        self._groups: dict[Hashable, SchedulingClass] = {}
        self._by_number: list[SchedulingClass] = []
        self._leases: dict[int, Lease] = {}
        self._links: dict[bytes, WorkerLink] = {}
        #: Somebody waits for resources: idle leases go back at once.
        self._wanted = False
        self._watching = False
        self._sweeping = False

    def group(
        self, key: Hashable, description: list[Any], *, concurrent: bool, depth: int
    ) -> SchedulingClass:
        """The scheduling class of *key*, made at its first use."""
        group = self._groups.get(key)
        if group is None:
            config = self._config
            number = len(self._by_number)
            group = SchedulingClass(number, key, description, config.pipeline_target_s, depth)
            group.concurrent = concurrent
            self._groups[key] = group
            self._by_number.append(group)
        return group

    # --- sending ------------------------------------------------------------------------------------------

    def pump(self, group: SchedulingClass) -> list[WorkerLink | Connection]:
        """Send what can be sent, demand what is missing; returns what must be flushed after the lock."""
        links: list[WorkerLink | Connection] = []
        for lease, tasks in group.assign():
            self._push_tasks(lease, tasks)
            links.append(lease.link)
        if self._update_demand(group):
            links.append(self._session.control)
            if group.queue:
                self._make_room(group)
        return links

    def _make_room(self, needy: SchedulingClass) -> None:
        """Give back what other classes of this owner keep idle; the control connection is flushed anyway."""
        for lease in list(self._leases.values()):
            if lease.group is not needy and lease.idle_since is not None and not lease.in_flight:
                self._give_back(lease)

    def _push_tasks(self, lease: Lease, tasks: list[Task]) -> None:
        link: WorkerLink = lease.link
        lease.idle_since = None
        buffers: list[Buffer] = []
        rows = []
        for task in tasks:
            descriptor = task.descriptor
            if descriptor.number not in link.described:
                link.described.add(descriptor.number)
                link.connection.push(_describe(descriptor))
            rows.append(self._row(task, buffers))
        link.connection.push([m.TASKS, rows], buffers)
        if not self._watching and len(lease.in_flight) > 1 and not lease.group.concurrent:
            self._watching = True
            self._session.call_soon(self._watch_later)

    def _row(self, task: Task, buffers: list[Buffer]) -> list[Any]:
        dependencies = task.dependencies
        arguments = arguments_to_wire(task.arguments, buffers)
        if dependencies is None:
            return [task.number, task.descriptor.number, arguments, None]
        places = [[place, self._dependency(ref._record, buffers)] for place, ref in dependencies]
        return [task.number, task.descriptor.number, arguments, places]

    def _dependency(self, record: Any, buffers: list[Buffer]) -> Any:
        """A small value goes along; a large one is named, and the worker fetches it from its owner."""
        value = record.value
        small = type(value) is not Encoded or value.size_bytes <= self._config.inline_limit_bytes
        if record.state == READY and small:
            return to_wire(value, buffers)
        return [self._session.address(record)]

    def _update_demand(self, group: SchedulingClass) -> bool:
        """Tell the node how many more leases are of use, when that has changed enough to matter."""
        want, told = group.demand(), group.demanded
        if want == told or (told and want and want <= 2 * told and told <= 2 * want):
            return False
        group.demanded = want
        description, group.description = group.description, None
        name = group.queue[0].descriptor.name if group.queue else ""
        self._session.control.push([m.WANT, group.number, description, want, name])
        return True

    # --- messages from the node (on the loop, without the lock) --------------------------------------------

    def granted(self, group_number: int, number: int, address: str, process_id: bytes, pid: int) -> None:
        """The node lends a worker."""
        with self._owner.lock:
            if group_number >= len(self._by_number):
                raise ProtocolError(f"a lease was granted for class {group_number}, which does not exist")
            group = self._by_number[group_number]
            group.demanded = max(0, group.demanded - 1)
            lease = Lease(number, group, None)
            self._leases[number] = lease
        link = self._link(Identity(process_id, address, pid))
        if link is None:
            # The worker died in the meantime. The node will say so; nothing was sent.
            lease.closing = True
            return
        with self._owner.lock:
            lease.link = link
            link.lease = lease
            group.leases[number] = lease
            links = self.pump(group)
            links += self._rest(lease)
        _flush(links)

    def _link(self, worker: Identity) -> WorkerLink | None:
        process_id = worker.process_id
        link = self._links.get(process_id)
        if link is not None and not link.connection.closed:
            return link
        try:
            connection = self._session.network.connect(worker.address, TASK)
        except ConnectionError:
            return None
        connection.peer = worker
        link = WorkerLink(connection)
        connection.on_message = lambda _, message, buffers: self._on_worker_message(link, message, buffers)
        connection.on_close = lambda _, error: self._on_link_closed(process_id, link)
        self._links[process_id] = link
        self._session.start_connection(connection)
        return link

    def wanted(self, waiting: bool) -> None:
        """Somebody waits for resources, or nobody does any more."""
        links: list[WorkerLink | Connection] = []
        with self._owner.lock:
            self._wanted = waiting
            if waiting:
                for lease in list(self._leases.values()):
                    links += self._rest(lease)
        _flush(links)

    def denied(self, group_number: int, reason: str) -> None:
        """The node will never grant what a class asks for: its queued tasks fail."""
        with self._owner.lock:
            group = self._by_number[group_number]
            group.demanded = 0
            error = RuntimeEnvSetupError if reason.startswith("runtime_env") else TaskUnschedulableError
            for task in group.empty():
                self._owner.fail(task, error(f"the task {task.descriptor.name!r} cannot run: {reason}"))
        self._session.deliver()

    def lost(self, number: int, kind: str, explanation: str) -> None:
        """A leased worker died."""
        lease = self._leases.get(number)
        if lease is None:
            return
        lease.lost = (kind, explanation)
        if lease.link is not None and not lease.link.connection.closed:
            # Results that it had sent before it died are results.
            lease.link.connection.drain()
        with self._owner.lock:
            self._forget(lease)
            tasks = list(lease.in_flight.values())
            lease.in_flight.clear()
            self._after_loss(lease, tasks, kind, explanation)
            links = self.pump(lease.group)
        _flush(links)
        self._session.deliver()

    def _after_loss(self, lease: Lease, tasks: list[Task], kind: str, explanation: str) -> None:
        """Decide about what the lost worker had.

        It runs tasks in the order sent and reports before it begins one that may not run twice, so only
        the first unanswered task can have been running: it alone pays with a retry. Coroutines share the
        worker, so that all of them pay.
        """
        again: list[Task] = []
        for position, task in enumerate(tasks):
            if task.state == DONE:
                continue
            innocent = position > 0 and not lease.group.concurrent
            if innocent or after_worker_death(task) is Verdict.RETRY:
                task.attempt += 0 if innocent else 1
                again.append(task)
            else:
                self._owner.fail(task, _crash(task, kind, explanation))
        lease.group.take_back(again)

    # --- messages from workers (on the loop, without the lock) ----------------------------------------------

    def _on_worker_message(self, link: WorkerLink, message: Message, buffers: list[memoryview]) -> None:
        kind = message[0]
        if kind == m.RESULTS:
            self._on_results(link, message[1], message[2], buffers)
        elif kind == m.HANDBACK:
            self._on_handback(link, message[1], message[2])
        else:
            raise ProtocolError(f"a worker does not send message number {kind}")

    def _on_results(
        self, link: WorkerLink, rows: list[Any], busy_s: float, buffers: Sequence[memoryview]
    ) -> None:
        lease = link.lease
        if lease is None:
            return
        m.check_rows("RESULTS", rows, 3)
        results = _Results(BufferFeed(buffers), rows)
        with self._owner.lock:
            first = lease.in_flight.get(rows[0][0]) if rows else None
            if first is not None:
                first.descriptor.average_s = measured(first.descriptor.average_s, busy_s / len(rows))
            if results.holding:
                self._session.peers.adopt_results(link.connection.peer, results.holding)
            retry = self._owner.results(lease, rows)
            if retry:
                self._owner.retry(retry)
            lease.progress += len(rows)
            lease.blocked = False
            links = self.pump(lease.group)
            if not lease.in_flight:
                links += self._rest(lease)
        _flush(links)
        self._session.deliver()

    def _on_handback(self, link: WorkerLink, numbers: list[Any], reason: int) -> None:
        """A worker gives back tasks that it has not started."""
        m.check_numbers("HANDBACK", numbers)
        lease = link.lease
        if lease is None:
            return
        with self._owner.lock:
            lease.recalling = False
            lease.closing = lease.closing or reason == m.LEAVING
            # Until it makes progress, what would be sent would only have to come back.
            lease.blocked = bool(lease.in_flight)
            tasks = [lease.in_flight.pop(number) for number in numbers if number in lease.in_flight]
            lease.group.take_back(task for task in tasks if task.state != DONE)
            links = self.pump(lease.group)
            if not lease.in_flight:
                lease.blocked = False
                links += self._rest(lease)
        _flush(links)

    def _on_link_closed(self, process_id: bytes, link: WorkerLink) -> None:
        """A worker's connection broke. If the worker lives, it is of no use to us any more: end it."""
        if self._links.get(process_id) is link:
            del self._links[process_id]
        lease = link.lease
        if lease is None or lease.lost is not None:
            return
        with self._owner.lock:
            lease.closing = True
        self._session.control.send([m.KILL, lease.number, 0])

    def connections(self) -> list[Connection]:
        """Every connection to a worker."""
        return [link.connection for link in self._links.values()]

    def close(self) -> None:
        """Close the connections to workers. On the loop, without the lock."""
        for link in list(self._links.values()):
            link.connection.on_close = lambda connection, error: None
            link.connection.close()
        self._links.clear()

    # --- idle leases --------------------------------------------------------------------------------------

    def _rest(self, lease: Lease) -> list[WorkerLink | Connection]:
        """A lease has nothing to do: give it back, or keep it for a while. Returns what to flush."""
        if lease.in_flight or lease.closing or lease.link is None:
            return []
        if self._wanted or lease.group.queue:
            return self._give_back(lease)
        lease.idle_since = self._session.clock()
        if not self._sweeping:
            self._sweeping = True
            self._session.loop.call_later(self._config.lease_keep_s, self._sweep)
        return []

    def _give_back(self, lease: Lease) -> list[WorkerLink | Connection]:
        self._forget(lease)
        self._session.control.push([m.RETURN, lease.number])
        return [self._session.control]

    def _forget(self, lease: Lease) -> None:
        lease.closing = True
        self._leases.pop(lease.number, None)
        lease.group.leases.pop(lease.number, None)
        if lease.link is not None and lease.link.lease is lease:
            lease.link.lease = None

    def _sweep(self) -> None:
        """Give back what has been idle for long. On the loop."""
        keep_s = self._config.lease_keep_s
        links: list[WorkerLink | Connection] = []
        with self._owner.lock:
            now = self._session.clock()
            idle = [lease for lease in self._leases.values() if lease.idle_since is not None]
            for lease in idle:
                if now - (lease.idle_since or now) >= keep_s:
                    links += self._give_back(lease)
            left = [lease.idle_since or now for lease in idle if not lease.closing]
            self._sweeping = bool(left)
            if left:
                self._session.loop.call_later(max(0.0, min(left) + keep_s - now), self._sweep)
        _flush(links)

    # --- watching for workers that stand still --------------------------------------------------------------

    def _watch_later(self) -> None:
        self._session.loop.call_later(self._config.recall_after_s, self._watch)

    def _watch(self) -> None:
        """Recall the queue behind a task that has kept its worker busy since the last look. On the loop."""
        stuck = []
        with self._owner.lock:
            watched = [
                lease
                for lease in self._leases.values()
                if len(lease.in_flight) > 1 and not lease.group.concurrent and not lease.closing
            ]
            for lease in watched:
                if lease.suspect == lease.progress and not lease.recalling:
                    lease.recalling = True
                    stuck.append(lease.link)
                lease.suspect = lease.progress
            self._watching = bool(watched)
            if watched:
                self._watch_later()
        for link in stuck:
            self._session.peers.send_to(link.connection.peer, [m.RECALL])

    # --- cancelling (without the lock) ----------------------------------------------------------------------

    def cancel(self, task: Task, *, force: bool, recursive: bool) -> None:
        """Tell the worker that has *task* to stop it. On the loop."""
        lease = task.lease
        if lease is None or task.number not in lease.in_flight or lease.link is None:
            return
        message = [m.CANCEL, task.number, force, recursive]
        self._session.peers.send_to(lease.link.connection.peer, message)
        if force:
            # The worker gives back what it has not started and ends itself; the node sees to it that it does.
            self._session.control.send([m.KILL, lease.number, self._config.cancel_grace_s])


class _Results:
    """Turns the rows of RESULTS into payloads, in place."""

    def __init__(self, feed: BufferFeed, rows: list[Any]) -> None:
        self._feed = feed
        #: Payloads with references inside: (task number, payload, addresses).
        self.holding: list[tuple[int, Encoded, list[RefAddress]]] = []
        for row in rows:
            if row[1] == m.MANY:
                row[2] = [self._one(row[0], item) for item in _as_list(row[2])]
            elif type(row[2]) not in _PLAIN:
                row[2] = self._one(row[0], row[2])

    def _one(self, number: int, field: Any) -> Any:
        payload, addresses = from_wire(field, self._feed)
        if addresses:
            self.holding.append((number, payload, addresses))  # type: ignore[arg-type]
        return payload


_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def _as_list(payload: Any) -> list[Any]:
    if type(payload) is not list:
        raise ProtocolError("several returns must come as a list")
    return payload


def _describe(descriptor: Descriptor) -> Message:
    return [m.DESCRIBE, descriptor.number, descriptor.function_id, descriptor.blob, descriptor.options]


def _crash(task: Task, kind: str, explanation: str) -> RaySystemError | WorkerCrashedError | OutOfMemoryError:
    if kind == "memory":
        return OutOfMemoryError(f"the task {task.descriptor.name!r} was killed: {explanation}")
    runs = f" after {task.attempt + 1} attempts" if task.attempt else ""
    return WorkerCrashedError(
        f"the worker that ran the task {task.descriptor.name!r} died{runs}: {explanation}"
    )


def _flush(links: Sequence[WorkerLink | Connection]) -> None:
    for link in links:
        link.flush()
