"""Tasks that are coroutines: many share one worker and its CPU, and each is a plain asyncio task there."""

from __future__ import annotations

import asyncio
import decimal
import os
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from tests.cluster.doors import Doors, say_at, stand_at
from tests.cluster.gates import Gates, behind
from tests.cluster.patience import PATIENCE_S, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Sharing

NO_LEASES_KEPT = {"lease_keep_s": 0}


@pytest.fixture(scope="class", params=["asyncio", "uvloop"])
def one_cpu(request: pytest.FixtureRequest, sharing: Sharing) -> Iterator[None]:
    """A session with one CPU for the tests of a class, on each kind of loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYNCRAY_LOOP", request.param)
        with sharing(num_cpus=1, _system_config=NO_LEASES_KEPT):
            yield


@ray.remote
def pid() -> int:
    return os.getpid()


@ray.remote
async def async_pid() -> int:
    return os.getpid()


def meeting(count: int) -> Callable[[], Any]:
    """A coroutine that goes on when so many of it have come to the same process; returns its pid."""
    there: list[Any] = []

    async def meet() -> int:
        loop = asyncio.get_running_loop()
        here = loop.create_future()
        there.append(here)
        if len(there) == count:
            for waiting in there:
                waiting.set_result(None)
            there.clear()
        await here
        return os.getpid()

    return meet


@pytest.mark.usefixtures("one_cpu")
class TestSharing:
    def test_a_coroutine_returns_what_it_returns(self) -> None:
        @ray.remote
        async def add(a: int, b: int = 1) -> int:
            await asyncio.sleep(0)
            return a + b

        assert get(add.remote(1)) == 2
        assert get(add.remote(add.remote(1), add.remote(2))) == 5

    def test_a_thousand_share_one_worker_and_one_cpu(self) -> None:
        meet = ray.remote(meeting(1000))
        pids = get([meet.remote() for _ in range(1000)])
        assert len(set(pids)) == 1

    def test_they_never_share_a_worker_with_synchronous_tasks(self) -> None:
        seen = get([task.remote() for _ in range(20) for task in (pid, async_pid)])
        assert set(seen[::2]) & set(seen[1::2]) == set()

    def test_functions_of_every_kind_take_turns_on_one_cpu(self) -> None:
        for _ in range(5):
            assert get(pid.remote()) != get(async_pid.remote())

    def test_while_one_runs_its_worker_holds_the_cpu(self, doors: Doors) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def hold() -> None:
            say_at(name, "here")
            while not os.path.exists(f"{name}.open"):  # noqa: ASYNC110, ASYNC240, PTH110 - it must not wait
                await asyncio.sleep(0)

        refs = [hold.remote() for _ in range(3)]
        for _ in refs:
            assert door.hear() == "here"
        assert ray.available_resources().get("CPU", 0) == 0
        waiting = pid.remote()
        assert ray.wait([waiting], timeout=0) == ([], [waiting])
        os.mkfifo(f"{name}.open")
        get([*refs, waiting])

    def test_they_run_as_plain_asyncio_tasks_of_one_loop(self) -> None:
        @ray.remote
        async def look() -> tuple[str, int, bool]:
            task = asyncio.current_task()
            assert task is not None
            return type(task).__module__, id(asyncio.get_running_loop()), len(asyncio.all_tasks()) > 0

        seen = get([look.remote() for _ in range(3)])
        assert len(set(seen)) == 1
        assert seen[0][0] in {"_asyncio", "asyncio.tasks"}

    def test_what_asyncio_offers_works_inside(self) -> None:
        @ray.remote
        async def use() -> list[int]:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(asyncio.sleep(0, 1))
                second = group.create_task(asyncio.to_thread(lambda: 2))
            async with asyncio.timeout(PATIENCE_S):
                third = await asyncio.wait_for(asyncio.sleep(0, 3), PATIENCE_S)
            return [first.result(), second.result(), third]

        assert get(use.remote()) == [1, 2, 3]

    def test_context_variables_of_one_are_not_seen_by_others(self) -> None:
        meet = meeting(2)

        @ray.remote
        async def divide(digits: int | None) -> str:
            if digits:
                decimal.setcontext(decimal.Context(prec=digits))  # held in a context variable
            await meet()
            return str(decimal.Decimal(1) / 3)

        usual = "0." + "3" * 28
        assert get([divide.remote(2), divide.remote(None)]) == ["0.33", usual]
        assert get([divide.remote(None), divide.remote(3)]) == [usual, "0.333"]

    def test_a_failure_of_one_leaves_the_others_alone(self) -> None:
        meet = meeting(6)

        @ray.remote
        async def fail(error: type[BaseException] | None) -> str:
            await meet()
            if error is not None:
                raise error("mine")
            return "fine"

        errors = [LookupError, None, KeyboardInterrupt, SystemExit, asyncio.CancelledError, None]
        refs = [fail.remote(error) for error in errors]
        assert get([refs[1], refs[5]]) == ["fine", "fine"]
        with pytest.raises(LookupError, match="mine"):
            get(refs[0])
        for ref in (refs[2], refs[3], refs[4]):
            with pytest.raises(ray.exceptions.RayTaskError, match="mine"):
                get(ref)

    def test_returns_may_be_several_or_none(self) -> None:
        @ray.remote
        async def pair() -> tuple[int, int]:
            await asyncio.sleep(0)
            return 1, 2

        assert get(pair.options(num_returns=2).remote()) == [1, 2]
        assert pair.options(num_returns=0).remote() is None

    def test_one_that_raises_is_run_again_when_its_options_say_so(self) -> None:
        runs: list[int] = []

        @ray.remote(retry_exceptions=[LookupError], max_retries=2)
        async def third_time() -> int:
            runs.append(1)
            await asyncio.sleep(0)
            if len(runs) < 3:
                raise LookupError
            return len(runs)

        assert get(third_time.remote()) == 3

    def test_after_max_calls_its_worker_makes_room_for_a_new_one(self) -> None:
        async def own_pid() -> int:
            return os.getpid()

        task = ray.remote(max_calls=2)(own_pid)
        seen = get([task.remote() for _ in range(6)])
        assert [seen.count(found) for found in dict.fromkeys(seen)] == [2, 2, 2]


class TestLimits:
    def test_no_more_than_the_limit_share_a_worker(self, doors: Doors) -> None:
        with ray.init(num_cpus=1, _system_config={**NO_LEASES_KEPT, "max_coroutines_per_worker": 3}):
            door, last = doors.new(), doors.new()
            name, last_name = door.name, last.name

            @ray.remote
            async def hold(i: int) -> int:
                say_at(name, str(i))
                await asyncio.to_thread(stand_at, last_name)
                return os.getpid()

            refs = [hold.remote(i) for i in range(4)]
            assert [door.hear() for _ in range(3)] == ["0", "1", "2"]
            for _ in range(3):
                last.arrival()
            assert door.is_quiet()
            last.let_in()
            assert door.hear() == "3"
            last.let_in(3)
            assert len(set(get(refs))) == 1

    def test_with_more_cpus_more_workers_take_those_beyond_the_limit(self) -> None:
        with ray.init(num_cpus=2, _system_config={**NO_LEASES_KEPT, "max_coroutines_per_worker": 2}):
            meet = ray.remote(meeting(2))
            pids = get([meet.remote() for _ in range(4)])
            assert sorted(pids.count(found) for found in set(pids)) in ([2, 2], [4])


@pytest.mark.usefixtures("one_cpu")
class TestNesting:
    def test_a_coroutine_may_await_a_synchronous_task(self) -> None:
        @ray.remote
        async def outer() -> tuple[int, int]:
            return os.getpid(), await pid.remote()

        first, second = get(outer.remote())
        assert first != second

    def test_a_coroutine_may_await_a_coroutine(self) -> None:
        @ray.remote
        async def outer(depth: int) -> int:
            return 1 + await outer.remote(depth - 1) if depth else 0

        assert get(outer.remote(8)) == 8

    def test_a_synchronous_task_may_wait_for_a_coroutine_that_awaits_a_synchronous_one(self) -> None:
        @ray.remote
        async def middle() -> int:
            return 1 + await inner.remote()

        @ray.remote
        def inner() -> int:
            return 1

        @ray.remote
        def outer() -> int:
            return 1 + ray.get(middle.remote())

        assert get(outer.remote()) == 3

    def test_many_coroutines_may_await_many_tasks_each(self) -> None:
        @ray.remote
        def square(i: int) -> int:
            return i * i

        @ray.remote
        async def outer(i: int) -> int:
            return sum(await asyncio.gather(*[square.remote(i) for _ in range(5)]))

        assert get([outer.remote(i) for i in range(20)]) == [5 * i * i for i in range(20)]

    def test_the_verbs_for_coroutines_work_inside(self) -> None:
        @ray.remote
        async def use() -> list[Any]:
            refs = [pid.remote() for _ in range(3)]
            ready, rest = await aio.wait(refs, num_returns=3)
            kept = await aio.put("kept")
            done = [ref async for ref in aio.as_completed(refs)]
            return [len(ready), len(rest), len(await aio.get(refs)), await kept, len(done)]

        assert get(use.remote()) == [3, 0, 3, "kept", 3]

    def test_a_verb_that_would_block_the_loop_names_what_to_await(self) -> None:
        @ray.remote
        async def use() -> list[str]:
            errors = []
            ref = pid.remote()
            for call in (lambda: ray.get(ref), lambda: ray.wait([ref]), ray.available_resources):
                try:
                    call()
                except RuntimeError as error:
                    errors.append(str(error))
            await ref
            ray.get(ref)
            ray.get(ray.put(1))
            return errors

        errors = get(use.remote())
        assert len(errors) == 3
        assert "await ref" in errors[0]
        assert "asyncray.aio.wait" in errors[1]
        assert "asyncray.aio.available_resources" in errors[2]

    def test_a_reference_inside_an_argument_may_be_awaited_and_kept(self) -> None:
        kept: list[Any] = []

        @ray.remote
        async def keep(refs: list[Any]) -> int:
            kept.extend(refs)
            return int(await refs[0])

        @ray.remote
        async def again() -> int:
            return int(await kept[0]) if kept else -1

        @ray.remote
        async def both(refs: list[Any]) -> int:
            kept.extend(refs)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # a cancel of its own, which finds nothing left to interrupt
            return 5

        assert get(keep.remote([ray.put(7)])) == 7
        assert get(again.remote()) in {7, -1}
        assert get(both.remote([ray.put(7)])) == 5


@pytest.mark.usefixtures("one_cpu")
class TestCancelling:
    def test_a_running_coroutine_is_cancelled_where_it_awaits_and_cleans_up(self, doors: Doors) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def wait() -> None:
            say_at(name, "running")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say_at(name, "cancelled")
                raise
            finally:
                await asyncio.sleep(0)
                say_at(name, "cleaned up")

        ref = wait.remote()
        assert door.hear() == "running"
        ray.cancel(ref)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(ref)
        assert [door.hear(), door.hear()] == ["cancelled", "cleaned up"]

    def test_the_others_in_its_worker_go_on(self, doors: Doors, gates: Gates) -> None:
        door, gate = doors.new(), gates.new()
        name, path = door.name, gate.path

        @ray.remote
        async def hold(i: int) -> tuple[int, int]:
            say_at(name, str(i))
            await behind._function(path, None)
            return i, os.getpid()

        refs = [hold.remote(i) for i in range(3)]
        for _ in refs:
            door.hear()
        ray.cancel(refs[1])
        gate.open()
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(refs[1])
        (first, one), (third, other) = get([refs[0], refs[2]])
        assert (first, third) == (0, 2)
        assert one == other

    def test_one_that_has_not_begun_never_does(self, doors: Doors, gates: Gates) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def tell(argument: Any) -> None:
            say_at(name, "ran")

        ref = tell.remote(gates.pending())
        ray.cancel(ref)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(ref)
        get(async_pid.remote())
        assert door.is_quiet()

    def test_one_that_takes_no_notice_is_cancelled_for_its_caller_all_the_same(self, doors: Doors) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def stubborn() -> str:
            say_at(name, "running")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say_at(name, "cancelled")
            return "never mind"

        ref = stubborn.remote()
        assert door.hear() == "running"
        ray.cancel(ref)
        assert door.hear() == "cancelled"
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(ref)
        assert get(async_pid.remote()) != os.getpid()

    def test_it_reaches_what_the_coroutine_awaits(self, doors: Doors) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def inner() -> None:
            say_at(name, "running")
            try:
                await asyncio.Event().wait()
            finally:
                say_at(name, "inner ended")

        @ray.remote
        async def outer() -> None:
            await inner.remote()

        ref = outer.remote()
        assert door.hear() == "running"
        ray.cancel(ref)
        assert door.hear() == "inner ended"
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(ref)

    def test_the_coroutine_may_ask_whether_it_is_cancelled(self, doors: Doors) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def ask() -> None:
            say_at(name, str(ray.get_runtime_context().is_canceled()))
            try:
                await asyncio.Event().wait()
            finally:
                say_at(name, str(ray.get_runtime_context().is_canceled()))

        ref = ask.remote()
        assert door.hear() == "False"
        ray.cancel(ref)
        assert door.hear() == "True"

    def test_by_force_its_worker_is_killed_and_the_others_run_again(self, doors: Doors, gates: Gates) -> None:
        door, gate = doors.new(), gates.new()
        name, path = door.name, gate.path

        @ray.remote
        async def hold(i: int) -> int:
            say_at(name, f"{i} {os.getpid()}")
            await behind._function(path, None)
            return os.getpid()

        refs = [hold.remote(i) for i in range(2)]
        first = dict(door.hear().split() for _ in refs)
        ray.cancel(refs[0], force=True)
        with pytest.raises(ray.exceptions.RayError):
            get(refs[0])
        number, again = door.hear().split()
        assert number == "1"
        assert again != first["1"]
        gate.open()
        assert get(refs[1]) == int(again)

    def test_cancelling_the_coroutine_that_awaits_leaves_the_task_alone(self, doors: Doors) -> None:
        door = doors.new()
        name = door.name

        @ray.remote
        async def outer() -> int:
            ref = ray.remote(stand_at).remote(name)
            awaiting = asyncio.ensure_future(_awaited(ref))
            await asyncio.sleep(0)
            awaiting.cancel()
            return int(await ref)

        ref = outer.remote()
        arrived = door.arrival()
        door.let_in()
        assert get(ref) == arrived


async def _awaited(ref: Any) -> Any:
    return await ref


def test_a_worker_of_coroutines_dies_and_they_run_again(doors: Doors, gates: Gates) -> None:
    door, gate = doors.new(), gates.new()
    name, path = door.name, gate.path

    @ray.remote
    async def hold() -> int:
        say_at(name, str(os.getpid()))
        await behind._function(path, None)
        return os.getpid()

    with ray.init(num_cpus=1):
        refs = [hold.remote() for _ in range(3)]
        (victim,) = {door.arrival() for _ in refs}
        os.kill(victim, 9)
        (again,) = {door.arrival() for _ in refs}
        gate.open()
        assert set(get(refs)) == {again} != {victim}
