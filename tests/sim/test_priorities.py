"""Priorities under virtual time: within a class of tasks, between classes, between owners, and by ageing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.tasks import double, now, work

if TYPE_CHECKING:
    from collections.abc import Iterable


@ray.remote
def mark(name: str, seconds: float = 1.0) -> str:
    """Tell that this runs, and work for so long."""
    notes.note(name)
    sleep(seconds)
    return name


@ray.remote
async def mark_async(name: str, seconds: float = 1.0) -> str:
    notes.note(name)
    await asyncio.sleep(seconds)
    return name


def order() -> list[str]:
    """What has run, in its order."""
    return list(notes.noted)


def messages(cluster: SimulatedCluster) -> Iterable[str]:
    return {event.what.split()[1] for event in cluster.trace.events if event.what.startswith("sends ")}


# --- in one class -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [mark, mark_async], ids=["sync", "async"])
def test_the_higher_goes_first_and_equal_ones_in_order_of_submission(task: ray.remote) -> None:  # type: ignore[valid-type]
    async def main(cluster: SimulatedCluster) -> None:
        first = task.remote("first")  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)
        refs = [
            task.options(priority=priority).remote(f"{priority}{letter}")  # type: ignore[attr-defined]
            for letter in "ab"
            for priority in (0, 2, -1, 1)
        ]
        await ray.aio.get([first, *refs])
        assert order() == ["first", "2a", "2b", "1a", "1b", "0a", "0b", "-1a", "-1b"]

    simulate(main, num_cpus=1, max_coroutines_per_worker=1)


def test_plain_tasks_that_were_queued_before_count_too() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [mark.remote(str(number)) for number in range(6)]
        await asyncio.sleep(0.5)
        refs += [mark.options(priority=-1).remote("low"), mark.options(priority=1).remote("high")]
        refs += [mark.remote("last")]
        await ray.aio.get(refs)
        assert order() == ["0", "high", "1", "2", "3", "4", "5", "last", "low"]

    simulate(main, num_cpus=1)


def test_without_priorities_nothing_is_ranked_and_nobody_is_told() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await ray.aio.get([double.remote(number) for number in range(100)])
        assert not cluster.driver.owner.priorities.used
        assert not {"RANK", "OUTBID"} & set(messages(cluster))

    simulate(main)


def test_a_cancelled_task_of_high_priority_holds_nobody_up() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        first = mark.remote("first")
        await asyncio.sleep(0.5)
        low, high = mark.remote("low"), mark.options(priority=5).remote("high")
        ray.cancel(high)
        assert await ray.aio.get([first, low]) == ["first", "low"]
        assert now() == pytest.approx(2, abs=0.2)
        assert order() == ["first", "low"]

    simulate(main, num_cpus=1)


def test_a_task_that_waited_for_its_arguments_ranks_by_its_priority() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        argument = mark.remote("argument")
        refs = [mark.remote(f"plain {number}") for number in range(3)]
        high = ray.remote(lambda value: notes.note("dependent")).options(priority=3).remote(argument)
        await ray.aio.get([high, *refs])
        # When the argument came, the worker was given the next plain one first.
        assert order()[:3] == ["argument", "plain 0", "dependent"]

    simulate(main, num_cpus=1)


def test_a_retried_task_keeps_its_rank() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        high = mark.options(priority=1).remote("high", 10)
        await asyncio.sleep(0.5)
        refs = [mark.options(priority=priority).remote(str(priority)) for priority in (0, 2)]
        await asyncio.sleep(5)
        cluster.kill_worker()
        await ray.aio.get([high, *refs])
        assert order() == ["high", "2", "0"]
        assert notes.noted["high"] == 2
        assert await refs[1] == "2"
        assert now() > 12

    simulate(main, num_cpus=1)


# --- between classes ----------------------------------------------------------------------------------------

#: Tasks that may not run again are of another class.
other_class = mark.options(max_retries=0)


def test_between_classes_the_higher_goes_first() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [mark.remote(f"low {number}") for number in range(20)]
        await asyncio.sleep(2.5)
        refs += [other_class.options(priority=1).remote(f"high {number}") for number in range(3)]
        await ray.aio.get(refs)
        ran = order()
        begin = ran.index("high 0")
        assert begin <= 4, ran
        assert ran[begin : begin + 3] == ["high 0", "high 1", "high 2"]
        assert now() == pytest.approx(23, abs=1.0), "and nothing stood idle"

    simulate(main, num_cpus=1)


def test_between_classes_without_a_difference_the_first_keeps_its_worker() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [mark.options(priority=1).remote(f"one {number}") for number in range(5)]
        refs += [other_class.options(priority=1).remote(f"other {number}") for number in range(5)]
        await ray.aio.get(refs)
        assert order() == [f"{name} {number}" for name in ("one", "other") for number in range(5)]

    simulate(main, num_cpus=1)


def test_a_class_that_needs_other_resources_is_left_alone() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        tokens = mark.options(num_cpus=0, resources={"tokens": 1}, priority=5)
        refs = [tokens.remote(f"token {number}") for number in range(5)]
        refs += [mark.remote(f"cpu {number}") for number in range(5)]
        await ray.aio.get(refs)
        assert now() == pytest.approx(5, abs=0.5), "both went on side by side"
        assert sum(event.what.startswith("sends RETURN") for event in cluster.trace.events) <= 4

    simulate(main, num_cpus=1, resources={"tokens": 1})


def test_coroutines_go_on_beside_others_when_nothing_better_waits_any_more() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        low = [mark_async.remote(f"low {number}", 100) for number in range(2)]
        await asyncio.sleep(1)
        high = mark.options(priority=5).remote("high")
        await asyncio.sleep(1)
        low.append(mark_async.remote("low 2", 1))
        await asyncio.sleep(1)
        assert order() == ["low 0", "low 1"], "it is not filled up while something better waits for its end"
        ray.cancel(high)
        assert await low.pop() == "low 2"
        assert now() < 10
        await ray.aio.get(low)

    simulate(main, num_cpus=1)


def test_a_high_priority_that_can_never_run_costs_the_others_nothing() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        never = mark.options(num_cpus=100, priority=100).remote("never")
        await ray.aio.get([mark.remote(f"plain {number}") for number in range(10)])
        assert now() < 11
        returned = sum(event.what.startswith("sends RETURN") for event in cluster.trace.events)
        assert returned <= 1
        ray.cancel(never)

    simulate(main, num_cpus=1)


def test_an_owner_that_dies_with_ranked_tasks_leaves_the_node_in_order() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        low = call_for.options(max_retries=0).remote("low", 20, 0, 0.0)
        high = other_class.options(priority=5).remote("high", 100)
        await asyncio.sleep(2)
        parent = next(e.pid for e in cluster.trace.events if e.what.startswith("sends BLOCKED"))
        cluster.kill_worker(parent)
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            await low
        assert await high == "high"
        assert await double.remote(1) == 2

    for seed in range(5):
        notes.noted.clear()
        simulate(main, num_cpus=1, seed=seed)


def test_a_high_priority_that_does_not_fit_does_not_stop_the_others() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        blocker = work.remote(30)
        refs = [mark.remote(f"small {number}") for number in range(10)]
        await asyncio.sleep(0.5)
        large = mark.options(num_cpus=2, priority=10).remote("large")
        await ray.aio.get(refs)
        assert now() < 15
        await ray.aio.get([large, blocker])
        assert order()[-1] == "worked" or order()[-1] == "large"

    simulate(main, num_cpus=2)


# --- between owners -----------------------------------------------------------------------------------------


@ray.remote(num_cpus=0)
def call_for(name: str, count: int, priority: int, after_s: float) -> list[str]:
    """Call for so many tasks, and wait for them."""
    sleep(after_s)
    return ray.get([mark.options(priority=priority).remote(f"{name} {number}") for number in range(count)])


def test_between_owners_of_one_depth_the_higher_goes_first() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        low = call_for.remote("low", 20, 0, 0.0)
        high = call_for.remote("high", 3, 2, 3.5)
        await high
        assert now() < 10
        await low
        assert now() == pytest.approx(23, abs=1.5)

    for seed in range(3):
        notes.noted.clear()
        simulate(main, num_cpus=1, seed=seed)


def test_depth_goes_before_priority_so_that_nested_tasks_never_deadlock() -> None:
    @ray.remote
    def parent(number: int) -> int:
        return ray.get(double.options(priority=-100).remote(number))

    async def main(cluster: SimulatedCluster) -> None:
        refs = [parent.options(priority=100 - number).remote(number) for number in range(10)]
        assert await ray.aio.get(refs) == [2 * number for number in range(10)]

    for num_cpus in (1, 2):
        simulate(main, num_cpus=num_cpus)


# --- ageing -------------------------------------------------------------------------------------------------


def test_who_waits_long_enough_goes_before_newer_ones_of_higher_priority() -> None:
    async def main(cluster: SimulatedCluster) -> float:
        await asyncio.sleep(1)
        running = [mark.options(priority=1).remote(f"high {number}") for number in range(3)]
        low = mark.remote("low")
        number = 3
        while not low.done():
            running.append(mark.options(priority=1).remote(f"high {number}"))
            number += 1
            await asyncio.sleep(1)
        ended = now()
        for ref in running:
            ray.cancel(ref)
        return ended

    # A level is worth 60 seconds: those that came in the first minute go first.
    assert 55 < simulate(main, num_cpus=1) < 75
    notes.noted.clear()
    assert 8 < simulate(main, num_cpus=1, priority_ageing_s=10) < 20


def test_ageing_works_between_classes_too() -> None:
    async def main(cluster: SimulatedCluster) -> float:
        await asyncio.sleep(1)
        running = [other_class.options(priority=1).remote(f"high {number}") for number in range(3)]
        low = mark.remote("low")
        number = 3
        while not low.done():
            running.append(other_class.options(priority=1).remote(f"high {number}"))
            number += 1
            await asyncio.sleep(1)
        ended = now()
        for ref in running:
            ray.cancel(ref)
        return ended

    assert 50 < simulate(main, num_cpus=1) < 110
