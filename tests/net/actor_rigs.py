"""Receivers that have to do with actors: their owner and caller, and the process that hosts light ones."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

from asyncray.actor import ActorClass
from asyncray.actor_handle import ActorHandle
from asyncray.actor_options import ActorOptions
from asyncray.actor_shape import shape_of
from asyncray.options import TaskOptions
from asyncray.process import current
from asyncray.runtime_env import NO_RUNTIME_ENV
from asyncray.state.tasks import DONE
from asyncray.store.arena import new_arena
from asyncray.wire import messages as m
from asyncray.wire.handshake import Identity
from tests.net.rigs import PEER, AsyncRig, Wire, Wires, new_session

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The worker that becomes a process actor, and the host of light ones.
WORKER, HOST = b"w" * 16, b"h" * 16


class Plain:
    """An actor in a process of its own."""

    def m(self, *args: Any) -> Any:
        return args


class Light:
    """A light actor."""

    async def m(self, *args: Any) -> Any:
        await asyncio.sleep(0)
        return args

    async def g(self, *args: Any) -> Any:
        for _ in range(3):
            yield args

    async def forever(self) -> None:
        await asyncio.Event().wait()


def generator(*args: Any) -> Any:
    """The function of a stream."""
    yield from args


LIGHT_OPTIONS = {"isolation": "shared", "max_restarts": 1, "max_concurrency": 2}
SHAPE = shape_of(Light, ActorOptions.parse(LIGHT_OPTIONS))


class ActorsRig:
    """A driver's session with actors of both kinds, its own and others', a stream, and a store."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.control = Wire()
        self.network = Wires()
        self.session = session = new_session(loop, self.control, self.network, arena=new_arena(1 << 20))
        current().session = session
        self.refs: list[Any] = []
        self._make_stream()
        self._make_process_actors()
        self._make_light_actors()
        self.peer = Wire()
        session.peers.accepted(self.peer)
        stranger = (PEER.process_id, PEER.address)
        self.handles += [
            ActorHandle(None, (*stranger, 5), SHAPE, (self.key[0], self.key[1])),
            ActorHandle(None, (*stranger, 6), shape_of(Plain, ActorOptions.parse({}))),
        ]
        for handle in self.handles:
            self.refs += [handle.m.remote(number) for number in range(2)]
        self.run()
        # One of each kind is made, the other is being made.
        self.of_actor.arrive([m.RESULTS, [[self._constructors(self.of_actor)[0], m.OK, None]], 0.0])
        self.of_host.arrive([m.RESULTS, [[self._constructors(self.of_host)[0], m.OK, None]], 0.0])
        self.run()

    def run(self) -> None:
        """Let what was posted run."""
        self.session.loop.run_until_complete(asyncio.sleep(0))
        self.session.loop.run_until_complete(asyncio.sleep(0))

    def _make_stream(self) -> None:
        options = TaskOptions.parse({"num_returns": "streaming", "max_unread": 2})
        descriptor = self.session.descriptors.make(generator, "stream", options, NO_RUNTIME_ENV)
        self.stream = self.session.submit(descriptor, (1, 2), {})
        self.refs.append(self.stream.completed())
        group = self.session.leases._by_number[-1].number
        self.control.arrive([m.GRANT, group, 1, "worker", b"v" * 16, 2])
        (self.of_stream,) = self.network.made

    def _make_process_actors(self) -> None:
        made = ActorClass(Plain, ActorOptions.parse({"max_restarts": 1}))
        self.handles: list[ActorHandle[Any]] = [made._making(self.session, (), {}).make() for _ in range(2)]
        group = self.session.leases._by_number[-1].number
        self.control.arrive([m.GRANT, group, 2, "worker", WORKER, 3])
        self.of_actor = self.network.made[-1]

    def _make_light_actors(self) -> None:
        made = ActorClass(Light, ActorOptions.parse(LIGHT_OPTIONS))
        self.handles += [made._making(self.session, (), {}).make() for _ in range(2)]
        self.run()
        (self.key,) = self.session.lights.hosts
        self.control.arrive([m.HOST_AT, *self.key, "host", HOST, 4])
        self.of_host = self.network.made[-1]

    def _constructors(self, wire: Wire) -> list[int]:
        rows = [row for message in wire.sent if message[0] == m.TASKS for row in message[1]]
        assert rows
        return [row[0] for row in rows]

    def connections(self) -> list[Wire]:
        """The node's, an actor's, a host's, a peer's."""
        return [self.control, self.of_actor, self.of_host, self.peer]

    def unreachable(self) -> list[Any]:
        """Calls that are not done, and that nothing will ever end."""
        held = set(map(id, self._held()))
        records = list(self.session.owner.objects.owned.values())
        tasks = [record.task for record in records if record.state == 0 and record.task is not None]
        stuck = [calls for calls in self.session.actors._calls.values() if self._is_stuck(calls)]
        return [t.story() for t in tasks if t.state == DONE or id(t) not in held] + stuck

    def _is_stuck(self, calls: Any) -> bool:
        """Whether calls wait for an actor of another process that was not asked where it is."""
        waits = calls.lease is None and calls.failure is None and calls.pending()
        return bool(
            waits and not calls.asked and calls.address[0] == PEER.process_id and not self.peer.closed
        )

    def _held(self) -> Iterator[Any]:
        session = self.session
        lights, actors = session.lights, session.actors
        for lease in session.leases._leases.values():
            yield from lease.in_flight.values()
        groups: list[Any] = [*actors._calls.values(), *lights.hosts.values()]
        for calls in groups:
            yield from calls.queue
            if calls.lease is not None:
                yield from calls.lease.in_flight.values()
        for group in session.leases._by_number:
            yield from group.queue
        for waiting in lights.strangers._waiting.values():
            yield from (task for task, _ in waiting)
        for actor in lights.owned.values():
            yield from actor.waiting or ()


class HostRig(AsyncRig):
    """A host with light actors, of an owner that has connected, and another caller."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.worker.host()
        self.caller = Wire(Identity(b"w" * 16, "caller", 4))
        self.session.on_task_connection(self.caller)  # type: ignore[misc]
        told = {"light": SHAPE.to_wire(), "environment": b"", "host": 0, "name": "Light.__init__"}
        for wire in (self.owner, self.caller):
            wire.arrive([m.DESCRIBE, 1, b"", pickle.dumps(Light), told])
            for number, name in enumerate(["m", "forever", "__ray_terminate__"], 2):
                wire.arrive([m.DESCRIBE, number, b"", b"", {"light": True, "method": name, "name": name}])
            streams = {"light": True, "method": "g", "stream": 2}
            wire.arrive([m.DESCRIBE, 5, b"", b"", streams])
        rows = [[number, 1, None, None, {"light": number}] for number in (1, 2)]
        busy = [[number, 3, None, None, {"light": 1}] for number in (3, 4, 5)]
        self.owner.arrive([m.TASKS, [*rows, *busy]])
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        self.caller.arrive([m.TASKS, [[7, 2, None, None, {"light": [PEER.process_id, 2]}]]])

    def connections(self) -> list[Wire]:
        """The owner's, another caller's, the owner's as a peer."""
        return [self.owner, self.caller, self.peer]

    def end(self) -> None:
        """Every caller goes."""
        self.owner.close()
        self.caller.close()

    def left(self) -> list[Any]:
        """What is kept though nobody is there any more."""
        lights = self.worker.lights
        tables = [lights._table, lights._waiting, lights._ends, lights._strays, self.worker._owners]
        return [table for table in tables if table]
