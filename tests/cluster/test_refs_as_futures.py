"""References are like futures: asyncio takes them as they are, on any loop, at any time, from any thread."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import GetTimeoutError, RayTaskError, TaskCancelledError
from tests.cluster.gates import LIMIT_S, Gates, begun, fail, run_on, same, waiters

if TYPE_CHECKING:
    from asyncray import ObjectRef
    from tests.cluster.gates import Factory, Run

pytestmark = pytest.mark.usefixtures("shared_ray")

#: It takes references, but for the type checker: to that, nothing but a Future is like a future.
wait: Any = asyncio.wait


@pytest.fixture
def gates(shared_ray: object, gates: Gates) -> Gates:
    return gates


@pytest.fixture
def run(loop_factory: Factory) -> Run:
    return functools.partial(run_on, loop_factory)


class TestAwait:
    def test_gives_the_value(self, run: Run) -> None:
        async def main() -> None:
            ref = same.remote(1)
            assert [await ref, await ref] == [1, 1]
            assert await ray.put("put") == "put"

        run(main())

    def test_raises_what_the_task_raised_each_time(self, run: Run) -> None:
        async def main() -> None:
            ref = fail.remote("no")
            for _ in range(2):
                with pytest.raises(ValueError, match="no") as caught:
                    await ref
                assert isinstance(caught.value, RayTaskError)

        run(main())

    def test_of_what_is_done_does_not_give_way(self, run: Run) -> None:
        async def main() -> None:
            ref = ray.put(1)
            asyncio.get_running_loop().call_soon(order.append, "the loop turned")
            await ref
            order.append("awaited")
            await asyncio.sleep(0)

        order: list[str] = []
        run(main())
        assert order == ["awaited", "the loop turned"]

    def test_by_many_at_once_wakes_them_all(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref([1])
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(awaited(ref)) for _ in range(100)]
                await begun(lambda: waiters(ref), 100)
                gate.open()
            values = [task.result() for task in tasks]
            assert values == [[1]] * 100
            assert len({id(value) for value in values}) == 100, "each has a value of its own"

        run(main())

    def test_of_a_cancelled_task_raises_at_once_and_does_not_look_like_a_cancelled_awaiter(
        self, run: Run, gates: Gates
    ) -> None:
        async def main() -> None:
            ref = gates.pending()
            task = asyncio.create_task(awaited(ref))
            await begun(lambda: waiters(ref))
            ray.cancel(ref)
            with pytest.raises(TaskCancelledError):
                await task
            assert not task.cancelled()

        run(main())


async def awaited(ref: ObjectRef[Any]) -> Any:
    return await ref


class TestAsyncioTakesThem:
    def test_gather(self, run: Run) -> None:
        async def main() -> None:
            refs = [same.remote(i) for i in range(10)]
            assert await asyncio.gather(*refs, ray.put(10)) == list(range(11))
            failed = fail.remote("one")
            with pytest.raises(ValueError, match="one"):
                await asyncio.gather(refs[0], failed)
            outcomes: list[Any] = await asyncio.gather(*refs[:1], failed, return_exceptions=True)
            assert outcomes[0] == 0
            assert isinstance(outcomes[1], ValueError)
            assert await asyncio.gather(*[refs[3]] * 2) == [3, 3]

        run(main())

    def test_wait_until_all_are_done(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            refs = [gate.ref(1), ray.put(2), fail.remote("three")]
            gate.open()
            done, pending = await wait(refs)
            assert (done, pending) == (set(refs), set())
            assert isinstance(refs[2].exception(), ValueError)
            assert [ref.result() for ref in refs[:2]] == [1, 2]

        run(main())

    @pytest.mark.parametrize("failing", [False, True])
    def test_wait_until_the_first_is_done(self, run: Run, gates: Gates, *, failing: bool) -> None:
        async def main() -> None:
            gate, late = gates.new(), gates.pending()
            first = gate.ref(ValueError() if failing else 1)
            gate.open()
            done, pending = await wait([late, first], return_when=asyncio.FIRST_COMPLETED)
            assert (done, pending) == ({first}, {late})
            assert waiters(late) == []

        run(main())

    def test_wait_until_the_first_fails(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            good, bad, late = gates.new(), gates.new(), gates.pending()
            refs = [good.ref(1), bad.ref(ValueError()), late]
            waiting = asyncio.create_task(wait(refs, return_when=asyncio.FIRST_EXCEPTION))
            await begun(lambda: waiters(refs[2]))
            good.open()
            await refs[0]
            await asyncio.sleep(0)
            assert not waiting.done()
            bad.open()
            assert await waiting == ({refs[0], refs[1]}, {late})
            assert waiters(late) == []

        run(main())

    def test_wait_for_some_time(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            late, done = gates.pending(), ray.put(1)
            assert await wait([late, done], timeout=0.01) == ({done}, {late})
            assert await wait([late], timeout=0) == (set(), {late})
            assert waiters(late) == []

        run(main())

    def test_wait_with_references_and_futures_together(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            late, sleeping = gates.pending(), asyncio.create_task(asyncio.sleep(60))
            done, pending = await wait([late, sleeping, ray.put(1)], return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            assert pending == {late, sleeping}
            sleeping.cancel()

        run(main())

    def test_as_completed(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            held = [gates.new() for _ in range(3)]
            refs = [gate.ref(i) for i, gate in enumerate(held)]
            found = []
            order = iter([1, 2, 0])
            held[next(order)].open()
            for coming in asyncio.as_completed(refs):
                found.append(await coming)
                for i in order:
                    held[i].open()
                    break
            assert found == [1, 2, 0]

        run(main())

    def test_shield(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("kept")
            inner = asyncio.ensure_future(ref)
            shielded = asyncio.shield(inner)
            await begun(lambda: waiters(ref))
            shielded.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shielded
            gate.open()
            assert await inner == "kept"
            assert await asyncio.shield(ref) == "kept"

        run(main())

    def test_wait_for(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ref, 0.01)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ref, 0)
            gate.open()
            assert await asyncio.wait_for(ref, LIMIT_S) == "late"
            assert await asyncio.wait_for(ref, None) == "late"

        run(main())

    def test_timeout(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("late")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ref
            gate.open()
            async with asyncio.timeout(LIMIT_S):
                assert await ref == "late"

        run(main())

    def test_task_group(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate, late = gates.new(), gates.pending()
            bad = gate.ref(ValueError("ends the group"))
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what raises
                async with asyncio.TaskGroup() as group:
                    group.create_task(awaited(late))
                    group.create_task(aio.get([late]))
                    group.create_task(awaited(bad))
                    await begun(lambda: waiters(late), 2)
                    gate.open()
            assert len(caught.value.exceptions) == 1
            assert isinstance(caught.value.exceptions[0], ValueError)
            assert waiters(late) == []

        run(main())

    def test_ensure_future_isfuture_and_run_until_complete(self, loop_factory: Factory) -> None:
        ref = same.remote(5)
        assert not asyncio.isfuture(ref), "or timeout and wait_for would hang"
        loop = loop_factory()
        try:
            assert loop.run_until_complete(ref) == 5
            assert (
                loop.run_until_complete(asyncio.wait_for(asyncio.ensure_future(ref, loop=loop), LIMIT_S)) == 5
            )
        finally:
            loop.close()


class TestCancellation:
    def test_of_an_awaiter_detaches_it_and_nothing_else(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("goes on")
            one, two = (asyncio.create_task(awaited(ref)) for _ in range(2))
            await begun(lambda: waiters(ref), 2)
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
            assert len(waiters(ref)) == 1
            assert not ref.done()
            gate.open()
            assert await two == "goes on"
            assert await ref == "goes on"

        run(main())

    def test_leaves_nothing_behind(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            refs = [gates.pending(), gates.pending()]
            for _ in range(50):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(refs[0], 0.0001)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await asyncio.gather(*refs)
                await wait(refs, timeout=0)
                with pytest.raises(GetTimeoutError):
                    await aio.get(refs, timeout=0)
                assert await aio.wait(refs, timeout=0) == ([], refs)
            assert [waiters(ref) for ref in refs] == [[], []]

        run(main())

    def test_in_the_moment_of_completion_loses_nothing(self, run: Run) -> None:
        async def main() -> None:
            for i in range(200):
                ref = same.remote(i)
                try:
                    assert await asyncio.wait_for(ref, 0.0001 * (i % 5)) == i
                except TimeoutError:
                    assert await ref == i
                assert waiters(ref) == []

        run(main())

    def test_while_a_failure_of_another_ends_the_wait_leaves_nothing_behind(
        self, run: Run, gates: Gates
    ) -> None:
        async def main() -> None:
            late = gates.pending()
            with pytest.raises(ValueError, match="at once"):
                await aio.get([late, fail.remote("at once")])
            assert waiters(late) == []

        run(main())


class TestLoops:
    def test_may_come_after_the_reference(self, loop_factory: Factory, gates: Gates) -> None:
        gate = gates.new()
        late, done = gate.ref("late"), same.remote("done")

        async def impatient() -> None:
            assert await done == "done"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late, 0.01)

        run_on(loop_factory, impatient())
        run_on(loop_factory, impatient())
        gate.open()
        assert run_on(loop_factory, awaited(late)) == "late"
        assert run_on(asyncio.new_event_loop, awaited(late)) == "late"

    def test_in_two_threads_may_await_one_reference_at_once(
        self, loop_factory: Factory, gates: Gates
    ) -> None:
        gate = gates.new()
        ref = gate.ref("for both")
        values: list[Any] = []

        def thread(factory: Factory) -> None:
            values.append(run_on(factory, awaited(ref)))

        threads = [
            threading.Thread(target=thread, args=[factory])
            for factory in (loop_factory, asyncio.new_event_loop)
        ]
        for one in threads:
            one.start()
        run_on(loop_factory, begun(lambda: waiters(ref), 2))
        gate.open()
        for one in threads:
            one.join(LIMIT_S)
        assert values == ["for both"] * 2

    def test_that_were_closed_meanwhile_are_skipped(self, loop_factory: Factory, gates: Gates) -> None:
        gate = gates.new()
        ref = gate.ref("late")
        called: list[str] = []

        async def leave_a_callback() -> None:
            ref.add_done_callback(lambda done: called.append("on a loop that was closed"))

        loop = loop_factory()
        abandon(loop.create_task(awaited(ref)))
        loop.run_until_complete(leave_a_callback())
        loop.run_until_complete(begun(lambda: waiters(ref), 2))
        loop.close()
        ref.add_done_callback(lambda done: called.append("without a loop"))
        gate.open()
        assert ray.get(ref, timeout=LIMIT_S) == "late"
        assert run_on(loop_factory, awaited(ref)) == "late"
        ray.get(same.remote(1))  # its turn comes after the callbacks'
        assert called == ["without a loop"]
        del loop
        gc.collect()

    def test_that_were_stopped_hear_of_it_when_they_run_again(
        self, loop_factory: Factory, gates: Gates
    ) -> None:
        gate = gates.new()
        ref = gate.ref("late")
        loop = loop_factory()
        try:
            task = loop.create_task(awaited(ref))
            loop.run_until_complete(begun(lambda: waiters(ref)))
            gate.open()
            assert ray.get(ref, timeout=LIMIT_S) == "late"
            assert loop.run_until_complete(asyncio.wait_for(task, LIMIT_S)) == "late"
        finally:
            loop.close()

    def test_may_be_many_one_after_the_other(self, loop_factory: Factory) -> None:
        ref = same.remote("again")
        for _ in range(20):
            assert run_on(loop_factory, awaited(ref)) == "again"
            assert run_on(loop_factory, awaited(same.remote(1))) == 1


def abandon(task: asyncio.Task[Any]) -> None:
    """Have nobody complain that the task is never finished."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
