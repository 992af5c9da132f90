"""Where actors follow each other, workers are started for those that may come; else for what is asked."""

from __future__ import annotations

from asyncray.resources import UNITS, Resources
from asyncray.state.scheduler import Plan, Scheduler
from asyncray.state.staff import PoolKey, Worker

SYNC: PoolKey = ("sync", b"", ())


class Maker:
    """A driver that makes actors; workers are ready as soon as they are started."""

    def __init__(self, cpus: int = 2, gpus: int = 0, most: int = 100) -> None:
        total = {"CPU": cpus * UNITS, **({"GPU": gpus * UNITS} if gpus else {})}
        self.scheduler = Scheduler(Resources(total), range(gpus), most)
        self._numbers = 0

    def ready(self, pool: PoolKey = SYNC) -> Worker:
        self._numbers += 1
        worker = Worker(self._numbers, pool)
        self.scheduler.started(worker)
        self.scheduler.ready(worker, b"process %d" % worker.number, 0.0)
        return worker

    def make(self, now: float, holds: int = 0, gpus: int = 0) -> Plan:
        """One more actor takes a worker; returns what is done besides."""
        needs = {"CPU": UNITS, **({"GPU": gpus * UNITS} if gpus else {})}
        held = {"CPU": holds * UNITS} if holds else {}
        self.scheduler.want(b"driver", 1 + holds, ["sync", needs, b"", True, held], 1, "Actor.__init__", now)
        plan = self.scheduler.assign(now)
        assert len(plan.grants) == 1
        self.scheduler.validate()
        return plan

    def start(self, plan: Plan) -> None:
        for pool in plan.starts:
            self._numbers += 1
            self.scheduler.started(Worker(self._numbers, pool))


def test_one_actor_alone_has_no_worker_started_for_another() -> None:
    maker = Maker()
    maker.ready()
    assert maker.make(0.0).starts == []


def test_an_actor_that_follows_another_has_two_workers_started_for_the_next() -> None:
    maker = Maker()
    maker.ready()
    maker.ready()
    maker.make(0.0)
    assert maker.make(0.5).starts == [SYNC, SYNC]


def test_what_is_ready_or_being_started_counts() -> None:
    maker = Maker()
    for _ in range(3):
        maker.ready()
    maker.make(0.0)
    second = maker.make(0.5)
    assert second.starts == [SYNC], "one is idle"
    maker.start(second)
    assert maker.make(0.6).starts == [SYNC], "one is being started"


def test_actors_far_between_have_nothing_started_ahead() -> None:
    maker = Maker()
    maker.ready()
    maker.ready()
    maker.make(0.0)
    assert maker.make(1.5).starts == []


def test_nothing_is_started_ahead_for_tasks() -> None:
    maker = Maker()
    for number in range(2):
        maker.ready()
        maker.scheduler.want(b"driver", number, ["sync", {"CPU": UNITS}, b"", True], 1, "task", 0.0)
        plan = maker.scheduler.assign(0.0)
        assert len(plan.grants) == 1
        assert plan.starts == []


def test_nothing_is_started_ahead_that_could_not_be_granted() -> None:
    maker = Maker(cpus=2)
    maker.ready()
    maker.ready()
    maker.make(0.0, holds=1)
    assert maker.make(0.1, holds=1).starts == [], "they hold both CPUs"


def test_nothing_is_started_ahead_beyond_the_limit_of_workers() -> None:
    maker = Maker(most=3)
    maker.ready()
    maker.ready()
    maker.make(0.0)
    assert maker.make(0.1).starts == [SYNC]


def test_nothing_is_started_ahead_with_a_gpu() -> None:
    maker = Maker(gpus=1)
    pool: PoolKey = ("sync", b"", (0,))
    for number in range(2):
        worker = maker.ready(pool)
        plan = maker.make(0.1 * number, gpus=1)
        assert plan.starts == []
        maker.scheduler.gone(worker)
