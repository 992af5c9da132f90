"""A whole session in one process, under virtual time: driver, node and workers, replayable by a seed.

    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(1)
        cluster.kill_worker()
        assert await ref == 2          # it ran again

    simulate(main, seed=7)

What runs is the real thing: sessions, owners, leases, the node's scheduler, both modes of workers, and every
message as a frame. Simulated are only the loop's time, the sockets, and what a process is.

Rule 1: the same seed and the same program make the same run, event by event.
Rule 2: hours of waiting cost nothing. What would wait for ever raises DeadlockError.
Rule 3: who waits must wait in the simulation: by `get`, `wait`, `await`, `asyncio.sleep`, and by the `sleep`
        of this package instead of `time.sleep`.
Rule 4: workers share this process's memory: modules are imported once for all of them. What a task's
        function defines itself, or gets as an argument, is its own, as in reality.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..client.surroundings import TaskScope
from ..config import Config
from ..ids import new_process_id
from ..net.stream import StreamConnection
from ..node.boot import Boot
from ..node.machine import Machine
from ..node.node import Node
from ..process import enter, leave
from ..resources import Resources, to_units
from ..wire import messages as m
from ..wire.handshake import Credentials
from .clock import VirtualLoop
from .machine import EXITED, KILLED, SimulatedMachine, SimulatedProcess
from .pool import SimulatedPool
from .worker import new_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import Token

    from ..client.session import Session
    from ..net.memory import MemorySocket
    from ..process import Process
    from .pool import PooledWorker
    from .trace import Event, Trace

T = TypeVar("T")

_log = logging.getLogger("asyncray")
#: Virtual seconds that the orderly end may take before everything is ended at once.
_END_S = 3600.0
#: Memory of the simulated machine: room for 256 worker processes by the usual estimate.
_MEMORY_BYTES = 4 << 30
#: Its object store; pages take memory as they are used.
_STORE_BYTES = 64 << 20


class SimulatedCluster:
    """A session with its driver here, and with simulated node and workers.

    An async context manager on a :class:`VirtualLoop`. Inside it, the calling task and the tasks that it
    makes are the driver: `await f.remote()` just works.

    Args:
        seed: Decides everything that is open: how long messages take, which thread goes on first, which
            worker is killed.
        num_cpus: CPUs of the node.
        resources: Further resources of the node, by name.
        delay_s: Longest time that a message takes, in virtual seconds; 0: all are there at once.
        object_store_memory: Bytes of the store that the processes share.
        **config: Fields of :class:`asyncray.config.Config`. The environment is not looked at.

    Raises:
        TypeError: when a field is of the wrong type.
        ValueError: when a field is unknown, or a value impossible.
    """

    def __init__(
        self,
        seed: int = 0,
        num_cpus: float = 2,
        resources: Mapping[str, float] | None = None,
        delay_s: float = 0.001,
        object_store_memory: int = _STORE_BYTES,
        **config: Any,
    ) -> None:
        self.seed = seed
        self._config = Config.from_env({}, **config)
        self._quantities = {"num_cpus": num_cpus, **(resources or {})}
        self._delay_s = delay_s
        self._store_bytes = object_store_memory
        #: Made at the start.
        self._machine: SimulatedMachine = None  # type: ignore[assignment]
        self._pool: SimulatedPool = None  # type: ignore[assignment]
        self._driver: SimulatedProcess = None  # type: ignore[assignment]
        self._node: SimulatedProcess = None  # type: ignore[assignment]
        self._head: Node = None  # type: ignore[assignment]
        self._token: Token[Process] | None = None
        self._collects = False
        self._stopped = asyncio.Event()

    # --- what a test looks at -------------------------------------------------------------------------------

    @property
    def driver(self) -> Session:
        """The driver's session."""
        session = self._driver.process.session
        assert session is not None
        return session

    @property
    def node(self) -> Node:
        """The node."""
        return self._head

    @property
    def sessions(self) -> list[Session]:
        """The sessions of the living processes, the driver's first."""
        known = [process.process.session for process in self._machine.processes.values() if process.alive]
        return [session for session in known if session is not None]

    @property
    def trace(self) -> Trace:
        """What has happened so far."""
        return self._machine.trace

    @property
    def workers(self) -> list[int]:
        """The pids of the living workers, in the order of their starts."""
        return [worker.simulated.pid for worker in self._living() if worker.simulated is not None]

    def on_event(self, watcher: Callable[[Event], None]) -> None:
        """Call *watcher* with each event from now on; it may kill. See :meth:`Trace.watch`."""
        self.trace.watch(watcher)

    # --- what a test does -----------------------------------------------------------------------------------

    def kill_worker(self, pid: int | None = None) -> int:
        """Kill a worker here and now, in the middle of what it does.

        What it has sent arrives, what it was about to send does not. Its coroutines are cancelled and its
        threads unwound; nothing that their clean-up does reaches anybody.

        Args:
            pid: Which; None is one with a task if there is any, drawn from the seed.

        Returns:
            The pid of the killed worker.

        Raises:
            LookupError: when there is no such worker alive.
        """
        living = self._living()
        if pid is None:
            busy = [worker for worker in living if worker.worker.lease is not None]
            candidates = busy or living
        else:
            candidates = [w for w in living if w.simulated is not None and w.simulated.pid == pid]
        if not candidates:
            raise LookupError("no worker is alive" if pid is None else f"no worker with pid {pid} is alive")
        chosen = self._machine.rng.choice(candidates).simulated
        assert chosen is not None
        chosen.end(KILLED)
        return chosen.pid

    def kill_node(self) -> None:
        """Kill the node here and now; its workers end with it. Quiet when it has ended."""
        self._node.end(KILLED)

    async def run_blocking(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run a function that uses the blocking verbs, as a thread of the driver, and return its result.

        Raises:
            BaseException: whatever the function raises.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def run() -> None:
            try:
                outcome = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised again by who awaits
                finish = partial(_fail, done, error)
            else:
                finish = partial(_succeed, done, outcome)
            self._machine.loop.call_soon_threadsafe(finish)

        self._driver.start_thread(run)
        return await done

    # --- start ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError(  # noqa: TRY004 - what is wrong is where this runs
                "a simulated cluster needs virtual time: run this by asyncray.testing.simulate, or by "
                "asyncio.Runner(loop_factory=asyncray.testing.VirtualLoop)"
            )
        # When cyclic garbage is collected depends on all that this process did before: it must not decide.
        self._collects = gc.isenabled()
        gc.disable()
        self._machine = SimulatedMachine(loop, random.Random(self.seed), self._delay_s, self._store_bytes)
        self._machine.__enter__()
        self._driver = self._machine.new_process("driver", owns_tasks=False)
        self._node = self._machine.new_process("node")
        self._token = enter(self._driver.process)
        ready = self._start(self._machine)
        await ready.wait()
        return self

    def _start(self, machine: SimulatedMachine) -> asyncio.Event:
        """Start node and driver; the event is set when the node is ready."""
        boot = self._boot()
        ours, theirs = machine.hub.pair(self._driver.pid, self._node.pid)
        self._node.context.run(self._start_node, boot, theirs)
        ready = asyncio.Event()
        connection = StreamConnection(ours, machine.hub, boot.config.max_frame_bytes)
        scope = TaskScope()
        # The driver is a coroutine on the session's own loop.
        scope.concurrent = True
        session = new_session(machine, self._driver, connection, scope, boot, boot.driver_process_id)

        def on_ready(facts: dict[str, Any]) -> None:
            session.facts = facts
            ready.set()

        session.on_node_message = {
            m.READY: on_ready,
            m.WARN: lambda text: _log.warning("%s", text),
            m.STOPPED: self._stopped.set,
        }
        self._driver.process.driver = _Driver(session)  # type: ignore[assignment]
        connection.start()
        return ready

    def _start_node(self, boot: Boot, sock: MemorySocket) -> None:
        machine = self._machine

        def make_pool(logs: object, on_connected: Any, on_died: Any) -> SimulatedPool:
            self._pool = SimulatedPool(machine, self._node, boot, on_connected, on_died)
            return self._pool

        connection = StreamConnection(sock, machine.hub, boot.config.max_frame_bytes)
        simulated = Machine(
            clock=machine.loop.time, make_pool=make_pool, total_bytes=_MEMORY_BYTES, memory_use=None
        )
        self._head = node = Node(machine.loop, boot, connection, simulated)
        connection.start()
        node.start(self._node.pid)
        machine.loop.create_task(self._end_node(node), name="end of the simulated node")

    async def _end_node(self, node: Node) -> None:
        await node.stopped.wait()
        self._node.end(EXITED)

    def _boot(self) -> Boot:
        rng = self._machine.rng
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        units = {names.get(name, name): to_units(name, value) for name, value in self._quantities.items()}
        units.setdefault("memory", to_units("memory", _MEMORY_BYTES))
        return Boot(
            config=self._config,
            credentials=Credentials(rng.randbytes(8), rng.randbytes(32)),
            driver_pid=self._driver.pid,
            driver_process_id=new_process_id(rng.randbytes),
            resources=Resources(units).to_wire(),
            namespace=rng.randbytes(8).hex(),
            store_bytes=self._machine.arena.size,
        )

    def _living(self) -> list[PooledWorker]:
        return [w for w in self._pool.processes.values() if w.simulated is not None and w.simulated.alive]

    # --- end ------------------------------------------------------------------------------------------------

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            await self._stop()
        finally:
            if self._token is not None:
                leave(self._token)
            self._machine.__exit__()
            if self._collects:
                gc.enable()
        if error is None and self._machine.crashes:
            raise BaseExceptionGroup("errors that nobody was there to handle", self._machine.crashes)

    async def _stop(self) -> None:
        """The orderly end, then the end of everything that is left."""
        session = self.driver if self._driver.process.session is not None else None
        if session is not None and session.failure is None:
            session.control.send([m.STOP])
            try:
                async with asyncio.timeout(_END_S):
                    await self._stopped.wait()
            except TimeoutError:
                _log.warning("the simulated node did not end in order")
        await self._machine.end(_END_S)


class _Driver:
    """What `asyncray.shutdown` and its like find in the driver's process."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def stop(self) -> None:
        """End the session; the node sees that, and ends too."""
        self.session.close()


def simulate(main: Callable[[SimulatedCluster], Awaitable[T]], *, seed: int = 0, **options: Any) -> T:
    """Run `main(cluster)` as the driver of a simulated cluster, on a virtual loop of its own.

    Args:
        main: The driver's program.
        seed: See :class:`SimulatedCluster`, as for the other options.
        **options: Of the cluster.

    Returns:
        What *main* returns.

    Raises:
        DeadlockError: when the program would wait for ever.
        BaseException: whatever *main* raises.
    """

    async def run() -> T:
        async with SimulatedCluster(seed, **options) as cluster:
            return await main(cluster)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def _succeed(future: asyncio.Future[T], outcome: T) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
