"""A session: everything that one process needs to make calls, own objects and wait for them.

Drivers, workers and simulated processes all have the same session; what differs (which loop, which network,
how a thread waits, what a worker does when its task waits) is handed in.
"""

from __future__ import annotations

import logging
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..exceptions import (
    LocalRayletDiedError,
    ProtocolError,
    RaySystemError,
    SessionClosedError,
)
from ..state.objects import PENDING, ObjectRecord
from ..wire import messages as m
from ..wire.handshake import PEER, TASK, Identity
from ..wire.stored import Stored
from .actors import Actors
from .descriptors import Descriptors
from .destructors import interrupts_us
from .hints import LargeArguments
from .hosted import hosted_now
from .inquiries import Inquiries
from .leases import Leases
from .lights import Lights
from .owner import Owner
from .peers import Peers
from .priorities import Priorities
from .putting import draft_of, encode_call
from .questions import Questions
from .references import References
from .statistics import Statistics, statistics_of
from .store import Store
from .streams import Streams
from .terms import terms_of
from .waits import Waits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..net.connection import Connection
    from ..refs import ObjectRef, RefAddress
    from ..state.pipeline import SchedulingClass
    from ..state.tasks import Descriptor, Task
    from .surroundings import Surroundings, TaskScope

_log = logging.getLogger("asyncray")
#: Seconds after which destroyed references are accounted for while there are many of them.
_DRAIN_AFTER_S = 0.02


class Session:
    """One process's part in a session."""

    #: Set by a worker whose main thread reads what owners send: reads it now.
    read_tasks: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, surroundings: Surroundings, scope: TaskScope) -> None:
        self.config = surroundings.config
        self.loop = surroundings.loop
        self.network = surroundings.network
        self.control = surroundings.control
        self.identity = surroundings.identity
        self.wake = surroundings.wake
        self.clock = surroundings.clock
        self.environment = surroundings.environment
        self.namespace = surroundings.namespace
        self.spill_directory = surroundings.spill_directory
        self.scope = scope
        scope.clock = self.clock
        #: Waiters to be told, with the record that is done.
        self.notices: deque[tuple[ObjectRecord, Sequence[Any]]] = deque()
        self.references = References(self)
        self.owner = Owner(self)
        self.waits = Waits(self, surroundings.parker)
        self.leases = self.owner.leases = Leases(self, self.config)
        self.actors = Actors(self)
        self.lights = Lights(self)
        self.peers = Peers(self)
        self.store = Store(self, surroundings.arena, surroundings.parker)
        self.descriptors = Descriptors(self)
        self.streams = Streams(self)
        self.hints = LargeArguments(self.config)
        #: None while the session is open; then why it is not.
        self.failure: Exception | None = None
        #: Whether this process is a fork of the one that has the session.
        self.forked = False
        #: The current node's facts, from READY.
        self.facts: dict[str, Any] = {}
        #: Handlers of messages from the node that only a driver or only a worker gets.
        self.on_node_message: dict[int, Callable[..., None]] = {}
        self.owner.priorities = Priorities(self)
        #: Set by a worker: an owner has connected to send tasks.
        self.on_task_connection: Callable[[Connection], None] | None = None
        #: Takes Ctrl-C over for the main thread; None once that is done. A session that another thread has
        #: started calls it whenever it is used.
        self.guard_main: Callable[[], None] | None = None
        self._hosting: Any = None
        self.questions = Questions(self)
        self.inquiries = Inquiries(self)
        #: Called when nobody needs this process any more; None while it does not wait for that.
        self._leave: Callable[[], object] | None = None
        self._context = copy_context()
        self._listener = self.network.listen(self._accepted)
        #: References held as long as the session lasts.
        self.kept: list[ObjectRef[Any]] = []
        #: Whether detached actors are made here: this process is there as long as the session.
        self.keeps_detached = False
        self._on_node = self._node_handlers()
        self.control.on_message = self._on_control
        self.control.on_close = self._on_control_closed

    def _node_handlers(self) -> dict[int, Callable[..., None]]:
        """What is done about each message that a node sends to any session."""
        return {
            m.GRANT: self.leases.granted,
            m.LOST: self.leases.lost,
            m.WANTED: self.leases.wanted,
            m.OUTBID: self.owner.priorities.outbid,
            m.RANKED: self.owner.priorities.begin,
            m.DENIED: self.leases.denied,
            m.ANSWER: self.questions.answered,
            m.STALLED: self.inquiries.deadlocks.stalled,
            m.KEEPER_WANTED: self.actors.on_keeper_wanted,
            m.HOST_AT: self.lights.on_host_at,
            m.HOST_LOST: self.lights.on_host_lost,
            m.HOST_DENIED: self.lights.on_host_denied,
            m.WIND_UP: self.actors.farewells.on_wind_up,
            **self.store.handlers(),
        }

    @property
    def hosting(self) -> Any:
        """What a worker knows of the actor whose code runs; None where there can be none."""
        return hosted_now.get() or self._hosting

    @hosting.setter
    def hosting(self, hosting: Any) -> None:
        """Set by a worker: what it knows of the actor that it is."""
        self._hosting = hosting

    # --- connections --------------------------------------------------------------------------------------

    def start_connection(self, connection: Connection) -> None:
        """Begin to read a connection that this process opened. On the loop."""
        # Not in the context of the call that happens to need it first: that would live as long as this.
        self._context.copy().run(connection.resume_reading)

    def _accepted(self, connection: Connection, purpose: str) -> None:
        if purpose == PEER:
            self.peers.accepted(connection)
        elif purpose == TASK and self.on_task_connection is not None:
            self.on_task_connection(connection)
        else:
            raise ProtocolError(f"this process takes no connections for {purpose!r}")

    def _on_control(self, connection: Connection, message: list[Any], buffers: list[memoryview]) -> None:
        kind = message[0]
        handler = self._on_node.get(kind) or self.on_node_message.get(kind)
        if handler is None:
            raise ProtocolError(f"a node does not send message number {kind} here")
        handler(*message[1:])

    def _on_control_closed(self, connection: Connection, error: Exception | None) -> None:
        reason = f" ({error})" if error else ""
        pid = f" {self.facts['pid']}" if self.facts else ""
        self.fail(LocalRayletDiedError(f"the node process{pid} of this session has died{reason}"))

    def fail(self, error: Exception) -> None:
        """Nothing of this session can end any more: everything that waits hears of it. On the loop."""
        if self.failure is not None:
            return
        self.failure = error
        with self.owner.lock:
            self.owner.fail_everything(error)
        self.questions.fail(error)
        self.store.fail()
        self.inquiries.fail()
        self.deliver()

    def abandon(self) -> None:
        """This process is a fork: give up the sockets, and end nothing, because it is the parent's."""
        self.forked = True
        self.failure = RaySystemError("this process was forked from one with a session and has none itself")
        self.wake = lambda: None
        for connection in (self.control, *self.peers.connections(), *self.leases.links.connections()):
            connection.abandon()
        self._listener.abandon()
        self.owner.abandon(self.failure)

    def check_alive(self) -> None:
        """Raise what ended the session, if it has ended.

        Raises:
            SessionClosedError: after shutdown.
            LocalRayletDiedError: when the node has died.
        """
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)

    def part(self) -> None:
        """End in order: first the actors that want to clean up, whoever owns them. On the loop."""
        self.actors.farewells.wind_up_all(self._part)

    def _part(self) -> None:
        """Ask the node to end. Who waits hears of this, and not of the deaths that follow."""
        self.references.closed = True
        self.fail(SessionClosedError("the session has been shut down"))
        self.control.send([m.STOP])

    def close(self) -> None:
        """The orderly end. On the loop; the caller stops the loop afterwards."""
        self.references.closed = True
        self.fail(SessionClosedError("the session has been shut down"))
        self._listener.close()
        self.peers.close()
        self.leases.close()
        self.control.on_close = lambda connection, error: None
        self.control.close()
        self.store.close()
        self.references.forget()
        self.kept.clear()

    # --- calling into the loop ----------------------------------------------------------------------------

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Run something on the session's loop soon; from any thread. Nothing happens after its end."""
        self.waits.post_to(self.loop).post(call, *arguments)

    def call_later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Run something on the session's loop after *delay_s* seconds; from any thread."""
        self.call_soon(self.timer, delay_s, call)

    def timer(self, delay_s: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        """Run something after *delay_s* seconds. On the loop.

        It runs in the session's own context: the caller's may be a call's, which would live as long as this.
        """
        return self.loop.call_later(delay_s, call, context=self._context.copy())

    def pump_later(self, group: SchedulingClass) -> None:
        """Send a class's ready tasks soon, together with others that come until then."""
        if not group.posted:
            group.posted = True
            self.call_soon(self._pump, group)

    def _pump(self, group: SchedulingClass) -> None:
        with self.owner.lock:
            group.posted = False
            links = self.leases.pump(group)
        for link in links:
            link.flush()
        self.deliver()

    def deliver(self) -> None:
        """Tell waiters what is done. Never under the lock."""
        notices = self.notices
        while notices:
            try:
                record, waiters = notices.popleft()
            except IndexError:  # another thread took the last one
                return
            self._tell(record, iter(waiters))

    def _tell(self, record: ObjectRecord, waiters: Iterator[Any]) -> None:
        try:
            for waiter in waiters:
                waiter.notify(record)
        except KeyboardInterrupt:  # in a user's callback: the others are told all the same
            self.notices.appendleft((record, list(waiters)))
            self.call_soon(self.deliver)
            raise

    def session_name(self) -> str:
        """What this session is called."""
        return self.identity.address.split("-")[1] if "-" in self.identity.address else self.identity.address

    def release(self, notices: list[tuple[RefAddress, int]]) -> None:
        """Tell owners that this process let go; from any thread."""
        self.call_soon(self.peers.borrowing.release, notices)

    # --- calls and values ---------------------------------------------------------------------------------

    def submit(
        self, descriptor: Descriptor, args: tuple[Any, ...], kwargs: dict[str, Any], light: Any = None
    ) -> Any:
        """Make a call: returns its reference, the list of them when there are several, a generator, or None.

        *light* is the handle of a light actor whose method it is; None for all other calls.

        Raises:
            TypeError: when an argument cannot be pickled.
            ValueError: when the arguments are too large to be sent.
        """
        if self.guard_main is not None:
            self.guard_main()
        dependencies = None
        arguments = None if light is None else self.lights.handed_over(descriptor, args, kwargs)
        if arguments is None:
            arguments, dependencies = encode_call(self, descriptor, args, kwargs)  # type: ignore[assignment]
        parent, terms = self.scope.current_task(), terms_of(descriptor, self.clock)
        if descriptor.stream is not None:
            return self.streams.submit(descriptor, arguments, dependencies, parent, terms, light)
        refs = self.owner.submit(descriptor, arguments, dependencies, parent, terms, None, light)
        return refs[0] if len(refs) == 1 else refs or None

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value.

        Raises:
            TypeError: when it is a reference, or cannot be pickled.
        """
        drafted = draft_of(self, value)
        payload = value if drafted is None else self.store.keep(drafted)
        ref = self.owner.put(payload)
        if drafted is not None and type(payload) is not Stored and self.store.belongs(drafted):
            self.call_soon(self.store.moving.begin, ref._record)
        return ref

    async def put_async(self, value: Any) -> ObjectRef[Any]:
        """As put, from any loop; the copy of a large value does not hold it up."""
        drafted = draft_of(self, value)
        return self.owner.put(value if drafted is None else await self.store.keep_async(drafted))

    # --- waiting ------------------------------------------------------------------------------------------

    def fetch(self, records: Iterable[ObjectRecord], *, whole: bool = False) -> None:
        """Ask for the values of borrowed objects; from any thread."""
        borrowed = [record for record in records if record.home is not None and record.state <= 0]
        if borrowed:
            self.call_soon(lambda: self.peers.fetching.fetch(borrowed, whole=whole))

    # --- cancelling ---------------------------------------------------------------------------------------

    def cancel_record(self, record: ObjectRecord, *, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object, here or at its owner; from any thread."""
        if self.guard_main is not None:
            self.guard_main()
        if record.home is not None:
            process_id, address, number = record.home
            if record.state == PENDING or force:
                message = [m.CANCEL_OBJECT, number, force, recursive]
                self.call_soon(self.peers.send_to, Identity(process_id, address, 0), message)
            return
        if interrupts_us():
            # A waiter may be in the middle of being told: nobody can be told from here.
            self.call_soon(lambda: self.cancel_record(record, force=force, recursive=recursive))
            return
        if record.task is not None:
            self.cancel_task(record.task, force=force, recursive=recursive)

    def cancel_task(self, task: Task, *, force: bool = False, recursive: bool = True) -> None:
        """Cancel a task of our own; from any thread."""
        force = force and not task.descriptor.group.actor  # an actor is more than one call
        with self.owner.lock:
            under_way = self.owner.cancel(task, force=force)
        if under_way:
            self.call_soon(lambda: self.leases.cancel(task, force=force, recursive=recursive))
            self.deliver()

    def cancel_children(self, parent: int, *, force: bool) -> None:
        """Cancel everything that call *parent* of this process has called for."""
        with self.owner.lock:
            children = self.owner.children(parent)
        for child in children:
            self.cancel_task(child, force=force, recursive=True)

    def is_needed(self) -> bool:
        """Whether others hold what this process owns, or work of its own is under way."""
        self.owner.drain_dropped()
        with self.owner.lock:
            # What was pickled where nobody counts it may be anywhere.
            held = self.owner.objects.held_by_others() or self.references.pinned() > 0
            return held or self.owner.unfinished() or self.peers.borrowing.pins() > 0

    def when_unneeded(self, leave: Callable[[], object]) -> None:
        """Call *leave* as soon as nobody needs anything of this process any more. On the loop."""
        self._leave = leave
        if self.is_needed():
            # What waits now are others: the CPU is of no use here.
            self.control.send([m.BLOCKED, True])
        self.check_needed()

    def check_needed(self) -> None:
        """Something has ended that others may have needed this process for. On the loop."""
        if self.store.spilling is not None:
            self.store.spilling.pay()
        if self._leave is not None:
            self.actors.farewells.release()
        if self._leave is not None and not self.is_needed():
            leave, self._leave = self._leave, None
            leave()

    def statistics(self) -> Statistics:
        """How much this process keeps."""
        return statistics_of(self)

    def __repr__(self) -> str:
        state = "open" if self.failure is None else "closed"
        objects = self.owner.objects
        return f"<Session {state}: {len(objects.owned)} objects owned, {len(objects.borrowed)} borrowed>"
