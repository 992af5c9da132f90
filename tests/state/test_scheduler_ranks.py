"""Which demand the node serves first: the deepest, then the best ranked, then in the order of asking."""

from __future__ import annotations

from asyncray.resources import UNITS, Resources
from asyncray.state.scheduler import Plan, Scheduler
from asyncray.state.staff import Worker

ONE, OTHER = b"one owner", b"other owner"


class Machine:
    """A scheduler with idle workers and few CPUs."""

    def __init__(self, cpus: int, workers: int = 4) -> None:
        self.scheduler = Scheduler(Resources({"CPU": cpus * UNITS}), [], 16)
        for number in range(workers):
            worker = Worker(number, ("sync", b"", ()))
            self.scheduler.started(worker)
            self.scheduler.ready(worker, b"process %d" % number, 0.0)

    def want(self, owner: bytes, number: int, *, now: float, cpus: float = 1, count: int = 1) -> None:
        description = ["sync", {"CPU": int(cpus * UNITS)}, b"", True]
        self.scheduler.want(owner, number, description, count, f"class {number}", now)

    def assign(self) -> Plan:
        plan = self.scheduler.assign()
        self.scheduler.validate()
        return plan

    def granted(self) -> list[tuple[bytes, int]]:
        return [(grant.demand.owner, grant.demand.number) for grant in self.assign().grants]


def test_without_ranks_demands_are_served_in_the_order_of_asking() -> None:
    machine = Machine(cpus=2)
    for number in range(3):
        machine.want(ONE, number, now=5.0)
    assert machine.granted() == [(ONE, 0), (ONE, 1)]
    assert not machine.scheduler.ranked


def test_the_better_rank_goes_first_whoever_asked_first() -> None:
    machine = Machine(cpus=1)
    machine.want(ONE, 0, now=1.0)
    machine.want(OTHER, 0, now=2.0)
    machine.scheduler.rank(OTHER, 0, -60.0)
    assert machine.granted() == [(OTHER, 0)]


def test_a_rank_may_come_before_the_demand() -> None:
    machine = Machine(cpus=1)
    machine.scheduler.rank(OTHER, 0, -60.0)
    machine.want(ONE, 0, now=1.0)
    machine.want(OTHER, 0, now=2.0)
    assert machine.granted() == [(OTHER, 0)]


def test_a_low_priority_goes_behind_who_says_nothing_of_ranks() -> None:
    machine = Machine(cpus=1)
    machine.scheduler.rank(ONE, 0, 61.0)
    machine.want(ONE, 0, now=1.0)
    machine.want(OTHER, 0, now=2.0)
    assert machine.granted() == [(OTHER, 0)]


def test_a_rank_holds_until_another_is_told() -> None:
    machine = Machine(cpus=1)
    machine.scheduler.rank(ONE, 0, -60.0)
    machine.want(ONE, 0, now=1.0)
    (grant,) = machine.assign().grants
    machine.want(OTHER, 0, now=2.5)
    machine.want(ONE, 0, now=3.0)
    machine.scheduler.returned(grant, 4.0)
    (grant,) = machine.assign().grants
    assert grant.demand.owner == ONE
    machine.want(ONE, 0, now=5.0)
    machine.scheduler.rank(ONE, 0, 60.0)
    machine.scheduler.returned(grant, 6.0)
    assert machine.granted() == [(OTHER, 0)]


def test_depth_goes_before_rank() -> None:
    machine = Machine(cpus=2)
    machine.want(ONE, 0, now=0.0)
    (parent,) = machine.assign().grants
    machine.want(ONE, 1, now=1.0, cpus=1)
    machine.scheduler.rank(ONE, 1, -1e6)
    machine.want(parent.worker.process_id, 0, now=2.0)
    machine.scheduler.rank(parent.worker.process_id, 0, 1e6)
    assert machine.granted() == [(parent.worker.process_id, 0)], "its caller may be waiting for it"


def test_an_owner_hears_of_the_best_that_waits_for_what_its_lease_holds() -> None:
    machine = Machine(cpus=1)
    machine.want(ONE, 0, now=0.0, count=2)
    machine.assign()
    assert machine.scheduler.outbids() == {}
    machine.want(OTHER, 0, now=1.0)
    machine.assign()
    assert machine.scheduler.outbids() == {}, "who came later waits"
    machine.scheduler.rank(OTHER, 0, -60.0)
    machine.want(OTHER, 1, now=2.0)
    machine.scheduler.rank(OTHER, 1, -120.0)
    machine.assign()
    assert machine.scheduler.outbids() == {(ONE, 0): -120.0}


def test_a_class_of_the_same_owner_is_heard_of_too() -> None:
    machine = Machine(cpus=1)
    machine.want(ONE, 0, now=0.0, count=2)
    machine.assign()
    machine.want(ONE, 1, now=1.0)
    machine.scheduler.rank(ONE, 1, -60.0)
    assert machine.scheduler.outbids() == {(ONE, 0): -60.0}


def test_who_asks_for_nothing_more_hears_of_it_for_what_may_come() -> None:
    machine = Machine(cpus=1)
    machine.want(ONE, 0, now=0.0)
    machine.assign()
    machine.want(OTHER, 0, now=1.0)
    assert machine.scheduler.outbids() == {(ONE, 0): 1.0}


def test_nobody_leaves_a_worker_that_would_not_help() -> None:
    machine = Machine(cpus=2)
    machine.want(ONE, 0, now=0.0, count=3)
    machine.assign()
    machine.scheduler.want(OTHER, 0, ["sync", {"tokens": UNITS}, b"", True], 1, "no tokens", 1.0)
    machine.want(OTHER, 1, now=1.0, cpus=2)
    for number in (0, 1):
        machine.scheduler.rank(OTHER, number, -60.0)
    assert machine.scheduler.outbids() == {}


def test_a_lease_whose_task_waits_has_nothing_to_leave() -> None:
    machine = Machine(cpus=1)
    machine.want(ONE, 0, now=0.0, count=2)
    (grant,) = machine.assign().grants
    machine.want(OTHER, 0, now=1.0)
    machine.scheduler.rank(OTHER, 0, -60.0)
    machine.scheduler.blocked(grant.worker, blocked=True)
    assert machine.granted() == [(OTHER, 0)]
    assert (ONE, 0) not in machine.scheduler.outbids()


def test_a_deeper_owner_hears_nothing_of_shallower_ones() -> None:
    machine = Machine(cpus=2)
    machine.want(ONE, 0, now=0.0)
    (parent,) = machine.assign().grants
    child = parent.worker.process_id
    machine.want(child, 0, now=1.0, count=2)
    machine.assign()
    machine.want(ONE, 1, now=2.0)
    machine.scheduler.rank(ONE, 1, -1e6)
    assert machine.assign().grants == []
    assert (child, 0) not in machine.scheduler.outbids()


def test_a_dead_owner_need_not_hear_of_anything() -> None:
    machine = Machine(cpus=1)
    machine.want(ONE, 0, now=0.0, count=2)
    machine.assign()
    machine.want(OTHER, 0, now=1.0)
    machine.scheduler.rank(OTHER, 0, -60.0)
    assert machine.scheduler.owner_gone(ONE)
    assert machine.scheduler.outbids() == {}


def test_the_ranks_of_a_dead_owner_are_forgotten() -> None:
    machine = Machine(cpus=1)
    machine.scheduler.rank(OTHER, 0, -60.0)
    machine.scheduler.owner_gone(OTHER)
    machine.want(ONE, 0, now=1.0)
    machine.want(OTHER, 0, now=2.0)
    assert machine.granted() == [(ONE, 0)]
