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

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError, RaySystemError, RuntimeEnvSetupError, TaskUnschedulableError
from ..state.pipeline import Lease, SchedulingClass, measured
from ..state.tasks import DONE, Descriptor, Task, Verdict, after_worker_death
from ..wire import messages as m
from ..wire.handshake import Identity
from ..wire.values import BufferFeed
from .actor_calls import CALLERS_OWN, Creations
from .errors import crash_of
from .host_calls import HostCalls
from .results import Results
from .stopping import stop_at_worker
from .task_frame import TaskFrame
from .worker_links import WorkerLink, WorkerLinks, flush_all

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from ..config import Config
    from ..net.connection import Connection
    from ..wire.frames import Message
    from .session import Session

#: Seconds that a timer may come early: by the loop's resolution, and by how sums of times are rounded.
_EARLY_S: Final = 0.001
#: Seconds until a lease is asked for again whose worker could not be reached for want of descriptors.
_ASK_AGAIN_S: Final = 0.5


class Leases:
    """All leases of one owner. Methods need the owner's lock unless they say otherwise."""

    def __init__(self, session: Session, config: Config) -> None:
        self._session = session
        self._owner = session.owner
        self._config = config
        self._groups: dict[Hashable, SchedulingClass] = {}
        self._by_number: list[SchedulingClass] = []
        self._leases: dict[int, Lease] = {}
        self.links = WorkerLinks(session, self._on_worker_message, self._on_link_closed)
        #: Somebody waits for resources: idle leases go back at once.
        self._wanted = False
        self._watching = False
        self._sweeping = False
        #: The classes that ask again soon, because they could not reach a worker.
        self._unreached: set[SchedulingClass] = set()

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

    def classes(self) -> list[SchedulingClass]:
        """Every scheduling class, in the order of their numbers."""
        return self._by_number

    def creations(self, key: Hashable, description: list[Any], placed: Callable[..., None]) -> Creations:
        """The scheduling class of actors that need the same; *placed* gets each constructor and its lease."""
        group = self._groups.get(key)
        if group is None:
            group = Creations(len(self._by_number), key, description, placed)
            self._groups[key] = group
            self._by_number.append(group)
        return group  # type: ignore[return-value]

    # --- sending ------------------------------------------------------------------------------------------

    def pump(self, group: SchedulingClass) -> list[WorkerLink | Connection]:
        """Send what can be sent, demand what is missing; returns what must be flushed after the lock."""
        links: list[WorkerLink | Connection] = []
        yields = self._owner.priorities.used and self._owner.priorities.leaves_to_others(group)
        if yields:
            for lease in list(group.leases.values()):
                if not lease.in_flight and not lease.is_fresh() and not lease.closing:
                    links += self._give_back(lease)
        for lease, tasks in group.assign(fresh_only=yields):
            self._push_tasks(lease, tasks)
            links.append(lease.link)
        if not group.actor and self._update_demand(group):
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
        frame = TaskFrame(self._session)
        for task in tasks:
            descriptor = task.descriptor
            if descriptor.number not in link.described:
                link.described.add(descriptor.number)
                link.connection.push(_describe(descriptor))
            if frame.size_bytes > self._config.batch_bytes:
                link.connection.push([m.TASKS, frame.rows], frame.buffers)
                frame = TaskFrame(self._session)
            frame.add(task)
        link.connection.push([m.TASKS, frame.rows], frame.buffers)
        if not self._watching and len(lease.in_flight) > 1 and not lease.group.concurrent:
            self._watching = True
            self._session.call_soon(self._watch_later)

    def _update_demand(self, group: SchedulingClass) -> bool:
        """Tell the node how many more leases are of use, when that has changed enough to matter."""
        want, told = group.demand(), group.demanded
        rank = self._owner.priorities.news(group) if self._owner.priorities.used else None
        if rank is not None:
            self._session.control.push(rank)
        if want == told or (told and want and want <= 2 * told and told <= 2 * want):
            return rank is not None
        group.demanded = want
        description, group.description = group.description, None
        name = group.queue[0].descriptor.name if group.queue else ""
        self._session.control.push([m.WANT, group.number, description, want, name])
        return True

    # --- messages from the node (on the loop, without the lock) --------------------------------------------

    def granted(self, group_number: int, number: int, address: str, process_id: bytes, pid: int) -> None:
        """The node lends a worker."""
        with self._owner.lock:
            group = self._group_of(group_number)
            if number in self._leases:
                raise ProtocolError(f"lease {number} was granted twice")
            group.demanded = max(0, group.demanded - 1)
            lease = Lease(number, group, None)
            self._leases[number] = lease
        try:
            link = self.links.connect(Identity(process_id, address, pid))
        except OSError as error:
            self._unreachable(lease, error)
            return
        if link is None:
            # The worker died in the meantime. The node will say so; nothing was sent.
            lease.closing = True
            return
        with self._owner.lock:
            link.lend(lease)
            lease.link = link
            group.leases[number] = lease
            links = self.pump(group)
            links += self._rest(lease)
        flush_all(links)

    def _unreachable(self, lease: Lease, error: OSError) -> None:
        """This process cannot open a further connection: it goes on with the workers that it has, if any."""
        group = lease.group
        with self._owner.lock:
            links = self._give_back(lease)
            # As if it had not been granted: asked for again at once, it would only have to go back again.
            group.demanded += 1
            if not group.leases:
                for task in group.empty():
                    why = f"the task {task.descriptor.name!r} cannot be sent to a worker: {error}"
                    self._owner.fail(task, RaySystemError(why))
            elif group not in self._unreached:
                self._unreached.add(group)
                self._session.loop.call_later(_ASK_AGAIN_S, self._ask_again, group)
            links += self.pump(group)
        flush_all(links)
        self._session.deliver()

    def _ask_again(self, group: SchedulingClass) -> None:
        """There may be descriptors again, and what this class still had may be lost or busy for long."""
        if self._session.failure is not None:
            return
        with self._owner.lock:
            self._unreached.discard(group)
            group.demanded = 0
            links = self.pump(group)
        flush_all(links)

    def _group_of(self, number: int) -> SchedulingClass:
        if not 0 <= number < len(self._by_number):
            raise ProtocolError(f"the node speaks of class {number}, which does not exist")
        return self._by_number[number]

    def wanted(self, waiting: bool) -> None:
        """Somebody waits for resources, or nobody does any more."""
        links: list[WorkerLink | Connection] = []
        with self._owner.lock:
            self._wanted = waiting
            if waiting:
                for lease in list(self._leases.values()):
                    links += self._rest(lease)
        flush_all(links)

    def denied(self, group_number: int, reason: str) -> None:
        """The node will never grant what a class asks for: its queued tasks fail."""
        with self._owner.lock:
            group = self._group_of(group_number)
            group.demanded = 0
            error = RuntimeEnvSetupError if reason.startswith("runtime_env") else TaskUnschedulableError
            for task in group.empty():
                self._owner.fail(task, error(f"the task {task.descriptor.name!r} cannot run: {reason}"))
        self._session.deliver()

    def lost(self, number: int, kind: str, explanation: str, running: int) -> None:
        """A leased worker died; *running* is the number of the task it ran (0: none, -1: nobody knows)."""
        lease = self._leases.get(number)
        if lease is None:
            return
        lease.lost = (kind, explanation)
        if lease.link is not None and not lease.link.connection.closed:
            # Results that it had sent before it died are results.
            lease.link.connection.drain()
        if lease.group.actor:
            self._session.actors.lost(lease, kind, explanation)
            return
        if lease.link is not None:
            explanation += lease.link.broken
        with self._owner.lock:
            self._forget(lease)
            tasks = list(lease.in_flight.values())
            lease.in_flight.clear()
            if lease.link is not None and lease.link.broken and not running:
                # The first task may have broken it: were nobody guilty, it would break the next one, too.
                running = -1
            guilty = self._guilty(lease, tasks, running)
            self._after_loss(lease.group, tasks, guilty, (kind, explanation))
            links = self.pump(lease.group)
        flush_all(links)
        self._session.deliver()

    def _guilty(self, lease: Lease, tasks: list[Task], running: int) -> set[int]:
        """The numbers of the tasks that pay for their worker's death with a retry.

        It is the one that ran, alone: the quick ones before it, whose results were gathered and never sent,
        could as well run again, and those behind it had not started. Coroutines share the worker, so that
        all of them pay, unless it was killed for one of them: then the others run again for free, and only
        those that may not run twice fail. Where nobody knows what ran, it was the first: tasks run in the
        order sent.
        """
        if lease.group.concurrent:
            return {task.number for task in tasks if not lease.deaf or not task.retries}
        return {running} if running >= 0 else {task.number for task in tasks[:1]}

    def _after_loss(
        self, group: SchedulingClass, tasks: list[Task], guilty: set[int], how: tuple[str, str]
    ) -> None:
        """Decide about what a lost worker had."""
        again: list[Task] = []
        for task in tasks:
            if task.state == DONE or task.number not in guilty:
                again.append(task)
            elif after_worker_death(task) is Verdict.RETRY:
                task.attempt += 1
                again.append(task)
            else:
                self._owner.fail(task, crash_of(task, *how))
        group.take_back(again)

    # --- messages from workers (on the loop, without the lock) ----------------------------------------------

    def _on_worker_message(self, link: WorkerLink, message: Message, buffers: list[memoryview]) -> None:
        kind = message[0]
        if kind == m.RESULTS:
            self._on_results(link, message[1], message[2], buffers)
        elif kind == m.HANDBACK:
            self._on_handback(link, message[1], message[2])
        elif kind == m.ITEMS:
            self._session.streams.on_items(link, message[1:], buffers)
        elif kind == m.ACTOR_LEAVES:
            self._session.actors.on_leaves(link.lease, message[1])
        elif kind in (m.LIGHT_GONE, m.LIGHT_ENDED):
            self._session.lights.on_host_message(link.lease, message)
        else:
            raise ProtocolError(f"a worker does not send message number {kind}")

    def _on_results(
        self, link: WorkerLink, rows: list[Any], busy_s: float, buffers: Sequence[memoryview]
    ) -> None:
        m.check_rows("RESULTS", rows, 3)
        lease = link.lease
        if lease is None:
            return
        owns_from = self._session.store.owns_from
        results = Results(lambda: BufferFeed(buffers, owns_from(link.connection.peer)), rows)
        with self._owner.lock:
            first = lease.in_flight.get(rows[0][0]) if rows else None
            if first is not None:
                first.descriptor.average_s = measured(first.descriptor.average_s, busy_s / len(rows))
            if results.holding:
                self._session.peers.borrowing.adopt_results(link.connection.peer, results.holding)
            retry = self._owner.results(lease, rows)
            if retry:
                self._owner.retry(retry)
            lease.progress += len(rows)
            if lease.deaf:
                lease.deaf.intersection_update(lease.in_flight)
            lease.blocked = False
            links = self.pump(lease.group)
            if not lease.in_flight:
                links += self._rest(lease)
        if links:
            flush_all(links)
        self._session.deliver()
        self._session.check_needed()

    def _on_handback(self, link: WorkerLink, numbers: list[Any], reason: int) -> None:
        """A worker gives back tasks that it has not started."""
        m.check_numbers("HANDBACK", numbers)
        lease = link.lease
        if lease is None:
            return
        if isinstance(lease.group, HostCalls):
            raise ProtocolError("a host of light actors hands calls back, which nobody else could run")
        with self._owner.lock:
            lease.recalling = False
            lease.closing = lease.closing or reason == m.LEAVING
            # Until it makes progress, what would be sent would only have to come back.
            lease.blocked = bool(lease.in_flight)
            tasks = [lease.in_flight.pop(number) for number in numbers if number in lease.in_flight]
            lease.group.take_back(tasks)
            links = self.pump(lease.group)
            if not lease.in_flight:
                lease.blocked = False
                links += self._rest(lease)
        flush_all(links)

    def _on_link_closed(self, link: WorkerLink, error: Exception | None) -> None:
        """A worker's connection broke. If the worker lives, it is of no use to us any more: end it.

        Mostly it is dead, and the node is about to say how. The grace lets it.
        """
        # Results that came before what broke it are results.
        self._session.deliver()
        lease = link.lease
        if lease is None or lease.lost is not None:
            return
        with self._owner.lock:
            lease.closing = True
        if lease.number == CALLERS_OWN:
            self._session.actors.link_closed(lease)
            return
        grace_s = self._config.cancel_grace_s
        if isinstance(error, ProtocolError):
            link.broken = f" after its connection had broken ({error})"
            grace_s = 0.0
        self._session.loop.call_later(grace_s, self._end_unreachable, link)

    def _end_unreachable(self, link: WorkerLink) -> None:
        lease = link.lease  # none once the worker's end is told; a timer need not keep what it had
        if lease is not None and lease.lost is None:
            self._session.control.send([m.KILL, lease.number])

    def under_way(self) -> Iterator[Task]:
        """The tasks that were sent with the places of their arguments, and have not ended."""
        for lease in self._leases.values():
            if not lease.group.actor:
                yield from lease.in_flight.values()
        yield from self._session.actors.under_way()

    def close(self) -> None:
        """The session ends. On the loop, without the lock."""
        self.links.close()
        self._leases.clear()

    # --- idle leases --------------------------------------------------------------------------------------

    def _rest(self, lease: Lease) -> list[WorkerLink | Connection]:
        """A lease has nothing to do: give it back, or keep it for a while. Returns what to flush."""
        if lease.in_flight or lease.closing or lease.link is None or lease.group.actor:
            return []
        if self._wanted or lease.group.queue or self._others_wait(lease.group):
            return self._give_back(lease)
        lease.idle_since = self._session.clock()
        if not self._sweeping:
            self._sweeping = True
            self._session.loop.call_later(self._config.lease_keep_s, self._sweep)
        return []

    def _others_wait(self, group: SchedulingClass) -> bool:
        """Whether other classes of this owner have calls that no worker has room for."""
        return any(other.demand() for other in self._by_number if other is not group)

    def _give_back(self, lease: Lease) -> list[WorkerLink | Connection]:
        self._forget(lease)
        self._session.control.push([m.RETURN, lease.number])
        return [self._session.control]

    def forget_lease(self, lease: Lease) -> None:
        """An actor's worker is gone."""
        self._forget(lease)

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
            left_s: list[float] = []
            for lease in list(self._leases.values()):
                if lease.idle_since is None:
                    continue
                until_s = lease.idle_since + keep_s - now
                if until_s > _EARLY_S:
                    left_s.append(until_s)
                else:
                    links += self._give_back(lease)
            self._sweeping = bool(left_s)
            if left_s:
                self._session.loop.call_later(min(left_s), self._sweep)
        flush_all(links)

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
        """Tell the worker that has *task* to stop it, until it has answered. On the loop."""
        stop_at_worker(self._session, task, force=force, recursive=recursive)


def _describe(descriptor: Descriptor) -> Message:
    return [m.DESCRIBE, descriptor.number, descriptor.function_id, descriptor.blob, descriptor.options]
