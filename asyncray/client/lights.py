"""The light actors that a process owns, and those it calls.

A light actor (``isolation="shared"``) lives in a process that hosts many. Its handle says which host that
is, for all its lives, so a call goes there at once, and nobody is asked:

    caller                      owner                         host
      | -- TASKS (which actor) ------------------------------> |
      | <------------------------------------------ RESULTS -- |
      | <--------------------------------------- LIGHT_GONE -- |  (no such actor here)
      | -- LIGHT_WHERE --------->  |                           |
      | <----------- LIGHT_AT ---  |  (not yet; here again; dead, with what ended it)
                                   | -- LIGHT_END -----------> |
                                   | <--------- LIGHT_ENDED -- |

The node makes the hosts, and tells of their ends (node.hosts). How many there are: client.filling. What hosts
are told of ends: client.light_ends; what callers are told: client.light_news.

Everything here runs on the session's loop without the lock, except where it says otherwise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from ..exceptions import ProtocolError, RuntimeEnvSetupError
from ..net.local import LocalNetwork
from ..node.hosts import RETIRED
from ..state.actors import ALIVE, ENDING, STARTING
from ..state.objects import FAILED, ObjectRecord
from ..state.pipeline import Lease
from ..state.restarts import End
from ..state.tasks import DONE, RECALLED, RETRIED, Task, Verdict, after_worker_death
from ..state.tasks import step as step_task
from ..wire import messages as m
from ..wire.handshake import Identity
from .actor_calls import CALLERS_OWN
from .by_reference import by_reference
from .errors import encode_error
from .filling import Filling
from .host_calls import HostCalls, LightMethods, Room
from .light_ends import LightEnds
from .light_news import LightNews
from .owned_light import OwnedLight
from .strangers import Strangers, unavailable
from .worker_links import flush_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..actor_shape import ActorShape
    from ..refs import ObjectRef, RefAddress
    from ..state.tasks import Descriptor
    from ..wire.frames import Message
    from .plans import Plan
    from .session import Session
    from .worker_links import WorkerLink

_log = logging.getLogger("asyncray")
#: Seconds between two attempts to connect while no descriptor is left.
_CONNECT_AGAIN_S: Final = 0.5


class Lights:
    """Both sides of what one process knows of light actors."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.owner = session.owner
        #: By the number of their lives.
        self.owned: dict[int, OwnedLight] = {}
        #: Calls of others' actors that were not where they should be.
        self.strangers = Strangers(self)
        #: Every host that this process has called, by environment and index.
        self.hosts: dict[tuple[bytes, int], HostCalls] = {}
        #: Where the actors are made.
        self.filling = Filling(self)
        self.ends = LightEnds(self)
        self.news = LightNews(self)
        self._rooms: WeakValueDictionary[tuple[bytes, int], Room] = WeakValueDictionary()
        #: What handles share, by host and what is the same in all shapes of a class, of which every pickle
        #: brings another; and by host and the id of the one shape that is used.
        self._methods: WeakValueDictionary[object, LightMethods] = WeakValueDictionary()
        self._methods_by_id: WeakValueDictionary[object, LightMethods] = WeakValueDictionary()
        #: What is to be said and done soon, all of it at once. Taken under the lock: what is added meanwhile
        #: would be left behind.
        self._due: list[OwnedLight] = []
        self._over: list[Plan | None] = []

    # --- making (from any thread) --------------------------------------------------------------------------

    def host(self, key: tuple[bytes, int]) -> HostCalls:
        """This process's calls of one host's actors."""
        with self.owner.lock:
            found = self.hosts.get(key)
            if found is None:
                found = self.hosts[key] = HostCalls(self, *key)
            return found

    def create(self, plan: Plan, shape: ActorShape, life: ObjectRef[Any], calls: HostCalls) -> None:
        """Make an actor; its handles refer to *life*."""
        owner = self.owner
        record: ObjectRecord = life._record  # type: ignore[assignment]
        actor = OwnedLight(record, plan, shape, calls)
        with owner.lock:
            self.session.check_alive()
            owner.objects.lives.add(record)
            self.owned[record.number] = actor
            calls.used += 1
            links = actor.place()
        self.session.actors.farewells.made(shape)
        flush_all(links)

    # --- calling (from any thread) -------------------------------------------------------------------------

    def methods(self, key: tuple[bytes, int], shape: ActorShape) -> LightMethods:
        """The methods of a class in one host, for handles."""
        found = self._methods_by_id.get((key, id(shape)))
        if found is not None:
            return found
        told = (key, shape.packed)
        with self.owner.lock:
            found = self._methods.get(told)
            if found is None:
                found = self._methods[told] = LightMethods(self.host(key), shape)
                self._methods_by_id[key, id(shape)] = found
            return found

    def shape_of(self, descriptor: Descriptor) -> ActorShape | None:
        """The class of a method; None of what is no method. A search: for questions that are rare."""
        known = list(self._methods.values())
        return next((found.shape for found in known if descriptor in found.descriptors.values()), None)

    def handed_over(
        self, descriptor: Descriptor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Any] | None:
        """Arguments as they are for an actor in this very process, if none of them can change."""
        host: HostCalls = descriptor.group  # type: ignore[assignment]
        here = host.process_id == self.session.identity.process_id
        return by_reference(args) if here and args and not kwargs else None

    def begin(self, task: Task, address: RefAddress, shape: ActorShape) -> None:
        """A call says which actor it is for."""
        process_id, where, number = address
        if process_id == self.session.identity.process_id:
            task.extras = {"light": number}
        else:
            self.strangers.addresses[process_id] = where
            task.extras = {"light": [process_id, number]}
        if shape.max_pending_calls >= 0:
            with self.owner.lock:
                self.room_of(address).begin(task)

    def room_of(self, address: RefAddress) -> Room:
        """How many calls of one actor are under way, where that is bounded."""
        key = (address[0], address[2])
        with self.owner.lock:
            room = self._rooms.get(key)
            if room is None:
                room = self._rooms[key] = Room()
            return room

    def under_way(self) -> Iterator[Task]:
        """The calls that were sent with the places of their arguments. The lock is held."""
        for calls in self.hosts.values():
            if calls.lease is not None:
                yield from (t for t in calls.lease.in_flight.values() if not calls.names_arguments(t))

    # --- what the queues ask (the lock is held) ------------------------------------------------------------

    def want(self, calls: HostCalls) -> None:
        """There is something for a host, and no way to it."""
        calls.asked = True
        message = [m.HOST_WANTED, calls.environment, calls.index]
        self.session.call_soon(self.session.control.send, message)

    def admits(self, task: Task) -> bool:
        """Whether a call may be sent now; else it waits elsewhere, or has failed."""
        assert task.extras is not None
        light = task.extras["light"]
        if type(light) is not int:
            return not self.strangers.holds(task, light)
        actor = self.owned.get(light)
        if actor is None:
            self.fail_dead(task, light)
            return False
        if actor.task is task:
            actor.placed()
            # What has waited for it goes right behind its constructor, before what is called from now on.
            waiting, actor.waiting = actor.waiting, None
            if waiting is not None:
                actor.calls.put_first(waiting)
        elif actor.state not in (ALIVE, STARTING):
            self._park(actor, task)
            return False
        return True

    def _park(self, actor: OwnedLight, task: Task) -> None:
        if actor.waiting is None:
            actor.waiting = []
        actor.waiting.append(task)

    def send_again(self, calls: HostCalls, tasks: list[Task]) -> None:
        """Calls that have waited for their actor go to it, before what was called for since."""
        calls.put_first(tasks)
        self.session.pump_later(calls)

    def fail_dead(self, task: Task, number: int) -> None:
        """A call is for an actor of ours that is dead."""
        self.fail_with(task, self.news.what_ended(number))

    def fail_with(self, task: Task, failure: Any) -> None:
        """A call ends with what has ended its actor."""
        if task.state == DONE:
            task.release()
        else:
            self.owner.finish(task, FAILED, [failure] * len(task.records))
            self.session.call_soon(self.session.deliver)

    def goes_again(self, task: Task, error: BaseException) -> bool:
        """Whether a call may be made again that may have run; else it fails with *error*."""
        if task.state == DONE:
            task.release()
        elif after_worker_death(task) is Verdict.RETRY:
            task.attempt += 1
            return True
        else:
            self.owner.fail(task, error)
            self.session.call_soon(self.session.deliver)
        return False

    # --- hosts ----------------------------------------------------------------------------------------------

    def on_host_at(self, environment: bytes, index: int, address: str, process_id: bytes, pid: int) -> None:
        """The node says where a host is.

        Raises:
            ProtocolError: when it was not asked, or says something else than before.
        """
        calls = self.hosts.get((environment, index))
        if calls is None or not calls.asked or calls.process_id not in (b"", process_id) or not process_id:
            raise ProtocolError(f"the node tells of host {index}, of which it was not asked")
        calls.process_id = process_id
        self._connect(calls, Identity(process_id, address, pid))

    def _connect(self, calls: HostCalls, host: Identity) -> None:
        if calls.lease is not None or calls.process_id != host.process_id:
            return
        try:
            link = self._link(host)
        except OSError as error:  # no descriptor is left, and nothing tells when there is one again
            _log.warning("cannot connect to process %d, and will try again: %s", host.pid, error)
            self.session.loop.call_later(_CONNECT_AGAIN_S, self._connect_again, calls, host)
            return
        if link is None:  # it has just died: the node is about to say so
            return
        with self.owner.lock:
            lease = Lease(CALLERS_OWN, calls, link)
            link.lend(lease)
            calls.lease = lease
            links = self.session.leases.pump(calls)
        flush_all(links)

    def _connect_again(self, calls: HostCalls, host: Identity) -> None:
        try:
            self._connect(calls, host)
        except ProtocolError as error:  # of a message that was handled long ago
            self.session.control.close(error)

    def _link(self, host: Identity) -> WorkerLink | None:
        session = self.session
        accept = session.on_task_connection
        if host.process_id != session.identity.process_id or accept is None:
            return session.leases.links.connect(host)
        return session.leases.links.connect(host, LocalNetwork(session.call_soon, session.identity, accept))

    def on_host_lost(self, process_id: bytes, kind: str, explanation: str) -> None:
        """The node says that a host has ended."""
        if not process_id:
            raise ProtocolError("the node says that a host has ended, and not which")
        for calls in list(self.hosts.values()):
            if calls.process_id == process_id:
                lease = calls.lease
                if lease is not None and not lease.link.connection.closed:
                    # What it had sent before it died counts.
                    lease.link.connection.drain()
                self._lost(calls, f"the process that hosted it has died: {explanation}", kind)

    def on_host_denied(self, environment: bytes, index: int, reason: str) -> None:
        """There will be no such host.

        Raises:
            ProtocolError: when nobody waits for it.
        """
        calls = self.hosts.get((environment, index))
        if calls is None or not calls.asked or calls.lease is not None:
            raise ProtocolError(f"the node denies host {index}, of which it was not asked")
        failure = encode_error(RuntimeEnvSetupError(f"a host of light actors cannot be started: {reason}"))
        with self.owner.lock:
            calls.asked = False
            for actor in [actor for actor in self.owned.values() if actor.calls is calls]:
                actor.die(End.NO_PLACE, failure)
            for task in calls.empty():
                self.fail_with(task, failure)
        self.session.deliver()

    def link_closed(self, lease: Lease) -> None:
        """The connection with a host broke. Mostly it is dead, and the node about to say so."""
        self.session.loop.call_later(self.session.config.cancel_grace_s, self._after_break, lease)

    def _after_break(self, lease: Lease) -> None:
        calls: HostCalls = lease.group  # type: ignore[assignment]
        if calls.lease is lease and self.session.failure is None:
            # To the host, the end of the connection was the end of our actors there.
            self._lost(calls, "the connection with the process that hosted it has broken", "broken")

    def _lost(self, calls: HostCalls, explanation: str, kind: str) -> None:
        with self.owner.lock:
            lease, process_id = calls.lease, calls.process_id
            calls.lease, calls.asked, calls.process_id = None, False, b""
            calls.heard = calls.told
            self.ends.start_again(calls)
            sent: list[Task] = []
            if lease is not None:
                lease.closing = True
                self.strangers.lease_lost(lease, process_id)
                lease.link.lease = None
                self.session.loop.call_soon(lease.link.connection.close)
                sent = list(lease.in_flight.values())
                lease.in_flight.clear()
            actors = [actor for actor in self.owned.values() if actor.calls is calls]
            if kind == RETIRED and not any(actor.state in (ALIVE, ENDING) for actor in actors):
                for actor in actors:
                    actor.not_begun()
                calls.take_back(sent)
            else:
                self._sort(calls, actors, sent, explanation, process_id)
        self.session.pump_later(calls)
        self.session.deliver()

    def _sort(
        self, calls: HostCalls, actors: list[OwnedLight], sent: list[Task], explanation: str, lost: bytes
    ) -> None:
        """What becomes of all actors of ours in a host that is lost, and of all calls that were for it."""
        new = {actor.life.number for actor in actors if actor.state == STARTING}
        queued = calls.empty()
        for actor in actors:
            actor.lost(explanation)
        for task in sent:
            light = _light(task)
            if task.state == DONE:
                task.release()
            elif type(light) is not int:
                self.strangers.astray(task, light, begun=True, lost=lost)
            else:
                self._gone(task, light, begun=light not in new)
        for task in queued:
            light = _light(task)
            if type(light) is not int:
                self.strangers.astray(task, light, begun=False, lost=lost)
            else:
                calls.queue.append(task)  # the next pass looks at them

    # --- what hosts say -------------------------------------------------------------------------------------

    def on_host_message(self, lease: Lease | None, message: Message) -> None:
        """A host says what is not there, or what has ended.

        Raises:
            ProtocolError: when it is no host, or what it says makes no sense.
        """
        if lease is not None and not isinstance(lease.group, HostCalls):
            raise ProtocolError(f"a worker without light actors sends message number {message[0]}")
        if message[0] == m.LIGHT_GONE:
            self._on_gone(lease, message[1], begun=message[2])
        else:
            self._on_ended(lease, message[1])

    def _on_gone(self, lease: Lease | None, numbers: list[Any], *, begun: bool) -> None:
        """The actors of some calls are not in their host."""
        m.check_numbers("LIGHT_GONE", numbers)
        if lease is None:
            return
        with self.owner.lock:
            if not numbers:
                self.strangers.answered(lease)
            for number in numbers:
                task = lease.in_flight.get(number)
                if task is None:
                    continue
                if task.descriptor.blob:
                    raise ProtocolError("a host has turned away a light actor that was to be made there")
                del lease.in_flight[number]
                light = _light(task)
                if task.state == DONE:
                    task.release()
                elif type(light) is not int:
                    _recall(task)
                    self.strangers.astray(task, light, begun=begun)
                else:
                    self._gone(task, light, begun=begun)
        self.session.deliver()

    def _gone(self, task: Task, light: int, *, begun: bool) -> None:
        actor = self.owned.get(light)
        if actor is None:
            self.fail_dead(task, light)
        elif not begun or self.goes_again(task, unavailable(task)):
            _recall(task, RETRIED if begun else RECALLED)
            if actor.state in (ALIVE, STARTING):
                self.send_again(actor.calls, [task])
            else:
                self._park(actor, task)

    def _on_ended(self, lease: Lease | None, rows: list[Any]) -> None:
        """Actors of ours have ended by their own wish."""
        m.check_rows("LIGHT_ENDED", rows, 3)
        if not all(type(life) is int and type(reason) is str for _, life, reason in rows):
            raise ProtocolError("the end of a light actor is told by its number, its life and a reason")
        with self.owner.lock:
            if not rows and lease is not None and isinstance(lease.group, HostCalls):
                lease.group.answered()
                self.ends.start_again(lease.group)
            for number, life, reason in rows:
                actor = self.owned.get(number)
                current = actor is not None and lease is actor.calls.lease and actor.incarnation == life + 1
                if actor is not None and current:
                    actor.left(reason)
        self.session.deliver()

    # --- lives (the lock is held) ---------------------------------------------------------------------------

    def after(self, delay_s: float, actor: OwnedLight) -> None:
        """Let an actor have its next life after so many seconds."""
        if delay_s:
            self.session.call_later(delay_s, lambda: self._place([actor]))
            return
        if not self._due:
            self.session.call_soon(self._place_due)
        self._due.append(actor)

    def _place_due(self) -> None:
        with self.owner.lock:
            due, self._due = self._due, []
        self._place(due)

    def _place(self, actors: list[OwnedLight]) -> None:
        links: dict[Any, None] = {}
        with self.owner.lock:
            if self.session.failure is None:
                for actor in actors:
                    links.update(dict.fromkeys(actor.due()))
        flush_all(links)
        self.session.deliver()

    def kill(self, number: int, *, no_restart: bool) -> None:
        """End an actor of ours now."""
        actor = self.owned.get(number)
        if actor is not None:
            actor.kill(no_restart=no_restart)

    def end(self, record: ObjectRecord) -> None:
        """Nobody holds an actor's life any more."""
        actor = self.owned.get(record.number)
        if actor is not None and not record.local and not record.borrowers:
            actor.end()

    def stopping(self) -> list[OwnedLight]:
        """Have all end that have something to clean up; returns those that do."""
        return [actor for actor in list(self.owned.values()) if actor.shape.stops and actor.finish()]

    def ended(self, actor: OwnedLight, failure: Any, plan: Plan | None) -> None:
        """An actor is dead for good."""
        life, session = actor.life, self.session
        del self.owned[life.number]
        actor.calls.used -= 1
        session.actors.light_ended(actor)
        self.owner.objects.lives.discard(life)
        if life.state <= 0:
            self.owner.complete(life, FAILED, failure)
        if plan is not None and plan.name is not None:
            # In the outbox before this returns: who asks for the name next finds it free.
            session.control.push([m.NAME_FREE, *plan.name, life.number])
        self.news.ended(actor, failure)
        if not self._over:
            session.call_soon(self._after_ends)
        # What it held goes outside the lock.
        self._over.append(plan)

    def _after_ends(self) -> None:
        with self.owner.lock:
            over, self._over = self._over, []
        over.clear()
        self.session.control.flush()
        self.session.deliver()
        self.session.check_needed()


def _light(task: Task) -> Any:
    """Which actor a call is for."""
    assert task.extras is not None
    return task.extras["light"]


def _recall(task: Task, event: int = RECALLED) -> None:
    """A call that was sent is not any more; it is not queued either."""
    step_task(task, event)
    task.lease = None
