"""The workers of a node, by what a pass asks of them: always what a look at all of them would find."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from asyncray.state.staff import IDLE, LEASED, RETIRING, STARTING, PoolKey, Staff, Worker

POOLS: list[PoolKey] = [("sync", b"", ()), ("async", b"", ())]


class StaffMachine(RuleBasedStateMachine):
    """Workers start, work, rest, retire and die in any order."""

    workers: Bundle[Worker] = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.staff = Staff()
        self.now = 0.0

    @rule(target=workers, pool=st.sampled_from(POOLS))
    def start(self, pool: PoolKey) -> Worker:
        worker = Worker(len(self.staff.workers) + 1000 * int(self.now), pool)
        self.now += 1.0
        self.staff.add(worker)
        return worker

    @rule(worker=workers)
    def rest(self, worker: Worker) -> None:
        self.now += 1.0
        if worker.state == STARTING:
            self.staff.registered(worker, b"%d" % worker.number)
        self.staff.idle(worker, self.now, needed=worker.state == RETIRING)

    @rule(worker=workers, state=st.sampled_from([LEASED, RETIRING]))
    def move(self, worker: Worker, state: str) -> None:
        if worker.state != STARTING:
            self.staff.move(worker, state)

    @rule(worker=consumes(workers))
    def die(self, worker: Worker) -> None:
        self.staff.remove(worker)
        assert self.staff.of_process(worker.process_id) is None

    @invariant()
    def answers_are_those_of_a_look_at_all(self) -> None:
        self.staff.validate()
        for pool in POOLS:
            idle = [w for w in self.staff.workers.values() if w.state == IDLE and w.pool == pool]
            last = max(idle, key=lambda worker: worker.idle_since or 0.0, default=None)
            assert self.staff.last_idle(pool) is last


TestStaff = StaffMachine.TestCase
TestStaff.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
