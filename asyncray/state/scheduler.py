"""Which owner gets which worker: the node's decisions.

Owners demand leases for scheduling classes; workers start, idle, are lent and given back. After every
change the node calls :meth:`Scheduler.assign`, one synchronous pass that grants what can be granted and
says which workers to start.

Rule 1: a lease holds its resources from its grant to its end; a worker whose task waits for others has its
        CPU taken back for that time, and takes it again when it goes on, even where none is free.
Rule 2: the deepest call goes first. A task that waits for its child would otherwise lose the CPU that it
        gave back to yet another task that will wait, until the machine is full of waiting processes.
Rule 3: nothing is started that could not be granted at once, and of each kind only as many workers at a time
        as there are CPUs: more would not be up sooner, and by then the calls may have been done.
Rule 4: among demands of one depth the better rank goes first (state.ranking), then the order of asking. A
        demand that says nothing of ranks has that of a task without priority that waits since it was asked.
Rule 5: an actor keeps its worker to the end, and does not leave it to the next. So where actors follow each
        other, workers are started for those that may come: a start takes longer than most constructors.
Rule 6: a pass looks at what waits and at what it grants, never at all workers: those stand in state.staff by
        what passes ask of them, so that a machine with a thousand idle actors is as quick as an empty one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

from ..resources import UNITS, NodeResources, Resources
from .staff import LEASED, RETIRING, STARTING, Staff, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .staff import PoolKey

#: Starts in a row that may fail before nothing more is started for what is asked.
_MOST_FAILURES: Final = 3

#: Workers of one kind that may be started at a time on any machine.
_FEWEST_STARTING: Final = 2

#: Seconds in which a second actor must follow for a third to be expected.
_SOON_S: Final = 1.0
#: Workers of one kind that are had ready for actors to come: one to take, and one that is being started.
_READY: Final = 2

#: How a worker runs calls: one after the other, or as coroutines.
MODES: Final = ("sync", "async")


@dataclass(slots=True, eq=False)
class Demand:
    """How many leases of one scheduling class an owner wants."""

    owner: bytes
    number: int
    mode: str
    environment: bytes
    resources: Resources
    retriable: bool
    #: What the lease holds from its grant on: all of the resources, but for actors that only need them to be
    #: placed.
    held: Resources
    #: Whether the leases are actors', who keep them.
    kept: bool = False
    count: int = 0
    depth: int = 0
    #: Position in the order of first asking, among equals.
    order: int = 0
    #: The rank of its first task, on the node's clock.
    rank: float = 0.0
    #: Name of the first task that waits.
    name: str = ""
    warned: bool = False


@dataclass(slots=True, eq=False)
class Grant:
    """A lease in force."""

    number: int
    demand: Demand
    worker: Worker
    gpus: tuple[int, ...]
    name: str
    blocked: bool = False


@dataclass(slots=True)
class Plan:
    """What the node must do now."""

    grants: list[Grant] = field(default_factory=list)
    starts: list[PoolKey] = field(default_factory=list)
    #: Idle workers that must make room for others; they are marked as retiring already.
    retirements: list[Worker] = field(default_factory=list)
    #: Demands that cannot be met because no further process may be started.
    denials: list[Demand] = field(default_factory=list)
    #: Demands that this node could never meet, told once each.
    infeasible: list[Demand] = field(default_factory=list)
    #: One that waits for others to let go of their workers, because no further process may be started.
    held_up: Demand | None = None


class _Supply:
    """What a pass has not promised to a demand yet."""

    def __init__(self, available: Mapping[str, int], starting: Counter[PoolKey]) -> None:
        #: Units by resource.
        self.spare = dict(available)
        #: Workers of each pool that are being started, with those that the pass adds.
        self.starting = starting.copy()
        #: And those among them that were started before it.
        self.coming = starting.copy()

    def take(self, resources: Resources) -> None:
        """So much is granted or promised."""
        for name, units in resources.items():
            self.spare[name] -= units


class Scheduler:
    """The node's tables of demands, workers and leases."""

    def __init__(self, total: Resources, gpu_ids: Iterable[int], max_workers: int) -> None:
        self.resources = NodeResources(total)
        self.max_workers = max_workers
        #: Whether there may soon be room for more: nothing is refused then for want of a further worker.
        self.may_grow = False
        self._most_starting = max(_FEWEST_STARTING, total.get("CPU", 0) // UNITS)
        self.staff = Staff()
        #: By number.
        self.workers = self.staff.workers
        self.grants: dict[int, Grant] = {}
        self.demands: dict[tuple[bytes, int], Demand] = {}
        #: The demands that are not met.
        self._open: dict[tuple[bytes, int], Demand] = {}
        #: The leases that each owner holds, by number; owners without any are not there.
        self.held: dict[bytes, dict[int, Grant]] = {}
        #: Leases whose tasks do not wait for others.
        self._unblocked = 0
        #: Units free on each GPU.
        self._gpus = dict.fromkeys(gpu_ids, UNITS)
        #: How many starts in a row have failed, and the newest worker at that time, by mode and environment.
        self._failures: dict[tuple[str, bytes], tuple[int, int]] = {}
        #: The ranks that owners have told, by class.
        self._ranks: dict[tuple[bytes, int], float] = {}
        #: Whether anybody uses priorities.
        self.ranked = False
        #: When an actor took a worker of each pool, where that was a moment ago.
        self._taken: dict[PoolKey, float] = {}
        self._next_grant = 1
        self._next_order = 1

    # --- events -------------------------------------------------------------------------------------------

    def want(
        self,
        owner: bytes,
        number: int,
        description: list[Any] | None,
        count: int,
        name: str,
        now: float = 0.0,
    ) -> None:
        """An owner wants *count* more leases of its class *number*.

        Raises:
            KeyError: when the class was never described.
            ValueError: when the description or the count is none.
        """
        key = (owner, number)
        if count < 0:
            raise ValueError(f"nobody can want {count} leases")
        if description is not None:
            self.refuse(self.demands.get(key))
            self.demands[key] = _described(owner, number, description)
        demand = self.demands[key]
        if count and not demand.count:
            demand.order = self._next_order
            self._next_order += 1
            demand.depth = self.depth_of(owner)
            demand.rank = self._ranks.get(key, now)
        demand.count = count
        demand.name = name
        if count:
            self._open[key] = demand
        else:
            self._open.pop(key, None)

    def refuse(self, demand: Demand | None) -> None:
        """A demand will not be met, or is there no more."""
        if demand is not None:
            demand.count = 0
            self._open.pop((demand.owner, demand.number), None)

    def rank(self, owner: bytes, number: int, rank: float) -> None:
        """An owner says how its class *number* ranks, from now on, also when it wants nothing yet."""
        self.ranked = True
        self._ranks[owner, number] = rank
        if (owner, number) in self.demands:
            self.demands[owner, number].rank = rank

    def outbids(self) -> dict[tuple[bytes, int], float]:
        """By owner and class: the best rank that waits for what one lease of the class holds.

        Only where that is better than what the class itself waits for. A demand for which one lease is not
        enough is not among them: to wait for several, workers would have to idle.
        """
        free = self.resources.available
        waiting = [demand for demand in self._open.values() if not demand.resources.fits(free)]
        waiting.sort(key=lambda demand: (demand.rank, demand.order))
        found: dict[tuple[bytes, int], float] = {}
        # A lease whose task waits for others has given back what it can.
        for holder in dict.fromkeys(grant.demand for grant in self.grants.values() if not grant.blocked):
            if (holder.owner, holder.number) not in self.demands:
                continue  # its owner is dead, and its workers are about to be
            # What it will ask for next, only its owner will know.
            own = holder.rank if holder.count else inf
            room = Counter(free)
            room.update(holder.resources)
            for other in waiting:
                if other.rank >= own:
                    break
                if other.depth >= holder.depth and other.resources.fits(room):
                    found[holder.owner, holder.number] = other.rank
                    break
        return found

    def depth_of(self, owner: bytes) -> int:
        """How many calls deep an owner's running task is; 0 for a driver."""
        worker = self.staff.of_process(owner)
        return 0 if worker is None else worker.depth

    def started(self, worker: Worker) -> None:
        """A worker is being started."""
        self.staff.add(worker)

    def ready(self, worker: Worker, process_id: bytes, now: float) -> None:
        """A worker has registered."""
        self.staff.registered(worker, process_id)
        self.staff.idle(worker, now)
        self._failures.pop(worker.pool[:2], None)

    def gone(self, worker: Worker, *, no_room: bool = False) -> Grant | None:
        """A worker is dead; returns the lease that it takes along.

        Args:
            worker: The worker.
            no_room: It never was, because the machine has no room for one more beside the others.
        """
        self.staff.remove(worker)
        if worker.state == STARTING and not (no_room and self.workers):
            self._start_failed(worker)
        grant = worker.lease
        if grant is not None:
            self._end(grant)
        return grant

    def _start_failed(self, worker: Worker) -> None:
        count, newest = self._failures.get(worker.pool[:2], (0, 0))
        if worker.number > newest:
            # Those that were being started at the same time fail together, and count as one.
            self._failures[worker.pool[:2]] = (count + 1, max([worker.number, *self.workers]))

    def given_up(self, worker: Worker) -> list[Demand]:
        """What is not tried any more after this worker's death: workers for it end before they are ready."""
        count, _ = self._failures.get(worker.pool[:2], (0, 0))
        if count < _MOST_FAILURES:
            return []
        del self._failures[worker.pool[:2]]
        mode, environment = worker.pool[:2]
        demands = self._open.values()
        return [demand for demand in demands if (demand.mode, demand.environment) == (mode, environment)]

    def returned(self, grant: Grant, now: float) -> None:
        """An owner gave a lease back."""
        self._end(grant)
        grant.worker.lease = None
        grant.worker.depth = 0
        self.staff.idle(grant.worker, now)

    def retiring(self, worker: Worker) -> None:
        """An idle worker is asked to end: it is not lent any more."""
        self.staff.move(worker, RETIRING)

    def kept(self, worker: Worker, now: float) -> None:
        """It owns something that is needed, and stays."""
        if worker.state == RETIRING:
            self.staff.idle(worker, now, needed=True)

    def blocked(self, worker: Worker, *, blocked: bool) -> None:
        """A worker's task waits for others, or goes on."""
        grant = worker.lease
        if grant is None or grant.blocked == blocked:
            return
        grant.blocked = blocked
        self._unblocked += -1 if blocked else 1
        cpu = grant.demand.held.only("CPU")
        if blocked:
            self.resources.release(cpu)
        else:
            self.resources.acquire(cpu, force=True)

    def owner_gone(self, owner: bytes) -> list[Grant]:
        """An owner is dead; returns the leases it held, which stay until their workers end."""
        for key in [key for key in self.demands if key[0] == owner]:
            self.refuse(self.demands.pop(key))
        for key in [key for key in self._ranks if key[0] == owner]:
            del self._ranks[key]
        return list(self.held.get(owner, {}).values())

    def _end(self, grant: Grant) -> None:
        if self.grants.pop(grant.number, None) is None:
            return
        owner = grant.demand.owner
        del self.held[owner][grant.number]
        if not self.held[owner]:
            del self.held[owner]
        held = grant.demand.held
        if grant.blocked:
            held = held.subtract(held.only("CPU"))
        else:
            self._unblocked -= 1
        self.resources.release(held)
        for gpu, units in _gpu_units(grant.demand.resources, grant.gpus):
            self._gpus[gpu] += units

    # --- the pass -----------------------------------------------------------------------------------------

    def assign(self, now: float = 0.0) -> Plan:
        """Grant what can be granted; say what must be started for the rest. At *now*, in seconds."""
        plan = Plan()
        if self._open:
            supply = _Supply(self.resources.available, self.staff.starting)
            for demand in self.waiting():
                self._serve(demand, plan, supply)
            for grant in plan.grants:
                if grant.demand.kept:
                    self._start_ahead(grant, plan, supply, now)
        return plan

    def _serve(self, demand: Demand, plan: Plan, supply: _Supply) -> None:
        if not self.resources.feasible(demand.resources):
            if not demand.warned:
                demand.warned = True
                plan.infeasible.append(demand)
            return
        wanted = demand.count
        while wanted and demand.resources.fits(supply.spare):
            gpus = self._choose_gpus(demand)
            if gpus is None:
                return
            pool = (demand.mode, demand.environment, gpus)
            taken = demand.resources
            worker = self.staff.last_idle(pool)
            if worker is not None:
                self._grant(demand, worker, gpus, plan)
                # An actor may hold less than it needs to be placed, and the rest is for the next one. Were
                # that not seen in this pass, nothing would bring about another.
                taken = demand.held
            elif supply.coming[pool]:
                supply.coming[pool] -= 1
            elif supply.starting[pool] >= self._most_starting:
                return
            elif len(self.workers) + len(plan.starts) >= self.max_workers:
                self._make_room(demand, plan)
                return
            else:
                plan.starts.append(pool)
                supply.starting[pool] += 1
            wanted -= 1
            supply.take(taken)

    def _start_ahead(self, grant: Grant, plan: Plan, supply: _Supply, now: float) -> None:
        """Start workers for the actors that may follow the one of *grant*."""
        pool = grant.worker.pool
        follows = now - self._taken.get(pool, -inf) <= _SOON_S
        self._taken = {key: then for key, then in self._taken.items() if now - then <= _SOON_S}
        self._taken[pool] = now
        if not follows or grant.gpus or not grant.demand.resources.fits(supply.spare):
            return
        lacking = _READY - supply.starting[pool] - self.staff.count_idle(pool)
        room = self.max_workers - len(self.workers) - len(plan.starts)
        for _ in range(min(lacking, room)):
            plan.starts.append(pool)
            supply.starting[pool] += 1

    def _make_room(self, demand: Demand, plan: Plan) -> None:
        """No further worker may be started: wait, let an idle one of another pool go, or refuse.

        As long as anything runs, starts or ends, a worker may yet become free. Only one demand is refused,
        the deepest: its failure lets those that wait for it go on.
        """
        if plan.starts or plan.retirements or plan.denials:
            return
        if self.staff.starting or self.staff.retiring:
            return
        oldest = self.staff.first_unneeded()
        if oldest is not None:
            self.retiring(oldest)
            plan.retirements.append(oldest)
        elif not self._unblocked and not self.may_grow:
            plan.denials.append(demand)
        else:
            plan.held_up = demand

    def _grant(self, demand: Demand, worker: Worker, gpus: tuple[int, ...], plan: Plan) -> None:
        self.resources.acquire(demand.held)
        for gpu, units in _gpu_units(demand.resources, gpus):
            self._gpus[gpu] -= units
        grant = Grant(self._next_grant, demand, worker, gpus, demand.name)
        self._next_grant += 1
        self.grants[grant.number] = grant
        self.held.setdefault(demand.owner, {})[grant.number] = grant
        self._unblocked += 1
        self.staff.move(worker, LEASED)
        worker.lease = grant
        worker.needed = False
        worker.depth = demand.depth + 1
        demand.count -= 1
        if not demand.count:
            del self._open[demand.owner, demand.number]
        plan.grants.append(grant)

    def _choose_gpus(self, demand: Demand) -> tuple[int, ...] | None:
        """The GPUs for one lease; None when there are not enough free."""
        units = demand.resources.get("GPU", 0)
        if not units:
            return ()
        if units < UNITS:
            # The fullest GPU that has room, so that whole ones stay whole.
            fitting = sorted((free, gpu) for gpu, free in self._gpus.items() if free >= units)
            return (fitting[0][1],) if fitting else None
        whole = [gpu for gpu, free in self._gpus.items() if free == UNITS]
        count = units // UNITS
        return tuple(whole[:count]) if len(whole) >= count else None

    # --- questions ----------------------------------------------------------------------------------------

    @property
    def granted(self) -> int:
        """How many leases have been granted so far."""
        return self._next_grant - 1

    def waiting(self) -> list[Demand]:
        """The demands that are not met, in the order in which they are served."""
        return sorted(self._open.values(), key=lambda demand: (-demand.depth, demand.rank, demand.order))

    def who_waits(self) -> set[bytes]:
        """The owners with a demand that could be met one day, and is not."""
        feasible = self.resources.feasible
        return {demand.owner for demand in self._open.values() if feasible(demand.resources)}

    def surplus(self, keep: int, now: float, idle_s: float) -> list[Worker]:
        """Idle workers beyond *keep* that have been idle for *idle_s* seconds, the oldest first."""
        idle = self.staff.all_idle()
        old = [worker for worker in idle if now - (worker.idle_since or 0.0) >= idle_s]
        return old[: max(0, len(idle) - keep)]

    def chain(self, owner: bytes) -> list[str]:
        """The names of the tasks that led to what *owner* demands, the outermost first."""
        names: list[str] = []
        seen = set()
        while (worker := self.staff.of_process(owner)) is not None and worker.lease is not None:
            if owner in seen:
                break
            seen.add(owner)
            names.append(worker.lease.name)
            owner = worker.lease.demand.owner
        return names[::-1]

    def expendable(self, began: Mapping[int, int]) -> Grant | None:
        """The lease to end when memory runs out: the newest whose tasks may run again, else the newest.

        Args:
            began: When the task of each lease began, in any unit, by lease number; idle leases are not there.
        """
        busy = [grant for number, grant in self.grants.items() if number in began]
        busy.sort(key=lambda grant: (grant.demand.retriable, began[grant.number], grant.number))
        return busy[-1] if busy else None

    def validate(self) -> None:
        """Assert every invariant; for tests and debugging."""
        used: dict[str, int] = {}
        for grant in self.grants.values():
            assert grant.worker.lease is grant
            assert grant.worker.state == LEASED
            held = grant.demand.held
            for name, units in (held.subtract(held.only("CPU")) if grant.blocked else held).items():
                used[name] = used.get(name, 0) + units
        for name, total in self.resources.total.items():
            assert self.resources.available[name] + used.get(name, 0) == total, name
        for worker in self.workers.values():
            assert (worker.lease is not None) == (worker.state == LEASED)
        open_demands = {key: demand for key, demand in self.demands.items() if demand.count}
        assert open_demands == self._open
        assert self._unblocked == sum(not grant.blocked for grant in self.grants.values())
        assert sum(map(len, self.held.values())) == len(self.grants)
        assert all(self.held.values())
        self.staff.validate()


def _described(owner: bytes, number: int, description: list[Any]) -> Demand:
    """A demand from its description as it travels: mode, units by name, packed environment, retriable.

    A fifth property is for actors, and says what the lease holds: units by name.

    Raises:
        ValueError: when it is none.
    """
    if len(description) not in (4, 5):
        raise ValueError(f"a scheduling class has 4 or 5 properties, not {len(description)}")
    mode, units, environment, retriable = description[:4]
    if mode not in MODES or type(environment) is not bytes or type(retriable) is not bool:
        raise ValueError("a property of a scheduling class is of the wrong type")
    resources, *held = map(_resources, [units, *description[4:]])
    if resources.get("GPU", 0) > UNITS and resources["GPU"] % UNITS:
        raise ValueError("GPUs above one are whole")
    holds = held[0] if held else resources
    return Demand(owner, number, mode, environment, resources, retriable, holds, kept=bool(held))


def _resources(units: Any) -> Resources:
    if type(units) is not dict or not all(type(k) is str and type(v) is int for k, v in units.items()):
        raise ValueError("the resources of a scheduling class are not units by name")
    return Resources.from_wire(units)


def _gpu_units(resources: Resources, gpus: tuple[int, ...]) -> list[tuple[int, int]]:
    units = resources.get("GPU", 0)
    return [(gpu, min(units, UNITS)) for gpu in gpus]
