"""The node: who is connected, who wants what, who died.

Decisions are the scheduler's (state.scheduler); this file hears what happens, asks it, and carries out what
it says. Everything runs on one event loop, in a process of its own that no user code ever slows down.
"""

from __future__ import annotations

import asyncio
import logging
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..exceptions import ProtocolError
from ..ids import PROCESS_ID_BYTES
from ..resources import Resources
from ..state.deaths import Deaths
from ..state.scheduler import Demand, Grant, Plan, Scheduler
from ..state.scheduling_report import report
from ..wire import messages as m
from ..wire.answers import check_inventory
from ..wire.handshake import Identity
from .census import Census
from .contention import Contention
from .directory import Directory
from .farewells import Farewells
from .grants import Grants
from .hosts import HOST, Hosts
from .logs import LogHub
from .machine import UNFORKED
from .pressure import MemoryWatch
from .spawn import variables_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.connection import Connection
    from ..wire.frames import Message
    from .boot import Boot
    from .machine import Machine, WorkerProcess

_log = logging.getLogger("asyncray.node")
#: Workers that memory allows at least, however little there is: without any, nothing would run.
_FEWEST_WORKERS: Final = 8
#: Seconds after which it is tried again to start one more worker where that was impossible; each further time
#: twice as many, up to the second number.
_MORE_AFTER_S: Final = 1.0
_MORE_AT_LAST_S: Final = 30.0
#: That wait, in seconds, from which on nobody is kept waiting for room who waits for nothing else.
_HOPELESS_AFTER_S: Final = 4.0
#: Extents that a process may ask for at a time.
_MOST_EXTENTS: Final = 4096
#: Seconds after which the next demand is refused, where the end of the one before has let nobody go on.
_REFUSE_NEXT_AFTER_S: Final = 1.0


class Node:
    """One machine's part of a session."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, boot: Boot, driver: Connection, machine: Machine
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._boot = boot
        self._config = boot.config
        self._driver = driver
        #: The ceiling of workers and why it is there, while the machine has room for them.
        self._full_ceiling = _most_workers(machine, boot.config.worker_memory_estimate_bytes)
        ceiling, self._limit = self._full_ceiling
        #: Seconds after which it is tried again whether there is room for more.
        self._more_after_s = _MORE_AFTER_S
        self.scheduler = Scheduler(Resources.from_wire(boot.resources), range(len(boot.gpus)), ceiling)
        self._logs = LogHub(loop, self._send_log, boot.config.log_buffer_bytes)
        self.pool = machine.make_pool(self._logs, self._connected, self._died)
        self.pool.warnings = self._warn
        #: Connections of owners by process id.
        self._owners: dict[bytes, Connection] = {boot.driver_process_id: driver}
        self._contention = Contention(
            self.scheduler, self._owners, boot.config.priority_ageing_s, machine.clock
        )
        self.grants = Grants(
            boot.store_bytes,
            boot.config,
            self._send_to,
            self._owners.keys,
            loop.call_later,
            machine.give_back,
        )
        self.census = Census(self._send_to, self._owners.keys, self._pids, self.grants.told)
        self._sweeping = False
        #: Whether it is watched, or was told, that no more workers may be started.
        self._ceiling_watched = False
        self._deaths = Deaths()
        self.directory = Directory()
        self.farewells = Farewells(self._send_to)
        self._questions = self.directory.questions()
        self.hosts = Hosts(self._start_host, self._send_if_there, self.scheduler.staff.move)
        use_of = machine.memory_use
        self._memory = (
            None if use_of is None else MemoryWatch(loop, self._config, self.scheduler, self.pool, use_of)
        )
        self.stopped = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        driver.on_message = lambda _, message, __: self._on_message(boot.driver_process_id, message)
        driver.on_close = lambda _, __: self.stop(orderly=False)

    def start(self, pid: int) -> None:
        """Say that the node is ready, and start workers ahead for the driver's first calls."""
        facts = {"pid": pid, "resources": self._boot.resources, "labels": self._boot.labels}
        self._driver.send([m.READY, facts])
        cpus = int(Resources.from_wire(self._boot.resources).to_floats().get("CPU", 0))
        ahead = cpus if self._boot.start_ahead is None else min(cpus, self._boot.start_ahead)
        for _ in range(min(ahead, self.scheduler.max_workers)):
            self.scheduler.started(self.pool.start(("sync", self._boot.environment, ())))

    # --- messages -----------------------------------------------------------------------------------------

    def _on_message(self, sender: bytes, message: Message) -> None:
        handler = self._HANDLERS.get(message[0])
        if handler is None:
            raise ProtocolError(f"message number {message[0]} is not for a node")
        handler(self, sender, *message[1:])

    def _connected(self, process: WorkerProcess) -> None:
        """A worker is being started: its first message says who it is."""

        def first(connection: Connection, message: Message, buffers: list[memoryview]) -> None:
            if message[0] == m.BROKEN:
                self._broken(process, message[1])
                return
            if message[0] != m.REGISTER:
                raise ProtocolError("a worker must register first")
            if message[1] != process.worker.number:
                raise ProtocolError(f"worker {process.worker.number} registers as worker {message[1]}")
            self._register(process, message[2], message[3])

        process.connection.on_message = first
        process.connection.on_close = lambda _, error: self._cut_off(process, error)

    def _cut_off(self, process: WorkerProcess, error: Exception | None) -> None:
        """A worker's connection has closed. Mostly it is ending; one that was not understood must end."""
        if isinstance(error, ProtocolError):
            text = f"process {process.pid} was killed after its connection with the node had broken ({error})"
            self.pool.kill(process, "killed", text)

    def _register(self, process: WorkerProcess, address: str, process_id: bytes) -> None:
        if len(process_id) != PROCESS_ID_BYTES or process_id in self._owners:
            raise ProtocolError("a worker registers with an id that is none, or another's")
        connection = process.connection
        connection.peer = Identity(process_id, address, process.pid)
        connection.on_message = lambda _, message, __: self._on_message(process_id, message)
        process.address = address
        self._owners[process_id] = connection
        if self.scheduler.ranked:
            connection.send([m.RANKED])
        self.scheduler.ready(process.worker, process_id, self._now())
        self.hosts.registered(process.worker)
        self._more_after_s = _MORE_AFTER_S
        self._schedule()
        # Whoever it was started for may not want it any more.
        self._sweep_soon()

    def _broken(self, process: WorkerProcess, reason: str) -> None:
        """The environment cannot be had: whoever asked for it hears why."""
        self.pool.kill(process, "environment", reason)
        for demand in list(self.scheduler.demands.values()):
            if demand.count and demand.environment == process.worker.pool[1]:
                self._deny(demand, f"runtime_env: {reason}")

    def _want(self, sender: bytes, number: int, description: Any, count: int, name: str) -> None:
        try:
            for environment in (description or ())[2:3]:
                variables_of(environment)
            self.scheduler.want(sender, number, description, count, name, self._now())
        except KeyError:
            raise ProtocolError(f"class {number} was never described") from None
        except ValueError as error:
            raise ProtocolError(f"class {number}: {error}") from error
        self._schedule()

    def _rank(self, sender: bytes, number: int, lead_s: float) -> None:
        if number < 0 or not isfinite(lead_s):
            raise ProtocolError(f"class {number} cannot be {lead_s} seconds ahead")
        if not self.scheduler.ranked:
            for connection in self._owners.values():
                connection.send([m.RANKED])
        self.scheduler.rank(sender, number, self._now() - lead_s)
        self._schedule()

    def _return(self, sender: bytes, number: int) -> None:
        grant = self.scheduler.grants.get(number)
        if grant is not None and grant.demand.owner == sender:
            self.scheduler.returned(grant, self._now())
            self._schedule()
            self._sweep_soon()

    def _kill(self, sender: bytes, number: int) -> None:
        grant = self.scheduler.grants.get(number)
        if grant is None or grant.demand.owner != sender:
            return
        process = self.pool.processes.get(grant.worker.number)
        if process is not None:
            self.pool.kill(process, "killed", f"process {process.pid} was killed by its caller's wish")

    def _blocked(self, sender: bytes, blocked: bool) -> None:
        worker = self.scheduler.staff.of_process(sender)
        if worker is not None:
            self.scheduler.blocked(worker, blocked=blocked)
            self._schedule()

    def _keep(self, sender: bytes) -> None:
        """A worker that was asked to retire owns something; it is asked again when it has been idle again."""
        self.hosts.kept(sender)
        worker = self.scheduler.staff.of_process(sender)
        if worker is not None:
            self.scheduler.kept(worker, self._now())
        self._schedule()
        self._sweep_soon()

    def _ask(self, sender: bytes, number: int, question: str, argument: Any) -> None:
        if question == "objects":
            self.census.ask(sender, number)
            return
        if question == "keeper":
            self._ask_for_keeper(sender, number)
            return
        if question == "wind_up":
            self._wind_up(sender, number)
            return
        answer = self._questions.get(question)
        told = self._answer(question) if answer is None else answer(sender, argument)
        self._owners[sender].send([m.ANSWER, number, told])

    def _wind_up(self, sender: bytes, number: int) -> None:
        self._check_driver(sender)
        self.farewells.begin(lambda: self._driver.send([m.ANSWER, number, None]))

    def _winds_up(self, sender: bytes) -> None:
        if sender != self._boot.driver_process_id:  # that does without being asked
            self.farewells.announced(sender)

    def _wound_up(self, sender: bytes) -> None:
        self.farewells.done(sender)

    def _ask_for_keeper(self, sender: bytes, number: int) -> None:
        """Answer with the keeper's handle, when there is one; the driver makes it."""

        def answer(handle: bytes) -> None:
            owner = self._owners.get(sender)
            if owner is not None:
                owner.send([m.ANSWER, number, handle])

        known = self.directory.keeper()
        if known is not None:
            answer(known)
            return
        self.directory.asked_for_keeper.append(answer)
        self._driver.send([m.KEEPER_WANTED])

    def _start_host(self, environment: bytes) -> WorkerProcess:
        variables_of(environment)
        worker = self.pool.start((HOST, environment, ()))
        self.scheduler.started(worker)
        return self.pool.processes[worker.number]

    def _host_wanted(self, sender: bytes, environment: bytes, index: int) -> None:
        if self._stopping is None:
            self.hosts.wanted(sender, environment, index)

    def _host_end(self, sender: bytes, process_id: bytes) -> None:
        if process_id:
            process = self.hosts.process(process_id)
            if process is not None:
                why = "its loop was blocked, so that an actor in it could not be killed alone"
                self.pool.kill(process, "killed", f"process {process.pid} was killed: {why}")
            return
        process = self.hosts.idle(sender)
        if process is not None:
            process.connection.send([m.RETIRE])

    def _name_free(self, sender: bytes, namespace: str, name: str, number: int) -> None:
        self.directory.free(sender, namespace, name, number)

    def _answer(self, question: str) -> Any:
        scheduler = self.scheduler
        if question == "available_resources":
            return dict(scheduler.resources.available)
        if question == "workers":
            return [
                [process.pid, process.worker.state, process.worker.pool[0]]
                for process in self.pool.processes.values()
            ]
        if question == "store":
            return self.grants.told()
        if question == "waiting":
            return {**report(scheduler), "processes": self._processes()}
        return {"error": f"a node cannot answer {question!r}"}

    def _need(self, sender: bytes, number: int, size: int, count: int) -> None:
        if size < 1 or not 1 <= count <= _MOST_EXTENTS:
            raise ProtocolError(f"nobody can need {count} extents for {size} bytes")
        self.grants.need(sender, number, size, count)

    def _give(self, sender: bytes, starts: list[Any]) -> None:
        m.check_numbers("GIVE", starts)
        self.grants.give(sender, starts)

    def _settled(self, sender: bytes, turn: int, used: list[Any], orphans: list[Any]) -> None:
        m.check_numbers("SETTLED", [*used, *orphans])
        self.grants.settled(sender, turn, used, orphans)

    def _spilled(self, sender: bytes, turn: int, freed: int, problem: str) -> None:
        self.grants.spilled(sender, turn, freed, problem)

    def _told(self, sender: bytes, turn: int, rows: list[Any]) -> None:
        self.census.told(sender, turn, check_inventory(rows))

    def _pids(self) -> dict[bytes, int]:
        pids = {worker.worker.process_id: worker.pid for worker in self.pool.processes.values()}
        return {**pids, self._boot.driver_process_id: self._boot.driver_pid}

    def _send_to(self, process_id: bytes, message: Message) -> None:
        self._owners[process_id].send(message)

    def _send_if_there(self, process_id: bytes, message: Message) -> None:
        if process_id in self._owners:
            self._owners[process_id].send(message)

    def _processes(self) -> list[list[Any]]:
        """Every process that can be asked: its id, its address, its pid; the driver first."""
        boot = self._boot
        address = f"asyncray-{boot.credentials.session_id.hex()}-{boot.driver_process_id.hex()}"
        workers = [p for p in self.pool.processes.values() if p.address]
        return [
            [boot.driver_process_id, address, boot.driver_pid],
            *([process.worker.process_id, process.address, process.pid] for process in workers),
        ]

    def _stalled(self, sender: bytes) -> None:
        """A call has waited for the same for long: the driver looks for tasks that wait for each other."""
        self._driver.send([m.STALLED])

    def _logged(self, sender: bytes, count: int) -> None:
        self._check_driver(sender)
        if count < 0:
            raise ProtocolError(f"a driver cannot have shown {count} characters")
        self._logs.confirmed(count)

    def _stop(self, sender: bytes) -> None:
        self._check_driver(sender)
        self.stop(orderly=True)

    def _check_driver(self, sender: bytes) -> None:
        if sender != self._boot.driver_process_id:
            raise ProtocolError("a worker sends what only a driver may")

    # --- scheduling ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._stopping is None:
            self._carry_out(self.scheduler.assign(self._now()))

    def _carry_out(self, plan: Plan) -> None:
        for grant in plan.grants:
            self._send_grant(grant)
        for key in plan.starts:
            self.scheduler.started(self.pool.start(key))
        for worker in plan.retirements:
            self.pool.processes[worker.number].connection.send([m.RETIRE])
        for demand in plan.denials:
            self._deny(demand, self._ceiling(demand))
            # Those that wait may all wait for another one, and then nothing else happens here.
            self._loop.call_later(_REFUSE_NEXT_AFTER_S, self._schedule)
        for demand in plan.infeasible:
            self._warn(
                f"the task {demand.name!r} needs {demand.resources.to_floats()}, and the node has "
                f"{self.scheduler.resources.total.to_floats()}: it stays pending"
            )
        if plan.held_up is not None:
            self._watch_ceiling(plan.held_up)
        self._contention.tell({grant.demand.owner for grant in plan.grants})
        if self._memory is not None:
            self._memory.wake()

    def _send_grant(self, grant: Grant) -> None:
        process = self.pool.processes[grant.worker.number]
        message = [
            m.GRANT,
            grant.demand.number,
            grant.number,
            process.address,
            grant.worker.process_id,
            process.pid,
        ]
        self._owners[grant.demand.owner].send(message)

    def _deny(self, demand: Demand, reason: str) -> None:
        self.scheduler.refuse(demand)
        self._owners[demand.owner].send([m.DENIED, demand.number, reason])

    def _ceiling(self, demand: Demand) -> str:
        chain = " -> ".join([*self.scheduler.chain(demand.owner), demand.name])
        return (
            f"{len(self.scheduler.workers)} worker processes exist, {self._limit}; "
            f"tasks that wait for others: {chain}"
        )

    def _watch_ceiling(self, demand: Demand) -> None:
        """Somebody waits for a worker, and there may be no more: say so once if nobody gets one for long."""
        if not self._ceiling_watched:
            self._ceiling_watched = True
            granted = self.scheduler.granted
            self._loop.call_later(self._config.wait_check_s, self._look_at_ceiling, demand, granted)

    def _look_at_ceiling(self, demand: Demand, granted: int) -> None:
        scheduler = self.scheduler
        if not demand.count or len(scheduler.workers) < scheduler.max_workers:
            self._ceiling_watched = False
        elif scheduler.granted != granted:
            self._ceiling_watched = False
            self._watch_ceiling(demand)
        else:
            existing = f"{len(scheduler.workers)} exist, {self._limit}"
            self._warn(f"{demand.name!r} waits for a worker process: {existing}, and all are in use")

    def _died(self, process: WorkerProcess, kind: str, text: str) -> None:
        worker = process.worker
        grant = self.scheduler.gone(worker, no_room=kind == UNFORKED)
        lost = None if grant is None else [m.LOST, grant.number, kind, text, process.running()]
        orphans = self._owner_gone(worker.process_id) if worker.process_id else []
        hosted = self.hosts.gone(worker, kind, text)

        def tell() -> None:
            if hosted is not None and self._stopping is None:
                hosted()
            if grant is not None and lost is not None and grant.demand.owner in self._owners:
                self._owners[grant.demand.owner].send(lost)

        self._deaths.died(worker.number, orphans, tell)
        if kind == UNFORKED and self.scheduler.workers:
            self._lower_ceiling(text)
        for demand in self.scheduler.given_up(worker):
            prefix = "runtime_env: " if demand.environment else ""
            self._deny(demand, f"{prefix}no worker could be started for it: {text}")
        self._schedule()

    def _lower_ceiling(self, text: str) -> None:
        """The machine has no room for one more worker: do with those that there are, and try again later."""
        if self.scheduler.max_workers == self._full_ceiling[0]:
            self.scheduler.may_grow = self._more_after_s < _HOPELESS_AFTER_S
            self._loop.call_later(self._more_after_s, self._raise_ceiling)
            self._more_after_s = min(2 * self._more_after_s, _MORE_AT_LAST_S)
        self.scheduler.max_workers = len(self.scheduler.workers)
        self._limit = text

    def _raise_ceiling(self) -> None:
        self.scheduler.max_workers, self._limit = self._full_ceiling
        self.scheduler.may_grow = False
        self._schedule()

    def _owner_gone(self, owner: bytes) -> list[int]:
        """What a dead owner had running has nowhere to report to: its workers end, too. Returns which.

        They are told, so that their tasks can clean up, and killed after the grace of a cancelled task.
        """
        self._owners.pop(owner, None)
        self.directory.owner_gone(owner)
        self.hosts.owner_gone(owner)
        self._contention.gone(owner)
        self.grants.gone(owner)
        self.census.gone(owner)
        self.farewells.gone(owner)
        orphans = []
        for grant in self.scheduler.owner_gone(owner):
            process = self.pool.processes.get(grant.worker.number)
            if process is not None:
                process.connection.send([m.ORPHANED])
                self._loop.call_later(self._config.cancel_grace_s, self._end_orphan, process)
                orphans.append(process.worker.number)
        return orphans

    def _end_orphan(self, process: WorkerProcess) -> None:
        if self.pool.processes.get(process.worker.number) is process:
            self.pool.kill(process, "owner", "the process that had called for its task died")

    # --- idle workers -------------------------------------------------------------------------------------

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(self._config.worker_idle_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        cpus = self.scheduler.resources.total.to_floats().get("CPU", 0)
        keep = max(1, int(cpus))
        for worker in self.scheduler.surplus(keep, self._now(), self._config.worker_idle_s):
            self.scheduler.retiring(worker)
            self.pool.processes[worker.number].connection.send([m.RETIRE])
        staff = self.scheduler.staff
        if staff.may_be_unneeded(self._now() - self._config.worker_idle_s):
            # Nobody tells when what they own is let go, and somebody may wait for their places.
            self._schedule()
        if staff.count_idle() > keep or staff.count_needed():
            self._sweep_soon()

    # --- output and the end -------------------------------------------------------------------------------

    def _send_log(self, stream: str, prefix: str, text: str) -> int:
        if not self._boot.log_to_driver:
            return 0
        self._driver.send([m.LOG, stream, prefix, text])
        return len(text)

    def _warn(self, text: str) -> None:
        self._driver.send([m.WARN, text])

    def stop(self, *, orderly: bool) -> None:
        """End everything; *orderly* when the driver is there to hear of it."""
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._end(orderly=orderly))

    async def _end(self, *, orderly: bool) -> None:
        try:
            await self.pool.stop()
        except Exception:  # noqa: BLE001 - what is left dies with this process; the driver must hear of the end
            _log.exception("the workers could not be ended in order")
        if orderly:
            self._driver.send([m.STOPPED])
        self.stopped.set()

    def _now(self) -> float:
        return self._machine.clock()

    _HANDLERS: ClassVar[dict[int, Callable[..., None]]] = {
        m.WANT: _want,
        m.RANK: _rank,
        m.RETURN: _return,
        m.KILL: _kill,
        m.BLOCKED: _blocked,
        m.KEEP: _keep,
        m.ASK: _ask,
        m.STALLED: _stalled,
        m.LOGGED: _logged,
        m.NEED: _need,
        m.GIVE: _give,
        m.SETTLED: _settled,
        m.SPILLED: _spilled,
        m.TOLD: _told,
        m.STOP: _stop,
        m.NAME_FREE: _name_free,
        m.HOST_WANTED: _host_wanted,
        m.HOST_END: _host_end,
        m.WINDS_UP: _winds_up,
        m.WOUND_UP: _wound_up,
    }


def _most_workers(machine: Machine, estimate_bytes: int) -> tuple[int, str]:
    """How many workers there may be, and why not more."""
    by_memory = max(_FEWEST_WORKERS, machine.total_bytes // estimate_bytes)
    reason = f"as many as the machine's memory allows at {estimate_bytes} bytes each"
    return min((by_memory, reason), machine.most_workers)
