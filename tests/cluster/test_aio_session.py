"""aio.session: a session for the time of a block; and loops and coroutines inside of tasks."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio, lifecycle
from asyncray.exceptions import SessionClosedError
from asyncray.process import current
from tests.cluster.gates import LIMIT_S, Gates, begun, run_on, same, waiters, watchers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncray import ObjectRef
    from tests.cluster.gates import Factory, Run
    from tests.conftest import Sharing


#: It takes references, but for the type checker: to that, nothing but a Future is like a future.
asyncio_wait: Any = asyncio.wait


@pytest.fixture
def run(loop_factory: Factory) -> Run:
    return functools.partial(run_on, loop_factory)


class TestSession:
    def test_lasts_as_long_as_its_block(self, run: Run) -> None:
        async def main() -> None:
            assert not ray.is_initialized()
            async with aio.session(num_cpus=2):
                assert ray.is_initialized()
                assert ray.cluster_resources()["CPU"] == 2
                assert await same.remote(1) == 1
            assert not ray.is_initialized()

        run(main())

    def test_may_follow_another_on_the_same_loop_and_on_the_next(self, run: Run) -> None:
        async def main() -> None:
            for value in range(2):
                async with aio.session(num_cpus=1):
                    assert await same.remote(value) == value

        run(main())
        with pytest.raises(RuntimeError):  # a loop that has run and is closed is in nobody's way
            run(failing_body())

    def test_ends_when_its_body_raises(self, run: Run) -> None:
        with pytest.raises(RuntimeError, match="from the body"):
            run(failing_body())
        assert not ray.is_initialized()

    def test_ends_when_its_body_is_cancelled(self, run: Run) -> None:
        async def body(inside: asyncio.Event) -> None:
            async with aio.session(num_cpus=1):
                inside.set()
                await asyncio.Event().wait()

        async def main() -> None:
            inside = asyncio.Event()
            task = asyncio.create_task(body(inside))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not ray.is_initialized()

        run(main())

    def test_is_not_left_half_closed_by_a_cancellation_of_its_end(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def body() -> None:
            async with aio.session(num_cpus=1):
                pass

        async def main() -> None:
            ending, go_on = held_back(monkeypatch, "stop")
            task = asyncio.create_task(body())
            await ending.wait()
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
            assert not task.done(), "it waits for the end of the session"
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not ray.is_initialized()

        run(main())

    def test_is_not_left_half_started_by_a_cancellation_of_its_start(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def body() -> None:
            async with aio.session(num_cpus=1):
                raise AssertionError("the body must not run")

        async def main() -> None:
            starting, go_on = held_back(monkeypatch, "start")
            task = asyncio.create_task(body())
            await starting.wait()
            task.cancel()
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not ray.is_initialized()

        run(main())

    @pytest.mark.parametrize("moment", ["start", "stop"])
    def test_does_not_block_the_loop(self, run: Run, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
        """Its start, or its end, waits for something that only a running loop does."""

        async def main() -> None:
            begun, go_on = held_back(monkeypatch, moment)

            async def help_it() -> None:
                await begun.wait()
                go_on.set()

            helper = asyncio.create_task(help_it())
            async with aio.session(num_cpus=1):
                assert await same.remote(1) == 1
            await helper

        run(main())

    def test_refuses_another_inside(self, run: Run) -> None:
        async def main() -> None:
            async with aio.session(num_cpus=1):
                with pytest.raises(RuntimeError, match="a second time"):
                    async with aio.session(num_cpus=1):
                        pass
                with pytest.raises(RuntimeError, match="a second time"):
                    ray.init()
                assert await same.remote("goes on") == "goes on"

        run(main())

    def test_inside_another_on_request_leaves_that_alone(self, run: Run) -> None:
        async def main() -> None:
            async with aio.session(num_cpus=1):
                outer = current().session
                async with aio.session(ignore_reinit_error=True):
                    assert await same.remote("inside") == "inside"
                assert current().session is outer
                assert await same.remote("goes on") == "goes on"
            assert not ray.is_initialized()

        run(main())

    def test_may_be_shut_down_in_its_body(self, run: Run) -> None:
        async def main() -> None:
            async with aio.session(num_cpus=1):
                ref = same.remote(1)
                await asyncio.to_thread(ray.shutdown)
                with pytest.raises(SessionClosedError):
                    await ref
                await asyncio.to_thread(ray.init, num_cpus=1)
            assert ray.is_initialized(), "that is another session"
            await asyncio.to_thread(ray.shutdown)

        run(main())

    def test_wakes_those_who_still_wait_at_its_end(self, run: Run, gates: Gates) -> None:
        async def main() -> None:
            async with aio.session(num_cpus=1):
                ref = gates.pending()
                waiting = [
                    asyncio.create_task(call)
                    for call in (aio.get(ref), aio.get([ref]), aio.wait([ref]), asyncio_wait([ref]))
                ]
                await begun(lambda: waiters(ref))
                await begun(watchers)
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(error) for error in outcomes[:2]] == [SessionClosedError] * 2
            assert outcomes[2:] == [([ref], []), ({ref}, set())]

        run(main())

    def test_raises_what_is_wrong_with_its_options(self, run: Run) -> None:
        async def main() -> None:
            wrong: dict[str, Any] = {"num_cpu": 1}
            with pytest.raises(RuntimeError, match="num_cpus"):
                async with aio.session(**wrong):
                    pass
            with pytest.raises(ValueError, match="num_cpus"):
                async with aio.session(num_cpus=-1):
                    pass
            assert not ray.is_initialized()

        run(main())


async def failing_body() -> None:
    async with aio.session(num_cpus=1):
        raise RuntimeError("from the body")


def held_back(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[asyncio.Event, threading.Event]:
    """Hold the start or the end of a session back; returns that it has begun, and what lets it go on."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    original = getattr(lifecycle, name)

    def held(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(LIMIT_S)
        return original(*arguments)

    monkeypatch.setattr(lifecycle, name, held)
    return begun, go_on


@ray.remote
async def await_child(way: str) -> Any:
    return await through(way, same.remote("child"))


@ray.remote
def run_child(way: str) -> Any:
    return asyncio.run(through(way, same.remote("child")))


async def through(way: str, ref: ObjectRef[Any]) -> Any:  # noqa: C901 - one branch a way
    """Wait for a reference in one of all the ways that there are."""
    if way == "await":
        return await ref
    if way == "aio.get":
        return (await aio.get([ref]))[0]
    if way == "aio.wait":
        await aio.wait([ref])
    elif way == "aio.as_completed":
        async for done in aio.as_completed([ref]):
            return done.result()
    elif way == "asyncio.wait":
        await asyncio_wait([ref])
    elif way == "gather":
        await asyncio.gather(ref)
    elif way == "as_future":
        await ref.as_future()
    elif way == "future":
        await asyncio.wrap_future(ref.future())
    elif way == "callback":
        called = asyncio.Event()
        ref.add_done_callback(lambda done: called.set())
        await called.wait()
    return ref.result()


WAYS = [
    "await",
    "aio.get",
    "aio.wait",
    "aio.as_completed",
    "asyncio.wait",
    "gather",
    "as_future",
    "future",
    "callback",
]


@pytest.fixture(scope="class")
def one_cpu(sharing: Sharing) -> Iterator[None]:
    with sharing(num_cpus=1):
        yield


@pytest.mark.usefixtures("one_cpu")
class TestInTasks:
    """A task that waits gives its CPU back, or its child would never run."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("parent", [await_child, run_child], ids=["coroutine", "loop of its own"])
    def test_on_one_cpu_a_child_runs_while_its_parent_waits(self, parent: Any, way: str) -> None:
        for _ in range(2):  # the second one finds the worker as the first one left it
            assert ray.get(parent.remote(way), timeout=LIMIT_S) == "child"


def test_a_loop_that_is_blocked_holds_nothing_up(run: Run, tmp_path: Path) -> None:
    """Tasks that were submitted, and tasks that these submit, run to their end meanwhile."""
    path = str(tmp_path / "news")
    os.mkfifo(path)

    @ray.remote
    def parent() -> int:
        total: int = sum(ray.get([same.remote(i) for i in range(10)]))
        with open(path, "w") as news:  # noqa: PTH123
            news.write("done")
        return total

    async def main() -> None:
        async with aio.session(num_cpus=2):
            refs = [same.remote(i) for i in range(100)]
            ref = parent.remote()
            with open(path) as news:  # noqa: ASYNC230, PTH123 - this is what blocks the loop
                assert news.read() == "done"
            assert await asyncio.gather(*refs) == list(range(100))
            assert await ref == 45

    run(main())
