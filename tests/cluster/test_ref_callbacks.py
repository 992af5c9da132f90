"""Callbacks of references, what references tell of themselves, and the futures they make."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import GetTimeoutError, RayTaskError, TaskCancelledError
from tests.cluster.gates import LIMIT_S, Gate, Gates, begun, fail, run_on, same, waiters

if TYPE_CHECKING:
    from collections.abc import Callable

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


async def awaited(ref: ObjectRef[Any]) -> Any:
    return await ref


class TestCallbacks:
    def test_are_called_once_on_the_loop_that_added_them_with_the_reference(
        self, run: Run, gates: Gates
    ) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref()
            seen: list[Any] = []

            def note(done: ObjectRef[Any]) -> None:
                seen.append((done is ref, done.done(), asyncio.get_running_loop() is loop))

            loop = asyncio.get_running_loop()
            ref.add_done_callback(note)
            gate.open()
            await ref
            await asyncio.sleep(0)
            assert seen == [(True, True, True)]

        run(main())

    def test_of_a_loop_come_soon_also_when_the_reference_is_done(self, run: Run) -> None:
        async def main() -> None:
            called = asyncio.Event()
            ray.put(1).add_done_callback(lambda done: called.set())
            assert not called.is_set(), "not inside add_done_callback"
            await called.wait()

        run(main())

    def test_come_in_the_order_in_which_they_were_added(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref()
            order: list[int] = []
            for i in range(10):
                ref.add_done_callback(lambda done, i=i: order.append(i))  # type: ignore[misc]
            gate.open()
            await ref
            await asyncio.sleep(0)
            assert order == list(range(10))

        run(main())

    def test_without_a_loop_are_called_by_the_thread_that_completes(self, gates: Gates) -> None:
        gate = gates.new()
        ref = gate.ref()
        called = threading.Event()
        threads: list[threading.Thread] = []

        def note(done: ObjectRef[Any]) -> None:
            assert done is ref
            threads.append(threading.current_thread())
            called.set()

        ref.add_done_callback(note)
        gate.open()
        assert called.wait(LIMIT_S)
        assert threads != [threading.current_thread()]

    def test_without_a_loop_are_called_at_once_when_the_reference_is_done(self) -> None:
        called: list[Any] = []
        ref = ray.put(1)
        ref.add_done_callback(called.append)
        assert called == [ref]

    def test_that_were_removed_are_not_called(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref()
            called: list[Any] = []

            def other(done: ObjectRef[Any]) -> None:
                called.append("other")

            for _ in range(3):
                ref.add_done_callback(called.append)
            ref.add_done_callback(other)
            assert ref.remove_done_callback(called.append) == 3
            assert ref.remove_done_callback(called.append) == 0
            assert ref.remove_done_callback(print) == 0
            gate.open()
            await ref
            await asyncio.sleep(0)
            assert called == ["other"]
            assert ref.remove_done_callback(other) == 0

        run(main())

    def test_run_in_the_context_of_whoever_added_them(self, run: Run, gates: Gates) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

        async def main() -> None:
            gate = gates.new()
            ref = gate.ref()
            seen: list[str] = []

            def note(done: ObjectRef[Any]) -> None:
                seen.append(variable.get())

            own = contextvars.copy_context()
            own.run(variable.set, "given")
            variable.set("here")
            ref.add_done_callback(note)
            ref.add_done_callback(note, context=own)
            ref.add_done_callback(note, context=contextvars.Context())
            variable.set("later")
            gate.open()
            await ref
            await asyncio.sleep(0)
            assert seen == ["here", "given", "none"]

        run(main())

    def test_that_raise_are_reported_to_their_loop_and_disturb_nobody(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("all the same")
            reported: list[Any] = []
            called: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, what: reported.append(what))
            errors = [ValueError("mine"), asyncio.CancelledError("mine, too")]
            for error in errors:
                ref.add_done_callback(raising(error))
            ref.add_done_callback(called.append)
            waiting = asyncio.create_task(awaited(ref))
            await begun(lambda: waiters(ref), 4)
            gate.open()
            assert await waiting == "all the same"
            assert called == [ref]
            assert [what["exception"] for what in reported] == errors

        run(main())

    def test_that_raise_without_a_loop_are_logged_and_disturb_nobody(
        self, gates: Gates, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = gates.new()
        late = gate.ref("all the same")
        called = threading.Event()
        with caplog.at_level(logging.ERROR, "asyncray"):
            ray.put(1).add_done_callback(raising(ValueError("at once")))
            late.add_done_callback(raising(ValueError("later")))
            late.add_done_callback(lambda done: called.set())
            gate.open()
            assert ray.get(late, timeout=LIMIT_S) == "all the same"
            assert called.wait(LIMIT_S)
        errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
        assert errors == ["at once", "later"]

    def test_may_add_callbacks_submit_and_look_at_the_outcome(self, run: Run) -> None:
        async def main() -> None:
            finished = asyncio.get_running_loop().create_future()

            def second(done: ObjectRef[Any]) -> None:
                finished.set_result(done.result())

            def first(done: ObjectRef[Any]) -> None:
                same.remote(done.result() + 1).add_done_callback(second)

            same.remote(1).add_done_callback(first)
            assert await finished == 2

        run(main())

    def test_see_a_large_value_of_another_process(self, run: Run) -> None:
        """The owner tells at first only that it is there; the value itself comes when it is wanted."""

        @ray.remote
        def look(refs: list[ObjectRef[bytes]]) -> list[int]:
            (ref,) = refs
            ray.wait([ref], timeout=0, fetch_local=False)
            futures = [ref.future(), ref.future()]

            async def main() -> int:
                waiting = wait([ref], return_when=asyncio.FIRST_EXCEPTION, timeout=LIMIT_S)
                (done,), _ = await waiting
                assert done.exception() is None
                return len(done.result())

            return [asyncio.run(main()), *(len(future.result(LIMIT_S)) for future in futures)]

        @ray.remote
        def large() -> bytes:
            return b"x" * 1_000_000

        async def main() -> None:
            assert await look.remote([large.remote()]) == [1_000_000] * 3

        run(main())


def raising(error: BaseException) -> Callable[[Any], None]:
    def call(done: object) -> None:
        raise error

    return call


class TestState:
    def test_of_a_pending_one(self, gates: Gates) -> None:
        ref = gates.pending()
        assert not ref.done()
        assert not ref.cancelled()
        with pytest.raises(GetTimeoutError):
            ref.result(0)
        with pytest.raises(GetTimeoutError):
            ref.exception(timeout=0.001)
        assert waiters(ref) == []

    def test_of_a_value(self) -> None:
        ref = same.remote(1)
        assert ref.exception(timeout=LIMIT_S) is None
        assert ref.result() == 1
        assert ref.done()
        assert not ref.cancelled()

    def test_of_a_failure(self) -> None:
        ref = fail.remote("no")
        error = ref.exception(LIMIT_S)
        assert isinstance(error, ValueError)
        assert isinstance(error, RayTaskError)
        with pytest.raises(ValueError, match="no"):
            ref.result()
        assert ref.done()
        assert not ref.cancelled()

    def test_of_a_cancelled_task(self, gates: Gates) -> None:
        ref = gates.pending()
        ray.cancel(ref)
        assert ref.done()
        assert ref.cancelled()
        assert isinstance(ref.exception(), TaskCancelledError)
        with pytest.raises(TaskCancelledError):
            ref.result()

    def test_on_a_loop_is_there_for_what_is_done_and_names_the_remedy_for_the_rest(
        self, run: Run, gates: Gates
    ) -> None:
        async def main() -> None:
            assert ray.put(1).result() == 1
            late = gates.pending()
            for call in (late.result, late.exception):
                with pytest.raises(RuntimeError, match=r"use `await ref` instead"):
                    call()
                with pytest.raises(GetTimeoutError):
                    call(0)

        run(main())


class TestFutures:
    def test_future_has_the_value_or_the_failure(self, gates: Gates) -> None:
        held: Gate = gates.new()
        good, bad = held.ref("good").future(), held.ref(ValueError("bad")).future()
        assert not good.done()
        held.open()
        assert good.result(LIMIT_S) == "good"
        assert isinstance(bad.exception(LIMIT_S), ValueError)
        assert ray.put(1).future().result(0) == 1

    def test_future_works_with_concurrent_futures(self) -> None:
        futures = [same.remote(i).future() for i in range(10)]
        done, pending = concurrent.futures.wait(futures, timeout=LIMIT_S)
        assert len(done) == 10
        assert not pending
        assert sorted(f.result() for f in concurrent.futures.as_completed(futures)) == list(range(10))

    def test_future_made_on_a_loop_needs_no_loop(self, run: Run, gates: Gates) -> None:
        gate = gates.new()

        async def main() -> concurrent.futures.Future[Any]:
            return gate.ref("later").future()

        future = run(main())
        gate.open()
        assert future.result(LIMIT_S) == "later"

    def test_future_that_is_cancelled_detaches_and_nothing_else(self, gates: Gates) -> None:
        gate = gates.new()
        ref = gate.ref("goes on")
        for _ in range(3):
            assert ref.future().cancel()
        assert waiters(ref) == []
        gate.open()
        assert ray.get(ref, timeout=LIMIT_S) == "goes on"

    def test_wrap_future_takes_it(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("wrapped")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(ref.future()), 0.01)
            assert waiters(ref) == []
            gate.open()
            assert await asyncio.wrap_future(ref.future()) == "wrapped"

        run(main())

    def test_as_future_is_a_future_of_the_running_loop(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            gate = gates.new()
            ref = gate.ref("value")
            future, given_up = ref.as_future(), ref.as_future()
            assert asyncio.isfuture(future)
            await begun(lambda: waiters(ref), 2)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            gate.open()
            assert await future == "value"
            with pytest.raises(ValueError, match="no"):
                await fail.remote("no").as_future()

        run(main())

    def test_as_future_needs_a_running_loop(self) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            same.remote(1).as_future()
