"""The workers of a node, by what a pass of the scheduler asks of them.

Rule 1: a worker's state changes here alone, so that no pass has to look at all workers.
Rule 2: the idle ones stand in the order in which they became idle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .scheduler import Grant

STARTING: Final = "starting"
IDLE: Final = "idle"
LEASED: Final = "leased"
#: Asked to end; it may answer that it is needed.
RETIRING: Final = "retiring"
#: It hosts light actors, and is never lent; see node.hosts.
HOSTING: Final = "hosting"

#: What workers must have in common to be interchangeable: mode, runtime environment (packed), GPU ids.
PoolKey = tuple[str, bytes, tuple[int, ...]]


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process."""

    number: int
    pool: PoolKey
    state: str = STARTING
    lease: Grant | None = None
    #: Seconds on the node's clock; None unless idle.
    idle_since: float | None = None
    #: How many calls deep its task is: 1 for a driver's.
    depth: int = 0
    #: Process id of the session in it; empty until it has registered.
    process_id: bytes = b""
    #: It has refused to end since it ran last: it owns something.
    needed: bool = False


class Staff:
    """All workers of a node."""

    def __init__(self) -> None:
        #: By number.
        self.workers: dict[int, Worker] = {}
        self._by_process: dict[bytes, Worker] = {}
        #: How many are being started, by pool; pools with none are not there.
        self.starting: Counter[PoolKey] = Counter()
        #: How many were asked to end.
        self.retiring = 0
        #: By pool and number; pools without any are not there.
        self._idle: dict[PoolKey, dict[int, Worker]] = {}
        #: The idle ones that nobody needs.
        self._unneeded: dict[int, Worker] = {}

    # --- changes ------------------------------------------------------------------------------------------

    def add(self, worker: Worker) -> None:
        """A worker is being started."""
        self.workers[worker.number] = worker
        self._enter(worker)

    def registered(self, worker: Worker, process_id: bytes) -> None:
        """A worker has said which process it is."""
        worker.process_id = process_id
        self._by_process[process_id] = worker

    def remove(self, worker: Worker) -> None:
        """A worker is dead."""
        if self.workers.pop(worker.number, None) is not None:
            self._leave(worker)
            self._by_process.pop(worker.process_id, None)

    def idle(self, worker: Worker, now: float, *, needed: bool = False) -> None:
        """A worker has nothing to do from now on."""
        self._leave(worker)
        worker.state, worker.idle_since, worker.needed = IDLE, now, needed
        self._enter(worker)

    def move(self, worker: Worker, state: str) -> None:
        """A worker is lent, or asked to end."""
        self._leave(worker)
        worker.state = state
        worker.idle_since = None
        self._enter(worker)

    def may_be_unneeded(self, since: float) -> bool:
        """Count those that refused to end before *since* among the ones that may; whether there were any."""
        idle = self.all_idle()
        found = [worker for worker in idle if worker.needed and (worker.idle_since or 0.0) <= since]
        for worker in found:
            worker.needed = False
            self._unneeded[worker.number] = worker
        return bool(found)

    def count_needed(self) -> int:
        """How many idle ones have refused to end."""
        return self.count_idle() - len(self._unneeded)

    def _enter(self, worker: Worker) -> None:
        if worker.state == IDLE:
            self._idle.setdefault(worker.pool, {})[worker.number] = worker
            if not worker.needed:
                self._unneeded[worker.number] = worker
        elif worker.state == STARTING:
            self.starting[worker.pool] += 1
        elif worker.state == RETIRING:
            self.retiring += 1

    def _leave(self, worker: Worker) -> None:
        if worker.state == IDLE:
            idle = self._idle[worker.pool]
            del idle[worker.number]
            if not idle:
                del self._idle[worker.pool]
            self._unneeded.pop(worker.number, None)
        elif worker.state == STARTING:
            self.starting[worker.pool] -= 1
            if not self.starting[worker.pool]:
                del self.starting[worker.pool]
        elif worker.state == RETIRING:
            self.retiring -= 1

    # --- questions ----------------------------------------------------------------------------------------

    def of_process(self, process_id: bytes) -> Worker | None:
        """The worker that is this process; None for a driver, or when it is dead."""
        return self._by_process.get(process_id)

    def last_idle(self, pool: PoolKey) -> Worker | None:
        """The idle worker of a pool that was used last: its caches are warm, and the others can retire."""
        idle = self._idle.get(pool)
        return None if idle is None else idle[next(reversed(idle))]

    def first_unneeded(self) -> Worker | None:
        """Of the idle workers that may end, the one that has been idle for longest."""
        return min(self._unneeded.values(), key=lambda worker: worker.idle_since or 0.0, default=None)

    def count_idle(self, pool: PoolKey | None = None) -> int:
        """How many are idle, of one pool or of all."""
        if pool is not None:
            return len(self._idle.get(pool, ()))
        return sum(map(len, self._idle.values()))

    def all_idle(self) -> list[Worker]:
        """The idle ones, those that were used first at the front."""
        idle = [worker for pool in self._idle.values() for worker in pool.values()]
        idle.sort(key=lambda worker: worker.idle_since or 0.0)
        return idle

    def validate(self) -> None:
        """Assert that every index is what a look at all workers would find; for tests."""
        states = Counter(worker.state for worker in self.workers.values())
        starting = Counter(worker.pool for worker in self.workers.values() if worker.state == STARTING)
        assert starting == self.starting
        assert all(self.starting.values())
        assert states[RETIRING] == self.retiring
        assert states[IDLE] == self.count_idle()
        idle = {worker.number for worker in self.all_idle()}
        assert idle == {worker.number for worker in self.workers.values() if worker.state == IDLE}
        assert set(self._unneeded) == {n for n in idle if not self.workers[n].needed}
        known = {worker.process_id: worker for worker in self.workers.values() if worker.process_id}
        assert known == self._by_process
