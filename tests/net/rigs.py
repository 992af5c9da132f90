"""Receivers alone: a node, a driver and workers in this process, with connections that tests speak for."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncray.client.session import Session
from asyncray.client.surroundings import Surroundings
from asyncray.client.waiting import ThreadParker
from asyncray.config import Config
from asyncray.exceptions import ProtocolError
from asyncray.node.boot import Boot
from asyncray.node.machine import Machine, WorkerProcess
from asyncray.node.node import Node
from asyncray.options import TaskOptions
from asyncray.process import Process, enter, leave
from asyncray.runtime_env import NO_RUNTIME_ENV
from asyncray.state.staff import PoolKey, Worker
from asyncray.state.tasks import DONE
from asyncray.wire import messages as m
from asyncray.wire.frames import FrameEncoder
from asyncray.wire.handshake import Credentials, Identity, check_refusal
from asyncray.worker.async_mode import AsyncWorker
from asyncray.worker.ending import Ending
from asyncray.worker.scope import WorkerScope
from asyncray.worker.sync_mode import Owner, SyncWorker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncray.net.channel import TaskChannel
    from asyncray.node.logs import LogHub
    from asyncray.node.machine import OnConnected, OnDied

OURS = Identity(b"o" * 16, "ours", 1)
PEER = Identity(b"q" * 16, "peer", 3)
UNITS = 10_000
#: Lengths of extents are multiples of this.
PAGE = 4096
#: What is said must be fit to travel.
_ENCODER = FrameEncoder(1 << 20)


class Wire:
    """A connection whose other end is the test."""

    def __init__(self, peer: Identity = PEER) -> None:
        self.peer = peer
        self.on_message: Any = None
        self.on_close: Any = lambda connection, error: None
        self.closed = False
        self.error: Exception | None = None
        self.sent: list[list[Any]] = []
        self.unsent_bytes = 0

    def arrive(self, message: list[Any], buffers: Sequence[bytes] = ()) -> None:
        """A message comes; a ProtocolError closes the connection, as it closes a real one."""
        if self.closed:
            return
        try:
            check_refusal(message)
            checked = m.check(message) if message[0] >= m.FIRST_CHECKED else message
            self.on_message(self, checked, [memoryview(buffer) for buffer in buffers])
        except ProtocolError as error:
            self.close(error)

    def push(self, message: list[Any], buffers: Sequence[Any] = ()) -> None:
        _ENCODER.encode(message, buffers)
        self.sent.append(message)

    send = push

    def flush(self) -> None: ...

    resume_reading = pause_reading = drain = abandon = flush

    def close(self, error: Exception | None = None) -> None:
        if not self.closed:
            self.closed, self.error = True, error
            self.on_close(self, error)


class Wires:
    """A network that connects to nobody."""

    def __init__(self) -> None:
        self.made: list[Wire] = []

    def listen(self, on_connect: Any) -> Wires:
        return self

    def connect(self, address: str, purpose: str) -> Wire:
        self.made.append(Wire())
        return self.made[-1]

    def close(self) -> None: ...


class Spawner:
    """Starts workers that are only a connection."""

    def __init__(self, on_connected: OnConnected, on_died: OnDied) -> None:
        self.processes: dict[int, WorkerProcess] = {}
        self.warnings: Any = lambda text: None
        self._on_connected, self._on_died = on_connected, on_died
        self._numbers = itertools.count(1)

    def start(self, key: PoolKey) -> Worker:
        worker = Worker(next(self._numbers), key)
        process = WorkerProcess(worker, Wire())
        process.pid = 100 + worker.number
        self.processes[worker.number] = process
        self._on_connected(process)
        return worker

    def kill(self, process: WorkerProcess, kind: str, text: str) -> None:
        if self.processes.pop(process.worker.number, None) is not None:
            process.connection.on_close = lambda connection, error: None
            process.connection.close()
            self._on_died(process, kind, text)

    async def stop(self) -> None: ...


class NodeRig:
    """A node of two CPUs, and the connections of its driver and workers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.driver = Wire(OURS)
        boot = Boot(
            config=Config(),
            credentials=Credentials(b"s", b"t"),
            driver_pid=1,
            driver_process_id=OURS.process_id,
            resources={"CPU": 2 * UNITS, "GPU": UNITS},
            gpus=["0"],
            store_bytes=1 << 20,
        )

        def make_pool(logs: LogHub, on_connected: OnConnected, on_died: OnDied) -> Spawner:
            return Spawner(on_connected, on_died)

        machine = Machine(clock=loop.time, make_pool=make_pool, total_bytes=1 << 28, memory_use=None)
        self.node = Node(loop, boot, self.driver, machine)
        self.node.start(1)

    def connections(self) -> list[Wire]:
        """The driver's, then the workers'."""
        return [self.driver, *(process.connection for process in self.node.pool.processes.values())]  # type: ignore[list-item]

    def register_all(self) -> None:
        """Every worker that is starting says that it is ready."""
        for process in list(self.node.pool.processes.values()):
            if not process.address:
                number = process.worker.number
                process.connection.arrive([m.REGISTER, number, "there", b"%016d" % number])  # type: ignore[attr-defined]


class SessionRig:
    """A driver's session with tasks under way: connections to its node, a worker and a peer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.control = Wire()
        self.network = Wires()
        self.session = new_session(loop, self.control, self.network)
        make = self.session.descriptors.make
        self.refs: list[Any] = []
        for returns in (1, 2, 0):
            options = TaskOptions.parse({"num_returns": returns})
            descriptor = make(str, f"task{returns}", options, NO_RUNTIME_ENV)
            descriptor.average_s = 1e-6
            refs = [self.session.submit(descriptor, (position,), {}) for position in range(2)]
            self.refs += refs if returns == 1 else refs[0] or [] if returns == 2 else []
        self.refs.append(self.session.put([1]))
        self.borrowed = self.session.references.restore_ref((PEER.process_id, PEER.address, 5))
        self.control.arrive([m.GRANT, 0, 1, "worker", b"w" * 16, 2])
        (self.link,) = self.network.made
        self.peer = Wire()
        self.session.peers.accepted(self.peer)

    def connections(self) -> list[Wire]:
        """The node's, the worker's, the peer's."""
        return [self.control, self.link, self.peer]

    def unreachable(self) -> list[Any]:
        """Tasks that are not done, and that nothing will ever end."""
        leases = self.session.leases
        held = [task for lease in leases._leases.values() for task in lease.in_flight.values()]
        held += [task for group in leases._by_number for task in group.queue]
        records = list(self.session.owner.objects.owned.values())
        tasks = {record.task for record in records if record.state == 0 and record.task is not None}
        return [task.story() for task in tasks if task.state == DONE or task not in held]


def new_session(
    loop: asyncio.AbstractEventLoop, control: Wire, network: Wires, scope: Any = None, arena: Any = None
) -> Session:
    """A session that talks to nobody."""
    surroundings = Surroundings(
        config=Config(),
        loop=loop,
        network=network,  # type: ignore[arg-type]
        control=control,
        identity=OURS,
        parker=ThreadParker(),
        clock=loop.time,
        wake=lambda: None,
        environment=NO_RUNTIME_ENV,
        arena=arena,
    )
    return Session(surroundings, scope or WorkerScope())


class NoChannel:
    """A task channel that takes what it is given."""

    peer = PEER
    closed = False

    def send(self, message: list[Any], buffers: Sequence[Any] = ()) -> None: ...

    def fileno(self) -> int:
        return -1


class AsyncRig:
    """An async worker and its connection from an owner."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        scope = WorkerScope()
        self.session = new_session(loop, Wire(), Wires(), scope)
        end = Ending(lambda: None, lambda: None)
        self.worker = AsyncWorker(self.session, scope, loop.time, end, lambda run: None)
        self.owner, self.peer = Wire(), Wire()
        self.session.on_task_connection(self.owner)  # type: ignore[misc]
        self.session.peers.accepted(self.peer)

    def connections(self) -> list[Wire]:
        """The owner's for tasks, and as a peer."""
        return [self.owner, self.peer]


class SyncRig:
    """A sync worker and its connection from an owner."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        scope = WorkerScope()
        self.session = new_session(loop, Wire(), Wires(), scope)
        end = Ending(lambda: None, lambda: None)
        self.worker = SyncWorker(self.session, scope, loop.time, end, None, lambda: None)  # type: ignore[arg-type]
        channel: TaskChannel = NoChannel()  # type: ignore[assignment]
        owner = Owner(channel, self.session.hosting)
        self.owner, self.peer = Wire(), Wire()
        self.owner.on_message = lambda _, message, buffers: self.worker._take(owner, (message, buffers))
        self.session.peers.accepted(self.peer)

    def connections(self) -> list[Wire]:
        """The owner's for tasks, and as a peer."""
        return [self.owner, self.peer]

    def run_all(self) -> None:
        """Run what has come."""
        while self.worker._inbox:
            self.worker._run(*self.worker._inbox.popleft())


@contextmanager
def loop_of_a_process() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop for a rig, in a process of its own as far as asyncray knows."""
    token = enter(Process())
    loop = asyncio.SelectorEventLoop()
    wrong: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    try:
        yield loop
    finally:
        raised = loop.run_until_complete(end_tasks())
        loop.close()
        leave(token)
    raised += [context.get("exception") or AssertionError(context["message"]) for context in wrong]
    for error in raised:
        raise error


async def end_tasks() -> list[BaseException]:
    """Let everything that runs on the loop end; returns what it has raised."""
    raised: list[BaseException] = []
    for _ in range(3):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        ends = await asyncio.gather(*others, return_exceptions=True)
        raised += [error for error in ends if isinstance(error, Exception)]
        await asyncio.sleep(0)
    return raised
