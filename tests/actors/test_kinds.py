"""Async actors, threaded actors, concurrency groups, and what may wait where."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import asyncray as ray
from asyncray import exceptions

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Door:
    """Coroutines that wait until it is open."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def wait(self, value: Any = None) -> Any:
        self.waiting += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return value

    async def open(self) -> int:
        self.opened.set()
        return self.waiting

    async def until(self, count: int) -> int:
        while self.waiting < count:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        return self.waiting

    async def cancellations(self, count: int) -> int:
        while self.cancelled < count:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        return self.cancelled

    def at_once(self) -> str:
        return threading.current_thread().name

    async def blocking(self, ref: list[Any]) -> Any:
        return ray.get(ref[0])

    async def awaiting(self, ref: list[Any]) -> Any:
        return await ref[0]


Door = ray.remote(_Door)


@ray.remote
def soon(value: int) -> int:
    return value


def test_coroutines_of_an_actor_run_at_the_same_time() -> None:
    door = Door.remote()
    refs = [door.wait.remote(number) for number in range(100)]
    assert ray.get(door.until.remote(100)) == 100
    ray.get(door.open.remote())
    assert ray.get(refs) == list(range(100))


def test_sync_methods_of_an_async_actor_run_on_its_loop() -> None:
    assert ray.get(Door.remote().at_once.remote()) == "MainThread"


def test_no_more_coroutines_run_than_max_concurrency_says() -> None:
    door = Door.options(max_concurrency=3).remote()
    refs = [door.wait.remote(number) for number in range(3)]
    late = door.until.remote(3)
    done, _ = ray.wait([late], timeout=0.1)
    assert not done
    ray.cancel(refs[0])
    assert ray.get(late) == 3
    ray.cancel(*refs[1:])


def test_a_blocking_get_in_a_coroutine_names_what_to_await() -> None:
    door, ref = Door.remote(), ray.put(1)
    pending = soon.remote(3)
    with pytest.raises(RuntimeError, match="await"):
        ray.get(door.blocking.remote([Door.remote().wait.remote()]))
    assert ray.get(door.awaiting.remote([pending])) == 3
    assert ray.get(door.awaiting.remote([ref])) == 1


def test_a_cancelled_coroutine_gets_a_cancelled_error() -> None:
    door = Door.remote()
    ref = door.wait.remote()
    ray.get(door.until.remote(1))
    ray.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(ref)
    assert ray.get(door.cancellations.remote(1)) == 1


def test_actor_calls_cannot_be_cancelled_by_force() -> None:
    ref = Door.remote().wait.remote()
    with pytest.raises(ValueError, match="force"):
        ray.cancel(ref, force=True)
    ray.cancel(ref)


# --- threads ------------------------------------------------------------------------------------------------


class _Room:
    """Methods that wait for each other."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(4)

    def meet(self) -> int:
        return self.barrier.wait(10)

    def nested(self, value: int) -> int:
        got: int = ray.get(soon.remote(value))
        return got

    def until_cancelled(self) -> bool:
        while not ray.get_runtime_context().is_canceled():
            time.sleep(0.001)
        return True


Room = ray.remote(max_concurrency=4)(_Room)


def test_methods_of_a_threaded_actor_run_at_the_same_time() -> None:
    room = Room.remote()
    assert sorted(ray.get([room.meet.remote() for _ in range(4)])) == [0, 1, 2, 3]


def test_methods_in_threads_can_wait_for_tasks() -> None:
    room = Room.remote()
    assert ray.get([room.nested.remote(number) for number in range(8)]) == list(range(8))


def test_the_constructor_of_a_threaded_actor_can_wait_for_tasks() -> None:
    class Waiting:
        def __init__(self) -> None:
            self.value = ray.get(soon.remote(5))

        def get(self) -> int:
            return self.value

    assert ray.get(ray.remote(max_concurrency=2)(Waiting).remote().get.remote()) == 5


def test_a_queued_call_of_a_sync_actor_is_cancelled_and_a_running_one_is_told() -> None:
    class Patient:
        def __init__(self) -> None:
            self.calls = 0

        def until_cancelled(self) -> None:
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.001)

        def count(self) -> int:
            self.calls += 1
            return self.calls

    patient = ray.remote(Patient).remote()
    running = patient.until_cancelled.remote()
    queued = [patient.count.remote() for _ in range(3)]
    ray.wait([running], timeout=0.05)
    ray.cancel(queued[0])
    ray.cancel(running)
    for ref in (queued[0], running):
        with pytest.raises(exceptions.TaskCancelledError):
            ray.get(ref)
    assert ray.get(queued[1:]) == [1, 2]


def test_coroutines_have_no_flag_of_their_cancelling() -> None:
    class Asking:
        async def ask(self) -> bool:
            return ray.get_runtime_context().is_canceled()

    with pytest.raises(RuntimeError, match="CancelledError"):
        ray.get(ray.remote(Asking).remote().ask.remote())


def test_an_actor_knows_what_it_holds() -> None:
    class Holding:
        def held(self) -> dict[str, float]:
            return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(ray.remote(Holding).remote().held.remote()) == {}
    assert ray.get(ray.remote(num_cpus=0.5)(Holding).remote().held.remote()) == {"CPU": 0.5}


def test_a_sync_method_asks_whether_it_is_cancelled() -> None:
    room = Room.remote()
    ref = room.until_cancelled.remote()
    ray.wait([ref], timeout=0.1)
    ray.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(ref)
    # All four threads are free again.
    assert sorted(ray.get([room.meet.remote() for _ in range(4)])) == [0, 1, 2, 3]


# --- groups -------------------------------------------------------------------------------------------------


class _Grouped:
    """Methods in groups."""

    def __init__(self) -> None:
        self.io = asyncio.Event()
        self.running = 0
        self.most = 0

    @ray.method(concurrency_group="io")
    async def read(self) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.io.wait()
        self.running -= 1
        return self.most

    @ray.method(concurrency_group="compute")
    async def compute(self) -> str:
        return "computed"

    async def go(self) -> None:
        self.io.set()


Grouped = ray.remote(concurrency_groups={"io": 2, "compute": 1})(_Grouped)


def test_each_group_has_its_own_limit() -> None:
    grouped = Grouped.remote()
    reads = [grouped.read.remote() for _ in range(6)]
    assert ray.get(grouped.compute.remote()) == "computed"
    assert ray.get(grouped.compute.options(concurrency_group="compute").remote()) == "computed"
    ray.get(grouped.go.remote())
    assert max(ray.get(reads)) == 2


def test_a_method_of_an_unknown_group_is_refused() -> None:
    class _Wrong:
        @ray.method(concurrency_group="io")
        def read(self) -> None: ...

    with pytest.raises(ValueError, match="'io'"):
        ray.remote(_Wrong)


def test_in_order_is_refused_where_several_run_at_a_time() -> None:
    with pytest.raises(ValueError, match="allow_out_of_order_execution"):
        Door.options(allow_out_of_order_execution=False)


# --- flow ---------------------------------------------------------------------------------------------------


def test_more_calls_than_max_pending_calls_are_refused() -> None:
    door = Door.options(max_pending_calls=3).remote()
    refs = [door.wait.remote() for _ in range(3)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="3"):
        door.wait.remote()
    ray.cancel(*refs)


@pytest.mark.parametrize("limit", [0, -1])
async def test_no_limit_of_pending_calls_is_zero_or_less(limit: int) -> None:
    door = Door.options(max_pending_calls=limit).remote()
    refs = [await door.wait.remote_async() for _ in range(5)]
    ray.cancel(*refs)


def test_all_handles_of_a_process_count_together_and_each_process_for_itself() -> None:
    @ray.remote
    def opens(handle: ray.ActorHandle[Any]) -> int:
        value: int = ray.get(handle.open.remote())
        return value

    door = Door.options(max_pending_calls=2, name="counted").remote()
    waiting = [door.wait.remote() for _ in range(2)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded):
        ray.get_actor("counted").wait.remote()
    assert ray.get(opens.remote(door)) == 2
    ray.get(waiting)


async def test_a_coroutine_can_wait_for_room() -> None:
    door = Door.options(max_pending_calls=2).remote()
    first = await door.wait.remote_async()
    opening = await door.open.remote_async()
    late = await door.wait.remote_async("late")
    assert await late == "late"
    assert (await first, await opening) == (None, 1)


# --- blocked loops ------------------------------------------------------------------------------------------


class _Blocking:
    """Blocks its own loop."""

    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251

    async def fine(self) -> None:
        await asyncio.sleep(0.3)


def test_a_coroutine_that_blocks_its_loop_is_named_once(capfd: pytest.CaptureFixture[str]) -> None:
    blocking = ray.remote(_Blocking).remote()
    ray.get([blocking.fine.remote(), blocking.fine.remote()])
    for _ in range(2):
        ray.get(blocking.block.remote(0.5))
    ray.kill(blocking)
    ray.shutdown()  # everything has been shown then
    told = [line for line in capfd.readouterr().err.splitlines() if "blocked its actor's event loop" in line]
    assert len(told) == 1
    assert "_Blocking.block" in told[0]
    assert f"{__file__}:" in told[0]
    ray.init(num_cpus=2)
