"""What the node decides when it may not have more workers, when they do not start, when memory runs out."""

from __future__ import annotations

from asyncray.resources import UNITS, Resources
from asyncray.state.scheduler import Grant, Plan, Scheduler
from asyncray.state.staff import IDLE, RETIRING, PoolKey, Worker

SYNC: PoolKey = ("sync", b"", ())
OTHER: PoolKey = ("sync", b"other", ())
DRIVER = b"driver"


class Machine:
    """A scheduler, and workers that start as soon as it wants them."""

    def __init__(self, cpus: int, most: int) -> None:
        self.scheduler = Scheduler(Resources({"CPU": cpus * UNITS}), [], most)
        self._numbers = 0
        self._classes = 0

    def start(self, pool: PoolKey = SYNC) -> Worker:
        """One more worker, not ready yet."""
        self._numbers += 1
        worker = Worker(self._numbers, pool)
        self.scheduler.started(worker)
        return worker

    def ready(self, pool: PoolKey = SYNC, now: float = 0.0) -> Worker:
        """One more worker, idle."""
        worker = self.start(pool)
        self.scheduler.ready(worker, b"process %d" % worker.number, now)
        return worker

    def want(
        self,
        count: int,
        pool: PoolKey = SYNC,
        owner: bytes = DRIVER,
        *,
        retriable: bool = True,
        cpus: int = 1,
        held: dict[str, int] | None = None,
    ) -> None:
        """A new class of tasks wants leases; of actors, where it says what they hold."""
        self._classes += 1
        description: list[object] = [pool[0], {"CPU": cpus * UNITS}, pool[1], retriable]
        if held is not None:
            description.append(held)
        self.scheduler.want(owner, self._classes, description, count, f"class {self._classes}")

    def assign(self) -> Plan:
        plan = self.scheduler.assign()
        self.scheduler.validate()
        return plan

    def lend(self, *, retriable: bool = True) -> Grant:
        """One more worker, at work for the driver."""
        self.ready()
        self.want(1, retriable=retriable)
        (grant,) = self.assign().grants
        return grant


# --- how many are started at a time ---------------------------------------------------------------------


def test_tasks_without_cpus_start_no_more_workers_at_a_time_than_there_are_cpus() -> None:
    machine = Machine(cpus=3, most=1000)
    machine.want(500, cpus=0)
    assert machine.assign().starts == [SYNC] * 3
    for _ in range(3):
        machine.start()
    assert machine.assign().starts == []


def test_a_worker_that_is_up_lets_the_next_one_start() -> None:
    machine = Machine(cpus=2, most=1000)
    machine.want(500, cpus=0)
    waiting = [machine.start() for _ in machine.assign().starts]
    machine.scheduler.ready(waiting[0], b"up", 0.0)
    plan = machine.assign()
    assert len(plan.grants) == 1
    assert plan.starts == [SYNC]


def test_slow_starts_of_one_environment_do_not_hold_up_another() -> None:
    machine = Machine(cpus=2, most=1000)
    machine.want(500, OTHER, cpus=0)
    for _ in machine.assign().starts:
        machine.start(OTHER)
    machine.want(5, cpus=0)
    assert machine.assign().starts == [SYNC] * 2


# --- no further worker may be started -------------------------------------------------------------------


def test_a_demand_waits_while_a_worker_runs() -> None:
    machine = Machine(cpus=4, most=2)
    machine.lend()
    machine.lend()
    machine.want(1)
    plan = machine.assign()
    assert plan == Plan(held_up=plan.held_up)
    assert plan.held_up is not None
    assert plan.held_up.name == "class 3"


def test_a_demand_is_not_refused_while_there_may_soon_be_room() -> None:
    machine = Machine(cpus=4, most=2)
    for grant in (machine.lend(), machine.lend()):
        machine.scheduler.blocked(grant.worker, blocked=True)
    machine.want(1)
    machine.scheduler.may_grow = True
    assert machine.assign().denials == []
    machine.scheduler.may_grow = False
    assert [demand.name for demand in machine.assign().denials] == ["class 3"]


def test_a_demand_is_refused_when_every_worker_waits_for_others() -> None:
    machine = Machine(cpus=4, most=2)
    grants = [machine.lend(), machine.lend()]
    machine.want(1)
    for grant in grants:
        machine.scheduler.blocked(grant.worker, blocked=True)
    assert [demand.name for demand in machine.assign().denials] == ["class 3"]


def test_only_the_deepest_demand_is_refused() -> None:
    machine = Machine(cpus=4, most=1)
    grant = machine.lend()
    machine.scheduler.blocked(grant.worker, blocked=True)
    machine.want(1)
    machine.want(1, owner=grant.worker.process_id)
    assert [demand.name for demand in machine.assign().denials] == ["class 3"]


def test_a_demand_waits_while_a_worker_starts_even_for_somebody_else() -> None:
    machine = Machine(cpus=4, most=1)
    machine.start(OTHER)
    machine.want(1)
    assert machine.assign() == Plan()


def test_the_worker_that_has_been_idle_longest_makes_room() -> None:
    machine = Machine(cpus=4, most=2)
    machine.ready(now=2.0)
    older = machine.ready(now=1.0)
    machine.want(2, OTHER)
    assert machine.assign().retirements == [older]
    assert older.state == RETIRING
    assert machine.assign() == Plan(), "one at a time"
    machine.scheduler.gone(older)
    assert machine.assign().starts == [OTHER]


def test_a_worker_that_is_needed_is_not_asked_again_and_the_demand_is_refused() -> None:
    machine = Machine(cpus=4, most=1)
    needed = machine.ready()
    machine.want(1, OTHER)
    assert machine.assign().retirements == [needed]
    machine.scheduler.kept(needed, 1.0)
    assert needed.state == IDLE
    plan = machine.assign()
    assert plan.retirements == []
    assert [demand.name for demand in plan.denials] == ["class 1"]


def test_a_worker_that_ran_again_may_be_asked_again() -> None:
    machine = Machine(cpus=4, most=1)
    worker = machine.ready()
    machine.scheduler.retiring(worker)
    machine.scheduler.kept(worker, 1.0)
    machine.want(1)
    (grant,) = machine.assign().grants
    machine.scheduler.returned(grant, 2.0)
    machine.want(1, OTHER)
    assert machine.assign().retirements == [worker]


# --- workers that do not start --------------------------------------------------------------------------


def test_a_demand_is_given_up_after_three_starts_in_a_row_have_failed() -> None:
    machine = Machine(cpus=4, most=8)
    machine.want(1)
    given_up = []
    for _ in range(3):
        worker = machine.start()
        machine.scheduler.gone(worker)
        given_up.append(len(machine.scheduler.given_up(worker)))
    assert given_up == [0, 0, 1]


def test_starts_that_fail_together_count_once() -> None:
    machine = Machine(cpus=8, most=8)
    machine.want(5)
    together = [machine.start() for _ in range(5)]
    for worker in together:
        machine.scheduler.gone(worker)
        assert machine.scheduler.given_up(worker) == []


def test_a_worker_that_gets_ready_makes_up_for_those_that_did_not() -> None:
    machine = Machine(cpus=4, most=8)
    machine.want(1)
    for _ in range(4):
        for _ in range(2):
            worker = machine.start()
            machine.scheduler.gone(worker)
            assert machine.scheduler.given_up(worker) == []
        machine.ready()


def test_only_what_needs_such_workers_is_given_up() -> None:
    machine = Machine(cpus=4, most=8)
    machine.want(1)
    machine.want(1, OTHER)
    for _ in range(3):
        worker = machine.start(OTHER)
        machine.scheduler.gone(worker)
    assert [demand.name for demand in machine.scheduler.given_up(worker)] == ["class 2"]
    assert machine.scheduler.given_up(worker) == [], "the count begins again"


def test_a_worker_that_dies_at_work_is_no_failed_start() -> None:
    machine = Machine(cpus=4, most=8)
    for _ in range(5):
        worker = machine.lend().worker
        machine.scheduler.gone(worker)
        assert machine.scheduler.given_up(worker) == []


# --- memory ---------------------------------------------------------------------------------------------


def test_the_newest_task_is_expendable_whatever_the_age_of_its_lease() -> None:
    machine = Machine(cpus=4, most=8)
    first, second = machine.lend(), machine.lend()
    assert machine.scheduler.expendable({first.number: 7, second.number: 3}) is first
    assert machine.scheduler.expendable({first.number: 3, second.number: 3}) is second


def test_a_retriable_task_is_expendable_before_a_newer_one_that_is_not() -> None:
    machine = Machine(cpus=4, most=8)
    retriable, precious = machine.lend(), machine.lend(retriable=False)
    began = {retriable.number: 1, precious.number: 9}
    assert machine.scheduler.expendable(began) is retriable
    machine.scheduler.gone(retriable.worker)
    assert machine.scheduler.expendable(began) is precious


def test_idle_leases_are_not_expendable() -> None:
    machine = Machine(cpus=4, most=8)
    machine.lend()
    assert machine.scheduler.expendable({}) is None


def test_actors_that_hold_nothing_take_all_idle_workers_and_more_are_started_in_the_same_pass() -> None:
    machine = Machine(cpus=2, most=100)
    machine.ready()
    machine.ready()
    machine.want(10, held={})
    plan = machine.assign()
    assert len(plan.grants) == 2
    # Nothing else would bring about another pass.
    assert plan.starts == [SYNC, SYNC]
