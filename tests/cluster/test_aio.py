"""The verbs of asyncray.aio as coroutines, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import GetTimeoutError, RayTaskError, TaskCancelledError
from asyncray.process import current
from tests.cluster.gates import LIMIT_S, Gates, begun, fail, run_on, same, waiters, watchers

if TYPE_CHECKING:
    from asyncray import ObjectRef
    from tests.cluster.gates import Factory, Run

#: It takes references, but for the type checker: to that, nothing but a Future is like a future.
asyncio_wait: Any = asyncio.wait


pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture
def run(loop_factory: Factory) -> Run:
    return functools.partial(run_on, loop_factory)


class TestGet:
    def test_gives_values_in_the_order_of_the_list(self, run: Run) -> None:
        async def main() -> None:
            refs = [same.remote(i) for i in range(5)]
            assert await aio.get(refs) == [0, 1, 2, 3, 4]
            assert await aio.get(refs[1]) == 1
            assert await aio.get([refs[1], refs[1]]) == [1, 1]
            assert await aio.get([]) == []

        run(main())

    def test_raises_the_first_failure_without_waiting_for_the_rest(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate, late = gates.new(), gates.pending()
            waiting = asyncio.create_task(aio.get([late, gate.ref(ValueError("at once"))]))
            await begun(lambda: waiters(late))
            gate.open()
            with pytest.raises(ValueError, match="at once") as caught:
                await waiting
            assert isinstance(caught.value, RayTaskError)
            assert waiters(late) == []

        run(main())

    @pytest.mark.parametrize("timeout", [0, 0.01])
    def test_raises_when_the_time_is_over_and_the_work_goes_on(
        self, run: Run, gates: Gates, timeout: float
    ) -> None:
        async def main() -> None:
            gate = gates.new()
            late = gate.ref("late")
            wanted: list[Any] = [late, [late], [ray.put(1), late, late]]
            for refs in wanted:
                with pytest.raises(GetTimeoutError, match="the work goes on"):
                    await aio.get(refs, timeout=timeout)
            assert waiters(late) == []
            gate.open()
            assert await aio.get(late, timeout=LIMIT_S) == "late"
            assert await aio.get([late], timeout=0) == ["late"]

        run(main())

    def test_gives_what_came_in_the_last_moment(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The time is over, and before the waiting coroutine has its turn the value is there."""

        async def main() -> None:
            owner = current().session
            assert owner is not None
            ref: ObjectRef[int] = same.remote(1)

            async def too_late(records: Any) -> None:
                await asyncio_wait([ref])
                raise TimeoutError

            with monkeypatch.context() as patched:
                patched.setattr(owner.waits, "wait_all_async", too_late)
                assert await aio.get(ref, timeout=5) == 1
                assert await aio.get([ref], timeout=5) == [1]

        run(main())

    def test_that_is_cancelled_leaves_nobody_waiting(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            refs = [gates.pending(), gates.pending()]
            waiting = asyncio.create_task(aio.get(refs))
            await begun(lambda: waiters(refs[1]))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [waiters(ref) for ref in refs] == [[], []]

        run(main())

    def test_refuses_what_it_cannot_get(self, run: Run) -> None:
        async def main() -> None:
            wrong: list[Any] = [1, (ray.put(1),)]
            for refs in wrong:
                with pytest.raises(ValueError, match="get takes an ObjectRef or a list"):
                    await aio.get(refs)
            holding: Any = [ray.put(1), 2]
            with pytest.raises(TypeError, match="the list holds 2"):
                await aio.get(holding)
            with pytest.raises(ValueError, match="timeout must be None or >= 0"):
                await aio.get(ray.put(1), timeout=-1)

        run(main())


class TestWait:
    def test_keeps_the_order_of_the_list_in_both_parts(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            late = [gates.pending() for _ in range(2)]
            done = [ray.put(i) for i in range(3)]
            refs = [late[0], done[2], done[0], late[1], done[1]]
            assert await aio.wait(refs, num_returns=3) == ([done[2], done[0], done[1]], late)
            assert await aio.wait(refs) == ([done[2]], [late[0], done[0], late[1], done[1]])

        run(main())

    def test_returns_as_soon_as_enough_are_done(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            held = [gates.new() for _ in range(3)]
            refs = [gate.ref() for gate in held]
            waiting = asyncio.create_task(aio.wait(refs, num_returns=2))
            await begun(watchers)
            held[2].open()
            await refs[2]
            await aio.get([same.remote(i) for i in range(100)])
            assert not waiting.done()
            held[0].open()
            assert await waiting == ([refs[0], refs[2]], [refs[1]])

        run(main())

    def test_gives_fewer_when_the_time_is_over(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            late, done = gates.pending(), ray.put(1)
            for timeout in (0, 0.01):
                assert await aio.wait([late, done], num_returns=2, timeout=timeout) == ([done], [late])
                assert await aio.wait([late], timeout=timeout) == ([], [late])
            assert await aio.wait([done], timeout=0) == ([done], [])
            assert await aio.wait([]) == ([], [])

        run(main())

    def test_counts_failed_tasks_as_ready(self, run: Run) -> None:
        async def main() -> None:
            failed = fail.remote("no")
            assert await aio.wait([failed]) == ([failed], [])

        run(main())

    def test_that_is_cancelled_leaves_nobody_waiting(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            waiting = asyncio.create_task(aio.wait([gates.pending()]))
            await begun(watchers)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert watchers() == []

        run(main())

    def test_drains_a_list_one_at_a_time(self, run: Run) -> None:
        async def main() -> None:
            left, values = [same.remote(i) for i in range(1000)], []
            while left:
                ready, left = await aio.wait(left)
                values += await aio.get(ready)
            assert sorted(values) == list(range(1000))

        run(main())

    def test_refuses_what_it_cannot_wait_for(self, run: Run) -> None:
        async def main() -> None:
            one = ray.put(1)
            single: Any = one
            with pytest.raises(TypeError, match="not a single one"):
                await aio.wait(single)
            with pytest.raises(ValueError, match="stands there 2 times"):
                await aio.wait([one, one])
            with pytest.raises(ValueError, match="num_returns is 2"):
                await aio.wait([one], num_returns=2)
            with pytest.raises(ValueError, match="timeout must be None or >= 0"):
                await aio.wait([one], timeout=-1)

        run(main())


class TestAsCompleted:
    def test_gives_references_as_they_come(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            held = [gates.new() for _ in range(3)]
            refs = [held[0].ref(), held[1].ref(ValueError("not raised here")), held[2].ref()]
            order = iter([1, 2, 0])
            held[1].open()
            found = []
            next(order)
            async for ref in aio.as_completed(refs):
                found.append(refs.index(ref))
                held[next(order, 0)].open()
            assert found == [1, 2, 0]

        run(main())

    def test_gives_a_reference_as_often_as_it_stands_there(self, run: Run) -> None:
        async def main() -> None:
            one, two = same.remote(1), ray.put(2)
            found = [ref async for ref in aio.as_completed([one, two, one, two, one])]
            assert (found.count(one), found.count(two)) == (3, 2)

        run(main())

    def test_of_nothing_ends_at_once_and_takes_any_iterable(self, run: Run) -> None:
        async def main() -> None:
            nothing: list[ObjectRef[Any]] = []
            assert [ref async for ref in aio.as_completed(nothing)] == []
            values = [await ref async for ref in aio.as_completed(same.remote(i) for i in range(10))]
            assert sorted(values) == list(range(10))

        run(main())

    def test_that_is_left_early_leaves_nobody_waiting(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            late = [gates.pending(), gates.pending()]
            coming = aio.as_completed([*late, ray.put(1), late[0]])
            async for ref in coming:
                assert await ref == 1
                break
            await coming.aclose()
            assert [waiters(ref) for ref in late] == [[], []]

        run(main())

    def test_that_is_cancelled_leaves_nobody_waiting(self, run: Run, gates: Gates) -> None:
        async def take(ref: ObjectRef[Any]) -> None:
            async for _ in aio.as_completed([ref]):
                raise AssertionError("it is never done")

        async def main() -> None:
            late = gates.pending()
            waiting = asyncio.create_task(take(late))
            await begun(lambda: waiters(late))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert waiters(late) == []

        run(main())

    def test_lets_go_of_what_it_has_given(self, run: Run) -> None:
        async def main() -> None:
            session = current().session
            assert session is not None
            coming = aio.as_completed([same.remote(f"let go {i}") for i in range(200)])
            for _ in range(199):
                await anext(coming)
            session.owner.drain_dropped()
            records = session.owner.objects.owned.values()
            held = [record for record in records if str(record.value).startswith("let go")]
            assert len(held) <= 2
            await coming.aclose()

        run(main())

    def test_refuses_what_is_no_reference_at_the_call(self, run: Run) -> None:
        async def main() -> None:
            wrong: Any = [ray.put(1), 2]
            with pytest.raises(TypeError, match="as_completed takes references"):
                aio.as_completed(wrong)

        run(main())


class TestOthers:
    def test_put_gives_a_reference(self, run: Run) -> None:
        async def main() -> None:
            assert await (await aio.put({"a": 1})) == {"a": 1}
            with pytest.raises(TypeError, match="is a reference already"):
                await aio.put(ray.put(1))

        run(main())

    def test_cancel_fails_the_references_at_once(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            refs = [gates.pending(), gates.pending()]
            await aio.cancel(*refs)
            for ref in refs:
                with pytest.raises(TaskCancelledError):
                    await ref
            await aio.cancel(ray.put(1))
            wrong: Any = 1
            with pytest.raises(TypeError, match="cancel takes references"):
                await aio.cancel(wrong)

        run(main())

    def test_available_resources_are_told(self, run: Run) -> None:
        async def main() -> None:
            available = await aio.available_resources()
            assert 0 <= available.get("CPU", 0) <= 2, "what is not free is left out"

        run(main())
