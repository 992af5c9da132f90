"""Scopes: whose cancellation reaches remote work, and whose does not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import TaskCancelledError
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import Beacon
from tests.cluster.checks import assert_nothing_is_held
from tests.cluster.gates import Gate, run_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from asyncray import ObjectRef


@pytest.fixture
def beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what tasks tell."""
    made = Beacon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Hold tasks up."""
    made = Gate(tmp_path)
    yield made
    made.open()
    made.close()


def run(main: Callable[[], Any]) -> Any:
    return run_on(asyncio.SelectorEventLoop, main())


@asynccontextmanager
async def left_by_a_failure() -> AsyncIterator[aio.Scope]:
    """A scope that is left by an exception at the end of the block."""
    with suppress(KeyError):
        async with aio.scope() as scope:
            yield scope
            raise KeyError


async def cancelled_while(body: Callable[[asyncio.Event], Any]) -> None:
    """Run the body as an asyncio task, and cancel that once it has set the event."""
    there = asyncio.Event()
    task = asyncio.create_task(body(there))
    await there.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_without_a_scope_a_cancelled_await_lets_the_work_go_on(shared_ray: ModuleType, gate: Gate) -> None:
    refs: list[ObjectRef[Any]] = []

    async def body(there: asyncio.Event) -> None:
        refs.append(tasks.after.remote(gate.path, "value"))
        there.set()
        await refs[0]

    async def main() -> None:
        await cancelled_while(body)
        gate.open()
        assert await refs[0] == "value"

    run(main)


def test_in_a_scope_cancellation_reaches_the_running_work_and_its_children(
    shared_ray: ModuleType, beacon: Beacon
) -> None:
    refs: list[ObjectRef[Any]] = []

    async def body(there: asyncio.Event) -> None:
        async with aio.scope():
            refs.append(tasks.wait_for_child.remote(beacon.path, tasks.linger, beacon.path))
            await asyncio.to_thread(lambda: (beacon.next(), beacon.next()))
            there.set()
            await refs[0]

    run(lambda: cancelled_while(body))
    assert refs[0].cancelled()
    told = sorted(beacon.next() for _ in range(3))
    assert told[0] == "CancelledError"
    assert told[2] == "cleaned up"
    assert_nothing_is_held()


def test_a_timeout_around_a_scope_reaches_it(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        scopes = []

        async def hurried() -> None:
            async with asyncio.timeout(0.05), aio.scope() as scope:
                scopes.append(scope)
                refs.append(tasks.after.remote(gate.path))
                await refs[0]

        refs: list[ObjectRef[Any]] = []
        with pytest.raises(TimeoutError):
            await hurried()
        assert refs[0].cancelled()
        assert scopes[0].cancelled

    run(main)


def test_a_failure_of_the_body_cancels_what_is_not_done(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        async with left_by_a_failure():
            done = tasks.plain.remote(1)
            assert await done == 1
            pending = tasks.after.remote(gate.path)
            waiting = tasks.plain.remote(pending)
        assert pending.cancelled()
        assert waiting.cancelled()
        assert await done == 1

    run(main)


def test_who_leaves_in_the_ordinary_way_leaves_work_behind(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        async with aio.scope() as scope:
            ref = tasks.after.remote(gate.path, "value")
        assert not scope.cancelled
        gate.open()
        assert await ref == "value"

    run(main)


def test_calls_before_and_after_the_block_are_not_its_own(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        before = tasks.after.remote(gate.path, "before")
        async with left_by_a_failure():
            pass
        after = tasks.after.remote(gate.path, "after")
        gate.open()
        assert await aio.get([before, after]) == ["before", "after"]

    run(main)


def test_calls_of_asyncio_tasks_started_inside_belong_to_it(shared_ray: ModuleType, gate: Gate) -> None:
    async def call() -> ObjectRef[Any]:
        ref: ObjectRef[Any] = tasks.after.remote(gate.path)
        return ref

    async def main() -> None:
        async with left_by_a_failure():
            refs = await asyncio.gather(*[asyncio.create_task(call()) for _ in range(3)])
        assert all(ref.cancelled() for ref in refs)

    run(main)


def test_a_call_in_a_cancelled_scope_fails_at_once_and_never_runs(
    shared_ray: ModuleType, beacon: Beacon
) -> None:
    async def late(left: asyncio.Event) -> ObjectRef[Any]:
        await left.wait()
        return tasks.tell.remote(beacon.path)

    async def main() -> None:
        left = asyncio.Event()
        async with left_by_a_failure():
            straggler = asyncio.create_task(late(left))
            await asyncio.sleep(0)
        left.set()
        ref = await straggler
        assert ref.cancelled()
        with pytest.raises(TaskCancelledError, match="'tell' was cancelled"):
            await ref

    run(main)
    assert_nothing_is_held()
    assert beacon.told() == []


def test_an_outer_scope_reaches_what_was_called_for_in_an_inner_one(
    shared_ray: ModuleType, gate: Gate
) -> None:
    async def main() -> None:
        async with left_by_a_failure() as outer:
            async with aio.scope() as inner:
                ref = tasks.after.remote(gate.path)
            assert not ref.done()
        assert ref.cancelled()
        assert outer.cancelled
        assert not inner.cancelled

    run(main)


def test_an_inner_scope_leaves_the_outer_one_alone(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        async with aio.scope():
            outer = tasks.after.remote(gate.path, "value")
            async with left_by_a_failure():
                inner = tasks.after.remote(gate.path)
            assert inner.cancelled()
            gate.open()
            assert await outer == "value"

    run(main)


def test_a_call_without_returns_is_cancelled_too(shared_ray: ModuleType, beacon: Beacon) -> None:
    async def main() -> None:
        async with left_by_a_failure():
            assert tasks.linger.options(num_returns=0).remote(beacon.path) is None
            await asyncio.to_thread(beacon.next)

    run(main)
    assert [beacon.next(), beacon.next()] == ["CancelledError", "cleaned up"]
    assert_nothing_is_held()


def test_a_scope_can_be_cancelled_by_hand(shared_ray: ModuleType, gate: Gate) -> None:
    async def main() -> None:
        async with aio.scope() as scope:
            ref = tasks.after.remote(gate.path)
            scope.cancel()
            assert ref.cancelled()
            assert tasks.plain.remote(1).cancelled()

    run(main)


def test_a_scope_is_entered_once(shared_ray: ModuleType) -> None:
    async def main() -> None:
        scope = aio.scope()
        async with scope:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            async with scope:
                pass

    run(main)


def test_a_scope_in_a_coroutine_task_reaches_its_children(shared_ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    async def hurried(gate: str) -> bool:
        refs: list[ObjectRef[Any]] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05), aio.scope():
                refs.append(tasks.after.remote(gate))
                await refs[0]
        return refs[0].cancelled()

    assert ray.get(hurried.remote(gate.path))


def test_a_long_lived_scope_forgets_what_is_done(shared_ray: ModuleType) -> None:
    async def main() -> None:
        async with aio.scope() as scope:
            for _ in range(20):
                await aio.get([tasks.plain.remote(number) for number in range(50)])
            assert len(scope._calls) <= 128

    run(main)
