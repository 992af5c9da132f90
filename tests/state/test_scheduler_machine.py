"""Whatever happens in whatever order: what could be granted is granted, or a worker for it is on its way.

A pass follows each event, as in the node. Nothing else ever looks at demands again, so one that a pass leaves
without reason waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncray.resources import UNITS, Resources
from asyncray.state.scheduler import MODES, Scheduler
from asyncray.state.staff import LEASED, STARTING, Worker

if TYPE_CHECKING:
    from asyncray.state.scheduler import Grant

CPUS = 3
MOST = 12
#: Of each kind, so many may be started at a time.
STARTING_AT_ONCE = 3


class SchedulerMachine(RuleBasedStateMachine):
    """Owners want, workers start, work, wait and die."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(Resources({"CPU": CPUS * UNITS}), [], MOST)
        self.now = 0.0
        self._numbers = 0
        self._classes: dict[tuple[str, int, str], int] = {}

    def _of(self, state: str) -> list[Worker]:
        return [worker for worker in self.scheduler.workers.values() if worker.state == state]

    def _leases(self) -> list[Grant]:
        return list(self.scheduler.grants.values())

    def _pass(self) -> None:
        plan = self.scheduler.assign(self.now)
        for pool in plan.starts:
            self._numbers += 1
            self.scheduler.started(Worker(self._numbers, pool))
        for demand in plan.denials:
            self.scheduler.refuse(demand)
        for worker in plan.retirements:
            self.scheduler.gone(worker)
        if plan.retirements:
            self._pass()

    @rule(
        mode=st.sampled_from(MODES),
        cpus=st.integers(0, CPUS),
        holds=st.sampled_from(["a task", "a part", "all"]),
        count=st.integers(0, 8),
    )
    def want(self, mode: str, cpus: int, holds: str, count: int) -> None:
        holding: dict[str, list[dict[str, int]]] = {
            "a task": [],
            "a part": [{}],
            "all": [{"CPU": cpus * UNITS}],
        }
        number = self._classes.setdefault((mode, cpus, holds), len(self._classes))
        description = [mode, {"CPU": cpus * UNITS}, b"", True, *holding[holds]]
        known = (b"driver", number) in self.scheduler.demands
        self.scheduler.want(b"driver", number, None if known else description, count, "name", self.now)
        self._pass()

    @precondition(lambda self: self._of(STARTING))
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self._of(STARTING)))
        self.scheduler.ready(worker, b"process %d" % worker.number, self.now)
        self._pass()

    @precondition(lambda self: self.scheduler.grants)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.scheduler.returned(data.draw(st.sampled_from(self._leases())), self.now)
        self._pass()

    @precondition(lambda self: self.scheduler.grants)
    @rule(data=st.data(), blocked=st.booleans())
    def wait_for_others(self, data: st.DataObject, blocked: bool) -> None:
        self.scheduler.blocked(data.draw(st.sampled_from(self._leases())).worker, blocked=blocked)
        self._pass()

    @precondition(lambda self: self.scheduler.workers)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(list(self.scheduler.workers.values())))
        self.scheduler.gone(worker)
        for demand in self.scheduler.given_up(worker):
            self.scheduler.refuse(demand)
        self._pass()

    @rule(seconds=st.floats(0.0, 3.0))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def books_are_right(self) -> None:
        self.scheduler.validate()
        assert len(self.scheduler.workers) <= MOST
        for pool, count in self.scheduler.staff.starting.items():
            assert count <= STARTING_AT_ONCE, pool

    @invariant()
    def nothing_waits_without_reason(self) -> None:
        starting = sum(self.scheduler.staff.starting.values())
        for demand in self.scheduler.waiting():
            if not demand.resources.fits(self.scheduler.resources.available):
                continue
            assert not self.scheduler.staff.count_idle((demand.mode, b"", ())) or starting
            # A worker that starts, or one that may end or give back, brings about the next pass.
            assert starting or (len(self.scheduler.workers) == MOST and self._of(LEASED))


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
