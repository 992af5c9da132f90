"""The actors that a process owns, and those it calls: where each is, and what becomes of it.

An actor is owned by the process that made it (client.owned_actor). Others that hold a handle call it
directly (client.actor_calls); once, at their first call, they ask its owner where it is, and are told of
every change from then on:

    caller                      owner                         the actor's worker
      | -- ACTOR_WHERE -------->  |                                |
      | <------- ACTOR_AT ------  |  (alive here; again there; dead, with what ended it)
      | -- TASKS ------------------------------------------------> |
      | <--------------------------------------------- RESULTS --  |
                                  | <---------- ACTOR_LEAVES ----- |  (it ends by its own wish)

Everything here runs on the session's loop without the lock, except where it says otherwise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from ..exceptions import ActorDiedError, ProtocolError
from ..refs import ObjectRef
from ..state.actors import ALIVE, DEAD, STATE_NAMES
from ..state.objects import FAILED, PENDING, ObjectRecord
from ..state.pipeline import Lease
from ..state.tasks import Task
from ..wire import messages as m
from ..wire.handshake import Identity
from .actor_calls import CALLERS_OWN, ActorCalls
from .errors import death_in, encode_error
from .farewells import Farewells
from .host_calls import HostCalls, Room
from .owned_actor import OwnedActor
from .plans import Plan
from .putting import encode_call
from .stored_ahead import PlacesSent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..actor_options import ActorOptions
    from ..actor_shape import ActorShape
    from ..net.connection import Connection
    from ..refs import RefAddress
    from ..state.tasks import Descriptor
    from .session import Session


_log = logging.getLogger("asyncray")
#: Seconds between two attempts to connect while no descriptor is left.
_CONNECT_AGAIN_S: Final = 0.5


class Actors:
    """Both sides of what one process knows of actors."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.owner = session.owner
        #: By the number of their lives.
        self.owned: dict[int, OwnedActor] = {}
        #: Actors whose constructor is under way, by the number of that task.
        self.creating: dict[int, OwnedActor] = {}
        #: By where the actor's life is: the owner's process id, and the number there.
        self._calls: WeakValueDictionary[tuple[bytes, int], ActorCalls] = WeakValueDictionary()
        self.farewells = Farewells(session)
        self.places_sent = PlacesSent()
        #: What waits for the last actors; None while the session does not end.
        self._last: _Last | None = None
        self.owner.objects.on_unheld = self._on_unheld

    # --- making and calling (from any thread) --------------------------------------------------------------

    def plan(
        self, descriptor: Descriptor, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> Plan:
        """What an actor is to be made of.

        Raises:
            TypeError: when an argument cannot be pickled.
        """
        arguments, dependencies = encode_call(self.session, descriptor, args, kwargs)
        namespace = self.session.namespace if options.namespace is None else options.namespace
        name = None if options.name is None else (namespace, options.name)
        plan = Plan(descriptor, arguments, dependencies, options.max_restarts, name)
        plan.get_if_exists = options.get_if_exists
        plan.detached = options.lifetime == "detached"
        return plan

    def reserve(self) -> ObjectRef[Any]:
        """The life of an actor that is not made yet."""
        if self.owner.dropped:  # those that nobody holds any more do not count where it is placed
            self.owner.drain_dropped()
        life = ObjectRecord(self.session.references, self.owner.new_number())
        life.local = 1
        with self.owner.lock:
            self.session.check_alive()
            self.owner.objects.owned[life.number] = life
        return ObjectRef(life)

    def create(self, plan: Plan, shape: ActorShape, life: ObjectRef[Any]) -> None:
        """Make an actor; its handles refer to *life*."""
        owner = self.owner
        record: ObjectRecord = life._record  # type: ignore[assignment]
        address = self.session.references.address(record)
        calls = ActorCalls(owner, address, shape)
        calls.asked = True
        plan.extras = {"where": list(address), "shape": shape.to_wire(), "name": plan.name}
        actor = OwnedActor(self, record, plan, calls)
        with owner.lock:
            self.session.check_alive()
            owner.objects.lives.add(record)
            self.owned[record.number] = actor
            self._calls[address[0], address[2]] = calls
            links = actor.place()
        self.farewells.made(shape)
        for link in links:
            link.flush()

    def discard(self, life: ObjectRef[Any], name: tuple[str, str] | None = None) -> None:
        """There will be no such actor after all; *name* is what it may have been given meanwhile."""
        record: ObjectRecord = life._record  # type: ignore[assignment]
        with self.owner.lock:
            if record.state == PENDING:
                self.owner.complete(record, FAILED, encode_error(ActorDiedError("it was never made")))
        if name is not None:
            self.session.call_soon(self.session.control.send, [m.NAME_FREE, *name, record.number])

    def calls_of(self, address: RefAddress, shape: ActorShape, life: ObjectRef[Any] | None) -> ActorCalls:
        """This process's calls of an actor.

        Args:
            address: Where its life is.
            shape: Its class.
            life: The reference to its life; None for a handle that does not keep it alive.
        """
        key = (address[0], address[2])
        with self.owner.lock:
            calls = self._calls.get(key)
            if calls is None:
                calls = self._calls[key] = ActorCalls(self.owner, address, shape)
            if life is not None and address[0] != self.session.identity.process_id:
                self.owner.objects.lives.add(life._record)  # type: ignore[arg-type]
            asked, calls.asked = calls.asked, True
        if not asked:
            self.session.call_soon(self._ask, calls)
        return calls

    def under_way(self) -> Iterator[Task]:
        """The calls of actors that were sent with the places of their arguments. The lock is held."""
        for calls in list(self._calls.values()):
            # Of an actor of this process's own, the constructor is among them.
            if calls.lease is not None:
                yield from (t for t in calls.lease.in_flight.values() if not calls.names_arguments(t))
        yield from self.session.lights.under_way()

    async def room(self, calls: ActorCalls | Room, most: int) -> None:
        """Wait until fewer than *most* of this process's calls of an actor are under way."""
        while True:
            with self.owner.lock:
                if calls.pending() < most or calls.failure is not None:
                    return
                waiter = self.session.waits.new_loop_bell()
                calls.room.append(waiter)
            await self.session.waits.suspend(waiter.future)

    def on_keeper_wanted(self) -> None:
        """Somebody asks for the keeper of detached actors, and this is the driver."""
        # One that could not be placed is dead, and the next may find room.
        if all(life._record.state == FAILED for life in self.session.kept):
            from .keeper import make_keeper

            make_keeper(self.session)

    def kill(self, address: RefAddress, *, no_restart: bool, light: bool = False) -> None:
        """End an actor now, here or at its owner."""
        process_id, at, number = address
        if process_id != self.session.identity.process_id:
            owner = Identity(process_id, at, 0)
            self.session.call_soon(self.session.peers.send_to, owner, [m.ACTOR_KILL, number, no_restart])
            if no_restart:
                self._doom(owner, number, light=light)
            return
        with self.owner.lock:
            actor = self.owned.get(number)
            if actor is not None:
                actor.kill(no_restart=no_restart)
            else:
                self.session.lights.kill(number, no_restart=no_restart)
        self.session.deliver()

    def _doom(self, owner: Identity, number: int, *, light: bool) -> None:
        """Others' actor was killed from here: calls made from now on wait for the word of its end."""
        key = (owner.process_id, number)
        with self.owner.lock:
            if light:
                self.session.lights.strangers.doom(key, owner)
            elif (calls := self._calls.get(key)) is not None:
                calls.doomed = True

    # --- as owner ------------------------------------------------------------------------------------------

    def placed(self, task: Task, lease: Lease) -> None:
        """A constructor goes to a worker. The lock is held."""
        self.creating[task.number].placed(lease)

    def lost(self, lease: Lease, kind: str, explanation: str) -> None:
        """An actor's worker has died."""
        with self.owner.lock:
            self.session.leases.forget_lease(lease)
            actor = self._of(lease)
            if actor is not None and actor.lease is lease:
                actor.lost(kind, explanation)
        self.session.deliver()

    def on_leaves(self, lease: Lease | None, reason: str) -> None:
        """An actor ends by its own wish.

        Raises:
            ProtocolError: when a host of light actors says so, which is no actor itself.
        """
        if lease is None:
            return
        if isinstance(lease.group, HostCalls):
            raise ProtocolError("a host of light actors says that it is an actor")
        with self.owner.lock:
            actor = self._of(lease)
            if actor is not None and actor.lease is lease:
                actor.left(reason)
        self.session.deliver()

    def _of(self, lease: Lease) -> OwnedActor | None:
        return self.owned.get(lease.group.address[2]) if lease.group.actor else None  # type: ignore[attr-defined]

    def _on_unheld(self, record: ObjectRecord) -> None:
        """Nobody holds an actor's life any more, or nobody here. Under the lock, in any thread."""
        if record.home is None:
            self.session.call_soon(self._end, record)
        else:
            self.owner.objects.lives.discard(record)
            self.session.call_soon(self._let_go, record)

    def _end(self, record: ObjectRecord) -> None:
        with self.owner.lock:
            actor = self.owned.get(record.number)
            if actor is not None and not record.local and not record.borrowers:
                actor.end()
            elif actor is None:
                self.session.lights.end(record)
        self.session.deliver()

    def after(self, delay_s: float, actor: OwnedActor) -> None:
        """Let an actor have its next life after so many seconds. From any thread, under the lock."""
        if delay_s:
            self.session.call_later(delay_s, lambda: self._due(actor))
        else:
            self.session.call_soon(self._due, actor)

    def _due(self, actor: OwnedActor) -> None:
        with self.owner.lock:
            if self.session.failure is not None:
                return
            links = actor.due()
        for link in links:
            link.flush()
        self.session.deliver()

    def end_worker(self, lease: Lease) -> None:
        """Kill an actor's worker. From any thread, under the lock."""
        self.session.call_soon(self.session.control.send, [m.KILL, lease.number])

    def insist(self, number: int) -> None:
        """An actor that was asked to end has had its time; on the loop."""
        with self.owner.lock:
            actor = self.owned.get(number)
            if actor is not None:
                actor.insist()

    def ask_to_end(self, actor: OwnedActor) -> None:
        """Have an actor end in order, when it has done what was called for. The lock is held."""
        calls = actor.calls
        descriptor = self.session.descriptors.make_method(calls, "__ray_terminate__", {}, ())
        task = Task(self.owner.new_number(), descriptor, None)
        record = ObjectRecord(self.session.references, task.number)
        record.local = 1
        record.task = task
        task.records = (record,)
        calls.queue.append(task)
        self.session.pump_later(calls)

    def end_all(self, then: Callable[[], None]) -> None:
        """Let this process's actors clean up that have something to, and call *then*; not for long."""
        with self.owner.lock:
            stopping: list[Any] = [a for a in self.owned.values() if a.calls.shape.stops and a.finish()]
            stopping += self.session.lights.stopping()
        if not stopping:
            then()
            return
        self._last = _Last(stopping, then)
        self.session.loop.call_later(self.session.config.cancel_grace_s, self._last.now)

    def light_ended(self, actor: object) -> None:
        """A light actor is dead for good. The lock is held."""
        if self._last is not None:
            self.session.call_soon(self._last.ended, actor)

    def ended(self, actor: OwnedActor, failure: Any, plan: Plan | None) -> None:
        """An actor is dead for good. The lock is held."""
        del self.owned[actor.life.number]
        if self._last is not None:
            self.session.call_soon(self._last.ended, actor)
        self.owner.objects.lives.discard(actor.life)
        actor.complete(failure)
        if plan is not None and plan.name is not None:
            # In the outbox before this returns: who asks for the name next finds it free.
            self.session.control.push([m.NAME_FREE, *plan.name, actor.life.number])
        self.announce(actor)
        self.session.call_soon(self._after_end, plan)

    def _after_end(self, plan: Plan | None) -> None:
        """What the plan held goes with this call, outside the lock."""
        self.session.control.flush()
        self.session.deliver()
        self.session.check_needed()

    def announce(self, actor: OwnedActor) -> None:
        """Tell who has asked how it stands. From any thread, under the lock."""
        if actor.watchers:
            self.session.call_soon(self._announce, actor)

    def _announce(self, actor: OwnedActor) -> None:
        message = self._told(actor)
        for watcher in list(actor.watchers.values()):
            self.session.peers.send_to(watcher, message)

    def _told(self, actor: OwnedActor) -> list[Any]:
        with self.owner.lock:
            where = actor.where if actor.state == ALIVE else None
            place = ["", b"", 0] if where is None else [where.address, where.process_id, where.pid]
            number, failure = actor.life.number, actor.calls.failure
            return [m.ACTOR_AT, number, actor.incarnation, actor.state, *place, failure]

    def on_where(self, connection: Connection, number: int) -> None:
        """A caller asks where an actor is, and wants to hear of every change."""
        with self.owner.lock:
            actor = self.owned.get(number)
            record = self.owner.objects.owned.get(number)
        if actor is None:
            failure = None if record is None else death_in(record)
            connection.send([m.ACTOR_AT, number, 0, DEAD, "", b"", 0, failure])
            return
        actor.watchers[connection.peer.process_id] = connection.peer
        connection.send(self._told(actor))

    def on_kill(self, connection: Connection, number: int, no_restart: bool) -> None:
        """Another process wants an actor of ours to be killed."""
        self.kill(
            (self.session.identity.process_id, self.session.identity.address, number), no_restart=no_restart
        )

    # --- as caller -----------------------------------------------------------------------------------------

    def _ask(self, calls: ActorCalls) -> None:
        process_id, address, number = calls.address
        if process_id == self.session.identity.process_id:
            failure: Any = None  # one of ours that is dead, and forgotten
        elif self.session.peers.send_to(Identity(process_id, address, 0), [m.ACTOR_WHERE, number]):
            return
        else:
            failure = _owner_died(calls)
        self._died(calls, failure)

    def on_at(self, connection: Connection, *fields: Any) -> None:
        """An owner says how an actor stands."""
        number, incarnation, state, address, process_id, pid, failure = fields
        if state not in STATE_NAMES or type(failure) not in (bytes, type(None)):
            raise ProtocolError("an actor cannot stand like that")
        calls = self._calls.get((connection.peer.process_id, number))
        if calls is None or calls.failure is not None:
            return
        lease = calls.lease
        if lease is not None and lease.link is not None and not lease.link.connection.closed:
            # Results that were sent before the actor was lost are results.
            lease.link.connection.drain()
        if state == DEAD:
            self._died(calls, failure)
        elif state != ALIVE:
            self._lost(calls, "it is being restarted")
        elif lease is None or calls.incarnation != incarnation:
            self._lost(calls, "it was restarted")
            self._connect(calls, Identity(process_id, address, pid), incarnation)

    def _lost(self, calls: ActorCalls, explanation: str) -> None:
        with self.owner.lock:
            self._part(calls)
            calls.lost(explanation, begun=True)
        self.session.deliver()

    def _died(self, calls: ActorCalls, failure: Any) -> None:
        if failure is None:
            text = f"the actor {calls.shape.name!r} is dead: it had ended before this process asked for it"
            failure = encode_error(ActorDiedError(text))
        with self.owner.lock:
            self._part(calls)
            calls.died(failure)
        self.session.deliver()

    def _part(self, calls: ActorCalls) -> None:
        """Close the way to an actor that is not there any more. The lock is held."""
        lease = calls.lease
        if lease is not None and lease.number == CALLERS_OWN:
            lease.closing = True
            if lease.link.lease is lease:
                lease.link.lease = None
            self.session.loop.call_soon(lease.link.connection.close)

    def _connect(self, calls: ActorCalls, worker: Identity, incarnation: int) -> None:
        try:
            link = self.session.leases.links.connect(worker)
        except OSError as error:  # no descriptor is left, and nothing tells when there is one again
            _log.warning("cannot connect to actor process %d, and will try again: %s", worker.pid, error)
            self.session.loop.call_later(_CONNECT_AGAIN_S, self._ask, calls)
            return
        if link is None:  # it has just died: its owner is about to say so
            return
        with self.owner.lock:
            lease = Lease(CALLERS_OWN, calls, link)
            link.lend(lease)
            calls.connected(lease, incarnation)
            links = self.session.leases.pump(calls)
        for each in links:
            each.flush()

    def link_closed(self, lease: Lease) -> None:
        """The connection to an actor broke. Mostly the actor is lost, and its owner about to say so."""
        if isinstance(lease.group, HostCalls):
            self.session.lights.link_closed(lease)
            return
        grace_s = self.session.config.cancel_grace_s
        self.session.loop.call_later(grace_s, self._ask_again, lease)

    def _ask_again(self, lease: Lease) -> None:
        calls: ActorCalls = lease.group  # type: ignore[assignment]
        if calls.lease is lease and self.session.failure is None:
            self._lost(calls, "the connection with it has broken")
            self._ask(calls)

    def _let_go(self, record: ObjectRecord) -> None:
        """Nobody in this process holds an actor's life any more: the connection with it can go.

        Not while this process registers for references that came in a result: to the worker the end of the
        connection means that nobody will. Such a connection stays until the actor ends.
        """
        home = record.home
        assert home is not None
        key = (home[0], home[2])
        calls = self._calls.get(key)
        with self.owner.lock:
            if calls is None or key in self.owner.objects.borrowed or calls.pending():
                return
            if self.session.peers.borrowing.registering():
                return
            self._part(calls)
            calls.lease, calls.asked = None, False

    # --- other processes -----------------------------------------------------------------------------------

    def process_gone(self, process_id: bytes, *, dead: bool) -> None:
        """A process has ended, or does not understand us: actors of its are gone, or must be asked for."""
        self.session.lights.strangers.process_gone(process_id, dead=dead)
        for actor in list(self.owned.values()):
            actor.gone(process_id)
        for key, calls in list(self._calls.items()):
            if key[0] == process_id and calls.failure is None:
                if dead:
                    self._died(calls, _owner_died(calls))
                else:
                    calls.asked = calls.doomed = False
                    if calls.lease is None and calls.pending():
                        # Its owner tells nobody of changes any more who has not asked anew.
                        self.session.loop.call_later(_CONNECT_AGAIN_S, self._ask_anew, calls)

    def _ask_anew(self, calls: ActorCalls) -> None:
        """Calls wait for an actor, and the connection with its owner has broken."""
        settled = calls.asked or calls.lease is not None or calls.failure is not None
        if not settled and self.session.failure is None:
            calls.asked = True
            self._ask(calls)


class _Last:
    """Calls a function once: when all of some actors have ended, or when told to."""

    def __init__(self, actors: list[Any], then: Callable[[], None]) -> None:
        self._left = set(actors)
        self._then: Callable[[], None] | None = then

    def ended(self, actor: object) -> None:
        """One of them has ended, or another one."""
        self._left.discard(actor)
        if not self._left:
            self.now()

    def now(self) -> None:
        """It has been long enough."""
        then, self._then = self._then, None
        if then is not None:
            then()


def _owner_died(calls: ActorCalls) -> bytes:
    return encode_error(
        ActorDiedError(f"the actor {calls.shape.name!r} is dead: the process that had made it has died")
    )
