"""Task groups over remote calls: asyncio's rules, and nothing left running anywhere, under virtual time."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

import asyncray as ray
from asyncray import aio, exceptions
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.kin import (
    TIDY_S,
    assert_all_ended,
    fail_after,
    failing,
    leave_behind,
    leave_behind_in_a_coroutine,
    matching,
    parent,
    raising,
    tidy,
    tidy_coroutine,
)
from tests.sim.tasks import HOUR_S, double, fail, now, work


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


# --- the block waits for all --------------------------------------------------------------------------------


def test_leaving_the_block_waits_for_calls_and_coroutines() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            call = group.create_task(tidy.remote(60, "call"))
            task = group.create_task(asyncio.sleep(90, "coroutine"))
        assert (call.result(), task.result()) == ("call", "coroutine")
        assert now() >= 90
        assert_all_ended()

    simulate(main)


def test_a_group_without_members_is_left_at_once() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        before = now()
        async with aio.TaskGroup():
            pass
        assert now() == before

    simulate(main)


def test_a_call_with_several_returns_is_a_member_as_a_list() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        two: Any = ray.remote(lambda: (1, 2)).options(num_returns=2)
        async with aio.TaskGroup() as group:
            refs = group.create_task(two.remote())
        assert [ref.result() for ref in refs] == [1, 2]

    simulate(main)


def test_members_may_add_members() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = []

        async def more(group: aio.TaskGroup, left: int) -> None:
            refs.append(group.create_task(double.remote(left)))
            await refs[-1]
            if left:
                group.create_task(more(group, left - 1))

        async with aio.TaskGroup() as group:
            group.create_task(more(group, 3))
        assert [ref.result() for ref in refs] == [6, 4, 2, 0]

    simulate(main)


def test_calls_that_are_no_members_are_waited_for_and_their_failure_is_their_own() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:

            async def member() -> None:
                tidy.remote(60)
                fail.remote("mine")

            group.create_task(member())
            tidy.options(num_returns=0).remote(60)
            with pytest.raises(ValueError, match="caught"):
                await fail.remote("caught")
        assert notes.noted["ended"] == 2

    simulate(main, num_cpus=4)


def test_calls_of_threads_that_the_block_starts_belong_to_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup():
            await cluster.run_blocking(contextvars.copy_context().run, tidy.remote, 60)
        assert_all_ended()

    simulate(main)


def test_calls_after_the_block_do_not_belong_to_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup():
            strays = asyncio.create_task(asyncio.sleep(100))
        after = double.remote(1)
        assert after._record.task.enclosures is None  # type: ignore[attr-defined]
        assert await after == 2
        strays.cancel()

    simulate(main)


@pytest.mark.parametrize("caller", [leave_behind, leave_behind_in_a_coroutine])
@pytest.mark.parametrize("child", [tidy, tidy_coroutine])
def test_what_a_call_leaves_behind_is_waited_for(caller: Any, child: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            ref = group.create_task(caller.remote(child, 60))
        assert ref.result() == "left"
        assert_all_ended()

    for cpus in (1, 4):
        simulate(main, num_cpus=cpus)


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_failure_cancels_the_rest_and_waits_for_its_end(cpus: int, seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing(match="unhandled errors in a TaskGroup") as caught:
            async with aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                group.create_task(tidy_coroutine.remote(HOUR_S))
                group.create_task(parent.options(num_cpus=0).remote(tidy, HOUR_S))
                group.create_task(parent.options(num_cpus=0).remote(tidy_coroutine, HOUR_S))
                group.create_task(leave_behind.options(num_cpus=0).remote(tidy, HOUR_S))
                group.create_task(asyncio.sleep(HOUR_S))
                group.create_task(fail_after.options(num_cpus=0).remote(100, ValueError("first")))
        assert matching(caught.value, ValueError) == 1
        assert now() < HOUR_S / 2
        assert_all_ended()

    simulate(main, num_cpus=cpus, seed=seed)


def test_failures_that_come_together_are_raised_together() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def fail_late() -> None:
            try:
                await asyncio.sleep(HOUR_S)
            finally:
                raise KeyError("late")

        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(fail_after.remote(100, ValueError("remote")))
                group.create_task(fail_late())
        assert caught.value.subgroup(KeyError) is not None
        assert caught.value.subgroup(ValueError) is not None
        assert len(caught.value.exceptions) == 2

    simulate(main)


def test_an_error_of_the_body_stands_beside_those_of_members() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(fail.remote("member"))
                try:
                    await asyncio.sleep(HOUR_S)
                finally:
                    raise KeyError("body")
        assert {type(error).__mro__[1].__name__ for error in caught.value.exceptions} >= {"LookupError"}
        assert caught.value.subgroup(exceptions.RayTaskError) is not None
        assert caught.value.subgroup(KeyError) is not None

    simulate(main)


def test_an_error_of_the_body_before_anything_was_awaited_cancels_everything() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                ref = group.create_task(tidy.remote(HOUR_S))
                raise KeyError("body")
        assert matching(caught.value, KeyError) == 1
        assert ref.cancelled()
        assert now() < HOUR_S / 2
        assert notes.noted["began"] == notes.noted["ended"]

    simulate(main)


def test_a_member_that_was_cancelled_alone_is_no_failure() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            ref = group.create_task(tidy.remote(HOUR_S))
            other = group.create_task(tidy.remote(60, "other"))
            task = group.create_task(asyncio.sleep(HOUR_S))
            await asyncio.sleep(10)
            ray.cancel(ref)
            task.cancel()
        assert ref.cancelled()
        assert task.cancelled()
        assert other.result() == "other"
        assert now() < HOUR_S / 2
        assert_all_ended()

    simulate(main)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_in_a_call_is_a_failure_like_others(error: BaseException) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(fail_after.remote(1, error))
                group.create_task(tidy.remote(HOUR_S))
        assert matching(caught.value, exceptions.RayTaskError) == 1
        assert_all_ended()

    simulate(main)


class Exit(SystemExit):
    """An exit that the loop of a test survives."""


def test_an_exit_of_the_body_is_raised_bare_after_everything_has_ended() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with raising(Exit):
            async with aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                group.create_task(fail.remote("beside it"))
                await asyncio.sleep(0)
                raise Exit
        assert notes.noted["began"] == notes.noted["ended"]

    simulate(main)


# --- cancellation of the block ------------------------------------------------------------------------------


@pytest.mark.parametrize("in_body", [True, False], ids=["in its body", "while it waits"])
@pytest.mark.parametrize("times", [1, 3])
def test_cancelling_the_block_cancels_all_and_waits_for_its_end(in_body: bool, times: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def block() -> None:
            async with aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                group.create_task(parent.options(num_cpus=0).remote(tidy_coroutine, HOUR_S))
                if in_body:
                    await asyncio.sleep(HOUR_S)

        task = asyncio.create_task(block())
        await asyncio.sleep(100)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 100 + TIDY_S <= now() < 200
        assert_all_ended()

    simulate(main)


def test_a_cancellation_before_the_first_await_of_the_block_counts() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def block() -> None:
            task = asyncio.current_task()
            assert task is not None
            async with aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(block())
        assert now() < HOUR_S
        assert notes.noted["began"] == notes.noted["ended"]

    simulate(main)


def test_failures_while_the_block_is_cancelled_come_before_the_cancellation() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def fail_at_the_end() -> None:
            try:
                await asyncio.sleep(HOUR_S)
            finally:
                raise KeyError("clean-up")

        async def block() -> None:
            async with aio.TaskGroup() as group:
                group.create_task(fail_at_the_end())
                group.create_task(tidy.remote(HOUR_S))

        task = asyncio.create_task(block())
        await asyncio.sleep(100)
        task.cancel()
        with failing() as caught:
            await task
        assert matching(caught.value, KeyError) == 1
        assert_all_ended()

    simulate(main)


def test_the_groups_own_cancellation_of_its_block_is_taken_back() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing():
            async with aio.TaskGroup() as group:
                group.create_task(fail.remote("at once"))
                await asyncio.sleep(HOUR_S)
        assert cancelling() == 0
        await asyncio.sleep(1)  # nothing is delivered late

    simulate(main)


def test_a_timeout_around_a_group_ends_all_of_it_and_is_a_timeout() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with raising(TimeoutError):
            async with asyncio.timeout(100), aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                group.create_task(leave_behind.options(num_cpus=0).remote(tidy, HOUR_S))
        assert cancelling() == 0
        assert_all_ended()

    simulate(main, num_cpus=4)


def test_a_clean_up_may_make_calls_while_the_group_is_aborted() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def clean_up() -> None:
            try:
                await asyncio.sleep(HOUR_S)
            finally:
                assert await work.remote(60, "cleaned") == "cleaned"

        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(clean_up())
                group.create_task(fail_after.remote(10, ValueError()))
        assert matching(caught.value, ValueError) == 1
        assert notes.noted["worked"] == 1

    simulate(main)


# --- groups in groups ---------------------------------------------------------------------------------------


def test_an_inner_failure_is_the_inner_groups_own() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as outer:
            ref = outer.create_task(tidy.remote(60, "outer"))
            with failing():
                async with aio.TaskGroup() as inner:
                    inner.create_task(tidy.remote(HOUR_S))
                    inner.create_task(fail.remote("inner"))
        assert ref.result() == "outer"
        assert_all_ended()

    simulate(main, num_cpus=4)


def test_an_outer_failure_ends_the_inner_group_and_its_calls() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def inner() -> None:
            async with aio.TaskGroup() as group:
                group.create_task(tidy.remote(HOUR_S))
                group.create_task(tidy_coroutine.remote(HOUR_S))

        with failing() as caught:
            async with aio.TaskGroup() as outer:
                outer.create_task(inner())
                outer.create_task(fail_after.remote(100, ValueError()))
        assert matching(caught.value, ValueError) == 1
        assert_all_ended()

    simulate(main, num_cpus=4)


@pytest.mark.parametrize("kind", [aio.TaskGroup, asyncio.TaskGroup])
@pytest.mark.parametrize("how", ["a failure", "a cancellation"])
def test_coroutines_of_inner_groups_that_see_their_call_cancelled_have_not_failed(
    kind: Any, how: str
) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def wait_for_a_call() -> None:
            await tidy.remote(HOUR_S)

        async def inner() -> None:
            async with kind() as group:
                group.create_task(wait_for_a_call())

        async def outer() -> None:
            async with aio.TaskGroup() as group:
                group.create_task(inner())
                if how == "a failure":
                    group.create_task(fail_after.remote(100, ValueError()))

        task = asyncio.create_task(outer())
        if how == "a failure":
            with pytest.raises(ExceptionGroup) as caught:
                await task
            assert matching(caught.value, ValueError) == 1
        else:
            await asyncio.sleep(100)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert_all_ended()

    simulate(main, num_cpus=4)


@ray.remote
async def group_in_a_worker(children: int, seconds: float) -> int:
    """Run a group of its own."""
    async with aio.TaskGroup() as group:
        for _ in range(children):
            group.create_task(tidy.remote(seconds))
    return children


def test_a_group_in_a_worker_ends_with_its_call() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with aio.TaskGroup() as group:
            ref = group.create_task(group_in_a_worker.remote(3, 60))
        assert ref.result() == 3
        ref = group_in_a_worker.remote(3, HOUR_S)
        await asyncio.sleep(100)
        ray.cancel(ref)
        await asyncio.sleep(100)
        assert_all_ended()

    simulate(main, num_cpus=4)


# --- who may do what, when ----------------------------------------------------------------------------------


def test_a_group_takes_members_only_in_its_block() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        group = aio.TaskGroup()
        early, coroutine = tidy.remote(HOUR_S), asyncio.sleep(0)
        for member in (early, coroutine):
            with pytest.raises(RuntimeError, match="has not been entered"):
                group.create_task(member)
        assert early.cancelled()
        async with group:
            pass
        late = tidy.remote(HOUR_S)
        with pytest.raises(RuntimeError, match="is finished"):
            group.create_task(late)
        assert late.cancelled()
        with pytest.raises(RuntimeError, match="already been entered"):
            async with group:
                pass

    simulate(main)


def test_an_aborted_group_takes_no_members() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refused = []

        async def add_late(group: aio.TaskGroup) -> None:
            try:
                await asyncio.sleep(HOUR_S)
            finally:
                refused.append(tidy.remote(HOUR_S))
                with pytest.raises(RuntimeError, match="is shutting down"):
                    group.create_task(refused[0])

        with failing():
            async with aio.TaskGroup() as group:
                group.create_task(add_late(group))
                group.create_task(fail_after.remote(10, ValueError()))
        assert refused[0].cancelled()

    simulate(main)


@pytest.mark.parametrize("what", [7, None, "f", [7], object()])
def test_what_is_neither_a_reference_nor_a_coroutine_is_refused(what: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with failing() as caught:
            async with aio.TaskGroup() as group:
                group.create_task(what)
        assert matching(caught.value, TypeError) == 1
        assert "reference of a call or a coroutine" in str(caught.value.exceptions[0])

    simulate(main)


def test_references_from_before_the_block_and_finished_ones_may_be_members() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        before, done, stored = tidy.remote(HOUR_S), double.remote(1), ray.put("stored")
        await done
        await asyncio.sleep(10)
        with failing():
            async with aio.TaskGroup() as group:
                for ref in (before, done, stored):
                    assert group.create_task(ref) is ref
                group.create_task(fail_after.remote(10, ValueError()))
        assert before.cancelled()
        assert (done.result(), stored.result()) == (2, "stored")
        assert_all_ended()

    simulate(main)


def test_names_and_contexts_are_passed_on() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    async def main(cluster: SimulatedCluster) -> None:
        context = contextvars.copy_context()
        context.run(variable.set, "inside")

        async def look() -> tuple[str, str]:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name(), variable.get()

        async with aio.TaskGroup() as group:
            one = group.create_task(look(), name="one", context=context)
            two = group.create_task(look(), name="two")
        assert (one.result(), two.result()) == (("one", "inside"), ("two", "outside"))
        assert "TaskGroup" in repr(group)

    simulate(main)
