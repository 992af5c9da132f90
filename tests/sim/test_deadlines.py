"""Deadlines under virtual time: where a task may be when its time is over, and who hears of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import Event, SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.tasks import HOUR_S, double, idle, now, outer, work

if TYPE_CHECKING:
    from collections.abc import Coroutine

#: Seconds that messages and timers may add.
SLACK_S = 0.5


async def expire(ref: Any, match: str) -> float:
    """Await a reference that must fail by its deadline; returns when it did."""
    with pytest.raises(exceptions.GetTimeoutError, match=match):
        await ref
    return now()


# --- where it was when its time was over ------------------------------------------------------------------


def test_a_running_task_is_interrupted_and_its_worker_goes_on() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.options(timeout=10).remote(HOUR_S)
        at = await expire(
            ref, r"'work' was not done within its timeout of 10 s: it was running on the worker"
        )
        assert at == pytest.approx(10, abs=SLACK_S)
        assert not ref.cancelled()
        workers = cluster.workers
        assert await double.remote(1) == 2
        assert now() == pytest.approx(10, abs=SLACK_S), "its CPU is free"
        assert cluster.workers == workers
        assert notes.noted["worked"] == 0

    simulate(main, num_cpus=1)


def test_a_running_coroutine_is_cancelled_and_may_clean_up() -> None:
    @ray.remote
    async def tidy() -> None:
        try:
            await asyncio.sleep(HOUR_S)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            notes.note("tidied")
            raise

    async def main(cluster: SimulatedCluster) -> None:
        at = await expire(tidy.options(timeout=10).remote(), "it was running on the worker with pid")
        assert at == pytest.approx(10, abs=SLACK_S)
        await asyncio.sleep(1)
        assert notes.noted["tidied"] == 1

    simulate(main)


def test_a_queued_task_never_runs() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        first = work.remote(HOUR_S)
        await asyncio.sleep(1)
        at = await expire(double.options(timeout=10).remote(1), "it was queued$")
        assert at == pytest.approx(11, abs=SLACK_S)
        await first
        await asyncio.sleep(1)
        assert notes.noted["double"] == 0
        assert cluster.driver.owner.objects.owned.keys() == {first._record.number}

    simulate(main, num_cpus=1)


def test_a_task_queued_behind_another_at_its_worker_never_runs() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        timed = work.options(timeout=0.005)
        # Now they count as short ones.
        await ray.aio.get([each.remote(1e-5) for each in (work, timed) for _ in range(10)])
        long = work.remote(HOUR_S)
        behind = timed.remote(0)
        await expire(behind, r"queued on the worker with pid \d+, behind 1$")
        await long
        assert notes.noted["work"] == 21

    simulate(main, num_cpus=1, delay_s=0, recall_after_s=1.0)


def test_a_task_that_waits_for_arguments_never_runs() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        arguments = [work.remote(HOUR_S, 1) for _ in range(2)]
        add = ray.remote(lambda left, right: notes.note("add"))
        at = await expire(add.options(timeout=10).remote(*arguments), "it was waiting for 2 arguments")
        assert at == pytest.approx(10, abs=SLACK_S)
        assert await ray.aio.get(arguments) == [1, 1], "the arguments are others' work"
        assert notes.noted["add"] == 0

    simulate(main)


def test_a_retrying_task_is_given_up_and_the_error_says_so() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.options(timeout=10, max_retries=-1).remote(HOUR_S)
        for _ in range(2):
            await asyncio.sleep(3)
            cluster.kill_worker()
        at = await expire(ref, r"it was retrying \(attempt 3\), running on the worker")
        assert at == pytest.approx(10, abs=SLACK_S), "retries do not begin anew"
        await asyncio.sleep(HOUR_S)
        assert notes.noted["worked"] == 0

    simulate(main)


def test_errors_are_retried_until_the_deadline() -> None:
    @ray.remote(max_retries=-1, retry_exceptions=True)
    def never_lucky() -> None:
        sleep(1)
        raise ValueError(notes.note("try"))

    async def main(cluster: SimulatedCluster) -> None:
        await expire(never_lucky.options(timeout=5.5).remote(), r"retrying \(attempt 6\)")
        tries = notes.noted["try"]
        await asyncio.sleep(10)
        assert notes.noted["try"] == tries == 5

    simulate(main)


# --- what it has called for ---------------------------------------------------------------------------------


def test_a_child_ends_with_its_parents_time() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        at = await expire(outer.options(timeout=10).remote(HOUR_S), "'outer' was not done within its timeout")
        assert at == pytest.approx(10, abs=SLACK_S)
        await asyncio.sleep(2 * HOUR_S)
        assert (notes.noted["work"], notes.noted["worked"]) == (1, 0)

    simulate(main)


@ray.remote
def left() -> float | None:
    """What is left of this task's time."""
    return ray.get_runtime_context().get_remaining_time()


@ray.remote
def left_of_child(timeout: float | None, wait_s: float) -> float | None:
    """What a child has that is called after some seconds."""
    sleep(wait_s)
    return ray.get(left.options(timeout=timeout).remote())


@ray.remote
async def left_of_grandchild(timeout: float | None, wait_s: float) -> float | None:
    await asyncio.sleep(wait_s)
    return await left_of_child.remote(timeout, wait_s)


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [(None, 7), (100, 7), (5, 5)],
    ids=["none of its own", "a longer one", "a shorter"],
)
def test_a_child_has_what_remains_and_no_more(timeout: float | None, expected: float) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        got = await left_of_child.options(timeout=10).remote(timeout, 3)
        assert got == pytest.approx(expected, abs=SLACK_S)

    simulate(main)


def test_what_remains_reaches_grandchildren_through_coroutines_and_threads_of_a_task() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        got = await left_of_grandchild.options(timeout=10).remote(None, 3)
        assert got == pytest.approx(4, abs=SLACK_S)

    simulate(main)


def test_the_next_task_of_a_worker_inherits_nothing() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert await left.options(timeout=10).remote() is not None
        assert await left.remote() is None
        assert await left_of_child.remote(None, 0) is None

    simulate(main, num_cpus=1)


@pytest.mark.parametrize("seed", range(10))
def test_the_error_names_the_call_that_had_the_timeout_and_not_its_child(seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [outer.options(timeout=10 + 0.0003 * number).remote(HOUR_S) for number in range(2)]
        for ref in refs:
            await expire(ref, r"^the task 'outer' was not done within its timeout of 10(\.0003)? s: it was")
        await asyncio.sleep(10)
        assert notes.noted["worked"] == 0

    simulate(main, seed=seed, delay_s=0.02)


def test_a_child_that_outlives_its_inherited_time_says_whose_time_it_was() -> None:
    @ray.remote
    async def catching() -> str:
        try:
            await work.remote(HOUR_S)
        except exceptions.GetTimeoutError as error:
            return str(error)
        except asyncio.CancelledError:
            # The parent's own end reaches it first or second; both are right.
            return "cancelled"
        return "done"

    async def main(cluster: SimulatedCluster) -> None:
        ref = catching.options(timeout=10).remote()
        await expire(ref, "catching' was not")

    simulate(main)


def test_a_parent_that_ignores_its_end_cannot_call_for_more() -> None:
    @ray.remote(num_cpus=0)
    def stubborn() -> None:
        try:
            sleep(HOUR_S)
        except KeyboardInterrupt:
            sleep(1)
        try:
            ray.get(double.remote(1))
        except exceptions.GetTimeoutError as error:
            notes.note(str(error))

    async def main(cluster: SimulatedCluster) -> None:
        await expire(stubborn.options(timeout=10).remote(), "stubborn' was not")
        await asyncio.sleep(10)
        (told,) = notes.noted
        assert "'double' was not done within the 0 s that were left of its caller's timeout" in told

    simulate(main)


# --- races --------------------------------------------------------------------------------------------------


def test_a_result_that_is_there_before_the_deadline_counts() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert await work.options(timeout=10).remote(9.9, "value") == "value"
        await asyncio.sleep(10)
        assert notes.noted["worked"] == 1

    simulate(main)


@pytest.mark.parametrize("seed", range(8))
def test_result_and_deadline_at_the_same_time_give_one_outcome(seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [idle.options(timeout=10).remote(10 - 0.0005 * step, step) for step in range(20)]
        outcomes = await asyncio.gather(*refs, return_exceptions=True)
        for step, outcome in enumerate(outcomes):
            assert outcome == step or isinstance(outcome, exceptions.GetTimeoutError)
        assert outcomes[-1] == 19
        again = await asyncio.gather(*refs, return_exceptions=True)
        assert list(map(str, again)) == list(map(str, outcomes)), "an outcome stays what it is"
        assert await double.remote(1) == 2
        assert not any(lease.in_flight for lease in cluster.driver.leases._leases.values())

    simulate(main, seed=seed)


def test_a_result_on_its_way_at_the_deadline_comes_too_late_and_hurts_nobody() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        sent = asyncio.Event()

        def watch(event: Event) -> None:
            if event.what.startswith("sends RESULTS"):
                sent.set()

        cluster.on_event(watch)
        ref = work.options(timeout=10).remote(10)
        await expire(ref, "'work'")
        await sent.wait()
        assert await work.remote(1, "next") == "next"

    simulate(main, num_cpus=1, delay_s=0.5)


def test_a_worker_that_dies_at_the_deadline_changes_nothing() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.options(timeout=10).remote(HOUR_S)
        await asyncio.sleep(9.9999)
        cluster.kill_worker()
        await expire(ref, "'work'")
        assert await double.remote(1) == 2
        assert notes.noted["worked"] == 0

    for delay_s in (0.0, 0.001):
        simulate(main, delay_s=delay_s)


def test_who_cancels_first_decides_what_the_reference_says() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.options(timeout=10).remote(HOUR_S)
        await asyncio.sleep(1)
        ray.cancel(ref)
        await asyncio.sleep(20)
        assert ref.cancelled()
        late = work.options(timeout=10).remote(HOUR_S)
        await expire(late, "'work'")
        ray.cancel(late)
        assert isinstance(late.exception(), exceptions.GetTimeoutError)

    simulate(main)


# --- many ---------------------------------------------------------------------------------------------------


def test_deadlines_come_in_their_order_whatever_the_order_of_the_calls() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        blocker = work.remote(HOUR_S)
        await asyncio.sleep(1)
        start, ended = now(), []

        async def one(timeout: int) -> None:
            ended.append((timeout, await expire(double.options(timeout=timeout).remote(1), "queued") - start))

        calls: list[Coroutine[Any, Any, None]] = [one(timeout) for timeout in (30, 10, 20, 40, 5)]
        await asyncio.gather(*calls)
        assert [timeout for timeout, _ in ended] == [5, 10, 20, 30, 40]
        assert all(at == pytest.approx(timeout, abs=SLACK_S) for timeout, at in ended)
        ray.cancel(blocker)

    simulate(main, num_cpus=1)


def test_what_is_done_does_not_gather_until_its_deadline() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        quick = double.options(timeout=HOUR_S)
        for _ in range(20):
            await ray.aio.get([quick.remote(number) for number in range(50)])
        assert len(cluster.driver.owner.deadlines) <= 128

    simulate(main)


def test_what_a_function_holds_is_let_go_with_its_last_call_and_not_at_the_deadline() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        def reader(held: ray.ObjectRef[str]) -> Any:
            async def read() -> str:
                return await held

            return ray.remote(timeout=HOUR_S)(read)

        assert await reader(ray.put("held")).remote() == "held"
        assert len(cluster.driver.owner.deadlines) == 1
        await asyncio.sleep(10)
        assert not cluster.driver.owner.objects.owned

    simulate(main)


def test_tasks_without_a_deadline_are_not_watched() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await ray.aio.get([double.remote(number) for number in range(50)])
        assert len(cluster.driver.owner.deadlines) == 0

    simulate(main)
