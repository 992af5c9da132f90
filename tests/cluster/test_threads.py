"""Many threads at once, calls from wherever Python code may run, and event loops that are blocked."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import GetTimeoutError, SessionClosedError, TaskCancelledError
from asyncray.process import current
from asyncray.util import as_completed, map_unordered
from tests.cluster.gates import LIMIT_S, Gates, fail, same, waiters, watchers

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncray import ObjectRef
    from tests.cluster.gates import Factory

THREADS = 8


@ray.remote
def add(one: int, other: int) -> int:
    return one + other


@ray.remote
def through_a_child(value: Any) -> Any:
    return ray.get(same.remote(value))


def in_threads(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Run work(0), work(1) ... at the same time, each on a thread of its own; gives what they return."""
    together = threading.Barrier(count)

    def run(number: int) -> Any:
        together.wait(LIMIT_S)
        return work(number)

    with ThreadPoolExecutor(count, "user") as pool:
        return [future.result(2 * LIMIT_S) for future in [pool.submit(run, i) for i in range(count)]]


class TestStarting:
    def test_by_the_first_calls_of_many_threads_starts_one_session(self) -> None:
        try:
            sessions = in_threads(lambda number: (ray.get(same.remote(number)), current().session))
            assert [value for value, _ in sessions] == list(range(THREADS))
            assert len({session for _, session in sessions}) == 1
        finally:
            ray.shutdown()

    def test_in_a_thread_that_ends_leaves_a_session_for_the_others(self) -> None:
        try:
            in_threads(lambda number: ray.init(num_cpus=1), 1)
            assert ray.get(same.remote("still there")) == "still there"
        finally:
            ray.shutdown()

    def test_the_end_wakes_all_threads_that_wait(self, gates: Gates) -> None:
        ray.init(num_cpus=1)
        refs = [gates.pending() for _ in range(4)]
        calls: list[Callable[[], Any]] = [
            lambda: ray.get(refs[0]),
            lambda: ray.get(refs),
            refs[1].result,
            lambda: next(iter(as_completed(refs[2:3]))),
            lambda: ray.wait(refs[3:]),
            lambda: asyncio.run(aio.get(refs[3])),
            lambda: refs[3].future().result(),
        ]

        def work(number: int) -> Any:
            if number == len(calls):
                while [len(waiters(ref)) for ref in refs] != [2, 2, 2, 3] or not watchers():
                    threading.Event().wait(0)
                ray.shutdown()
                return None
            try:
                return calls[number]()
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                return error

        *outcomes, _ = in_threads(work, len(calls) + 1)
        assert outcomes.pop(4) == ([refs[3]], [])
        assert [type(outcome) for outcome in outcomes] == [SessionClosedError] * (len(calls) - 1)


class TestBlockedLoop:
    """A loop that its user blocks stops nobody: five seconds or five minutes, here until all is done."""

    @pytest.mark.parametrize("in_session", ["init", "aio.session"])
    def test_tasks_go_on_and_so_do_those_that_they_submit(
        self, loop_factory: Factory, in_session: str
    ) -> None:
        async def block_and_look() -> None:
            refs: list[ObjectRef[Any]] = [same.remote(i) for i in range(500)]
            nested = [through_a_child.remote(i) for i in range(20)]
            chain = same.remote(0)
            for _ in range(50):
                chain = add.remote(chain, 1)
            everything = [*refs, *nested, chain]
            done = threading.Semaphore(0)
            # Callbacks that need no loop: the blocked one could not tell us.
            for ref in everything:
                ref.future().add_done_callback(lambda _: done.release())
            for _ in everything:
                assert done.acquire(timeout=LIMIT_S)  # this blocks the loop
            assert all(ref.done() for ref in everything)
            assert await asyncio.gather(*everything) == [*range(500), *range(20), 50]

        async def in_a_session() -> None:
            async with aio.session(num_cpus=2):
                await block_and_look()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            if in_session == "aio.session":
                runner.run(in_a_session())
                return
            with ray.init(num_cpus=2):
                runner.run(block_and_look())

    def test_of_one_thread_does_not_stop_the_loop_of_another(self, loop_factory: Factory) -> None:
        unblock, blocked = threading.Event(), threading.Event()

        async def block(ref: ObjectRef[Any]) -> Any:
            waiting = asyncio.ensure_future(ref)
            await asyncio.sleep(0)
            blocked.set()
            assert unblock.wait(LIMIT_S)  # this blocks the loop
            return await waiting

        async def work(ref: ObjectRef[Any]) -> Any:
            await asyncio.to_thread(blocked.wait, LIMIT_S)
            values = await asyncio.gather(ref, *[same.remote(i) for i in range(100)])
            unblock.set()
            return values[0]

        def run(number: int) -> Any:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run((block, work)[number](ref))

        with ray.init(num_cpus=1):
            ref = same.remote("for both")
            assert in_threads(run, 2) == ["for both"] * 2


@pytest.mark.usefixtures("shared_ray")
class TestManyThreads:
    def test_submit_and_get(self) -> None:
        def work(number: int) -> None:
            for i in range(100):
                assert ray.get(add.remote(number, i)) == number + i
            refs = [add.remote(number, i) for i in range(300)]
            assert ray.get(refs) == [number + i for i in range(300)]

        in_threads(work)

    def test_do_everything_at_once(self, gates: Gates) -> None:
        late = gates.pending()

        def work(number: int) -> None:
            choose = random.Random(number)
            for i in range(60):
                KINDS[choose.randrange(len(KINDS))](i, late)

        in_threads(work)
        assert waiters(late) == []
        assert watchers() == []

    def test_get_one_reference(self, gates: Gates) -> None:
        gate = gates.new()
        ref = gate.ref({"the": "same"})

        def work(number: int) -> Any:
            if number == 0:
                while len(waiters(ref)) < THREADS - 1:
                    threading.Event().wait(0)
                gate.open()
            return ray.get(ref, timeout=LIMIT_S)

        values = in_threads(work)
        assert values == [{"the": "same"}] * THREADS
        assert len({id(value) for value in values}) == THREADS

    def test_wait_for_one_list(self) -> None:
        refs = [same.remote(i) for i in range(500)]

        def drain(number: int) -> set[Any]:
            left, seen = refs, set()
            while left:
                ready, left = ray.wait(left, num_returns=min(3, len(left)), timeout=LIMIT_S)
                seen.update(ready)
            return seen

        assert in_threads(drain) == [set(refs)] * THREADS

    def test_await_on_loops_of_their_own(self, loop_factory: Factory) -> None:
        shared = [same.remote(i) for i in range(200)]

        async def main(number: int) -> list[int]:
            own = [add.remote(number, i) for i in range(50)]
            await asyncio.gather(*map(asyncio.ensure_future, shared))
            return await asyncio.gather(*own, *shared)

        def work(number: int) -> list[int]:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(asyncio.wait_for(main(number), LIMIT_S))

        expected = [[number + i for i in range(50)] + list(range(200)) for number in range(THREADS)]
        assert in_threads(work) == expected

    def test_add_and_remove_callbacks_while_it_completes(self) -> None:
        """Each callback is called once, or was removed, and never both."""
        for _ in range(30):
            ref = same.remote(1)
            called: list[int] = []

            def work(number: int, ref: ObjectRef[Any] = ref, called: list[int] = called) -> int:
                def note(done: ObjectRef[Any]) -> None:
                    called.append(number)

                for _ in range(10):
                    ref.add_done_callback(note)
                return ref.remove_done_callback(note)

            removed = sum(in_threads(work, 3))
            ray.get(ref)
            ray.get(same.remote(2))
            assert removed + len(called) == 30

    def test_cancel_wakes_a_thread_that_waits(self, gates: Gates) -> None:
        ref = gates.pending()

        def work(number: int) -> Any:
            if number == 0:
                while len(waiters(ref)) < 3:
                    threading.Event().wait(0)
                ray.cancel(ref)
            return ref.exception(LIMIT_S)

        assert [type(error) for error in in_threads(work, 4)] == [TaskCancelledError] * 4

    def test_in_a_task_submit_and_get(self) -> None:
        @ray.remote
        def task() -> list[int]:
            return in_threads(lambda number: sum(ray.get([add.remote(number, i) for i in range(20)])), 4)

        assert ray.get(task.remote(), timeout=LIMIT_S) == [190 + 20 * number for number in range(4)]


def _get_one(i: int, late: ObjectRef[Any]) -> None:
    assert ray.get(same.remote(i)) == i


def _get_put(i: int, late: ObjectRef[Any]) -> None:
    assert ray.get(add.remote(ray.put(i), 1)) == i + 1


def _wait(i: int, late: ObjectRef[Any]) -> None:
    one = same.remote(i)
    assert ray.wait([late, one]) == ([one], [late])


def _poll(i: int, late: ObjectRef[Any]) -> None:
    assert ray.wait([late], timeout=0) == ([], [late])
    with pytest.raises(GetTimeoutError):
        ray.get(late, timeout=0.0005)


def _fail(i: int, late: ObjectRef[Any]) -> None:
    with pytest.raises(ValueError, match=f"number {i}"):
        ray.get([late, fail.remote(f"number {i}")])


def _complete(i: int, late: ObjectRef[Any]) -> None:
    assert sorted(as_completed([same.remote(j) for j in range(5)])) == list(range(5))
    assert sorted(map_unordered(same, range(5), backpressure_size=2)) == list(range(5))


def _future(i: int, late: ObjectRef[Any]) -> None:
    assert same.remote(i).future().result(LIMIT_S) == i
    assert late.future().cancel()


def _loop(i: int, late: ObjectRef[Any]) -> None:
    assert asyncio.run(aio.get([same.remote(i)])) == [i]


def _cancel(i: int, late: ObjectRef[Any]) -> None:
    one = same.remote(i)
    ray.cancel(one)
    assert one.exception() is None or one.cancelled()


KINDS: list[Callable[[int, ObjectRef[Any]], None]] = [
    _get_one,
    _get_put,
    _wait,
    _poll,
    _fail,
    _complete,
    _future,
    _loop,
    _cancel,
]


class Cycle:
    """Calls for work when it is collected."""

    def __init__(self, found: list[ObjectRef[Any]]) -> None:
        self.found = found
        self.myself = self

    def __del__(self) -> None:
        self.found.append(same.remote("from a destructor"))


@pytest.mark.usefixtures("shared_ray")
class TestWherever:
    def test_a_callback_of_the_completing_thread_may_submit_and_look_but_not_wait(self, gates: Gates) -> None:
        gate, late = gates.new(), gates.pending()
        ref = gate.ref(1)
        submitted: list[ObjectRef[Any]] = []
        refused: list[RuntimeError] = []
        called = threading.Event()

        def callback(done: ObjectRef[Any]) -> None:
            submitted.append(same.remote(done.result() + 1))
            try:
                ray.get(late)
            except RuntimeError as error:
                refused.append(error)
            called.set()

        ref.add_done_callback(callback)
        gate.open()
        assert called.wait(LIMIT_S)
        assert ray.get(submitted, timeout=LIMIT_S) == [2]
        assert ["must not wait" in str(error) for error in refused] == [True]

    def test_callbacks_may_submit_calls_that_have_callbacks(self) -> None:
        left = threading.Semaphore(0)

        def submit(depth: int) -> None:
            ref = same.remote(depth)
            if depth:
                ref.add_done_callback(lambda done: submit(depth - 1))
            ref.add_done_callback(lambda done: left.release())

        submit(200)
        for _ in range(201):
            assert left.acquire(timeout=LIMIT_S)

    def test_callbacks_on_what_is_done_may_add_any_number_of_others(self) -> None:
        done, order = ray.put(1), list[int]()

        def add(depth: int) -> None:
            order.append(depth)
            if depth < 3000:
                done.add_done_callback(lambda ref: add(depth + 1))

        add(0)
        assert order == list(range(3001))

    def test_a_coroutine_may_submit_without_waiting(self, loop_factory: Factory) -> None:
        async def main() -> None:
            refs = [same.remote(i) for i in range(1000)]
            assert await aio.get(refs) == list(range(1000))

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    def test_a_destructor_may_submit(self) -> None:
        found: list[ObjectRef[Any]] = []
        for _ in range(20):
            Cycle(found)
        gc.collect()
        assert ray.get(found, timeout=LIMIT_S) == ["from a destructor"] * 20

    def test_a_destructor_that_interrupts_submits_and_gets_may_submit(self) -> None:
        """The collector runs at every few allocations, in the middle of everything, on several threads."""
        found: list[ObjectRef[Any]] = []
        before = gc.get_threshold()

        def work(number: int) -> None:
            for i in range(100):
                Cycle(found)
                assert ray.get(same.remote([number, i])) == [number, i]

        gc.set_threshold(3, 2, 2)
        try:
            in_threads(work, 3)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert len(found) == 300
        assert set(ray.get(found, timeout=LIMIT_S)) == {"from a destructor"}

    def test_a_destructor_of_a_value_may_submit(self) -> None:
        found: list[ObjectRef[Any]] = []

        class Value:
            def __del__(self) -> None:
                found.append(same.remote("last words"))

        def callback(done: ObjectRef[Any]) -> None:
            kept.clear()
            called.set()

        kept, called = [Value()], threading.Event()
        same.remote(1).add_done_callback(callback)
        assert called.wait(LIMIT_S)
        assert ray.get(found, timeout=LIMIT_S) == ["last words"]

    def test_a_generator_that_is_left_in_another_thread_lets_go_there(self, gates: Gates) -> None:
        late = gates.pending()
        values = as_completed([late, ray.put(1)])
        assert next(values) == 1
        in_threads(lambda number: values.close(), 1)  # type: ignore[attr-defined]
        assert waiters(late) == []
