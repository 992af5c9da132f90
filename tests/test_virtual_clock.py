"""Virtual time: clocks jump instead of waiting, and a deadlock is an error instead of a hang."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import TYPE_CHECKING, TypeVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.testing import DeadlockError, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

DAY_S = 86_400.0


def run(main: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def sleep_until_done(delays: list[float]) -> list[float]:
    """Sleep in one task for each delay; return when each of them woke, in the order of waking."""
    woke: list[float] = []

    async def sleeper(delay: float) -> None:
        await asyncio.sleep(delay)
        woke.append(now())

    async with asyncio.TaskGroup() as group:
        for delay in delays:
            group.create_task(sleeper(delay))
    return woke


def test_a_day_of_sleep_takes_no_time_and_moves_the_clock_by_exactly_a_day() -> None:
    async def main() -> float:
        await asyncio.sleep(DAY_S)
        return now()

    started = time.monotonic()
    assert run(main()) == DAY_S
    assert time.monotonic() - started < 1.0


def test_time_stands_still_while_tasks_can_run() -> None:
    async def main() -> float:
        for _ in range(100):
            await asyncio.sleep(0)
        return now()

    assert run(main()) == 0.0


def test_the_clock_starts_where_it_is_told() -> None:
    loop = VirtualLoop(start=1000.0)
    try:
        loop.run_until_complete(asyncio.sleep(2.5))
        assert loop.time() == 1002.5
    finally:
        loop.close()


@given(st.lists(st.floats(min_value=0.0, max_value=1e6, allow_nan=False), min_size=1, max_size=20))
def test_sleepers_wake_in_the_order_of_their_delays_at_their_times(delays: list[float]) -> None:
    woke = run(sleep_until_done(delays))
    assert woke == sorted(woke)
    assert woke == pytest.approx(sorted(delays), abs=1e-8)


@pytest.mark.parametrize("start", [0.0, 1e6, 2.0**24, 1e9, 1e12])
def test_timers_are_due_however_far_the_clock_has_come(start: float) -> None:
    loop = VirtualLoop(start=start)
    try:
        for _ in range(50):
            loop.run_until_complete(asyncio.sleep(0.125))
        assert loop.time() == pytest.approx(start + 50 * 0.125, abs=50 * math.ulp(start))
    finally:
        loop.close()


def test_a_timeout_fires_at_its_virtual_moment() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return now()

    assert run(main()) == 30.0


def test_a_timeout_of_anyio_fires_at_its_virtual_moment() -> None:
    async def main() -> float:
        with anyio.move_on_after(30):
            await anyio.sleep_forever()
        return now()

    assert run(main()) == 30.0


def test_work_for_an_executor_runs_inline() -> None:
    async def main() -> tuple[int, float]:
        result = await asyncio.to_thread(sum, [1, 2, 3])
        return result, now()

    assert run(main()) == (6, 0.0)


def test_an_error_in_work_for_an_executor_reaches_whoever_awaits_it() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    run(main())


def test_a_program_that_waits_for_ever_is_a_deadlock() -> None:
    with pytest.raises(DeadlockError, match="every task is blocked and no timer is pending"):
        run(asyncio.Event().wait())


def test_a_deadlock_is_found_after_the_last_timer() -> None:
    async def main() -> None:
        await asyncio.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="at 5 s"):
        run(main())


def test_a_deadlock_names_each_task_and_where_it_waits() -> None:
    async def wait_for_turn(lock: asyncio.Lock) -> None:
        async with lock:
            pass

    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        await asyncio.create_task(wait_for_turn(lock), name="second in line")

    with pytest.raises(DeadlockError) as caught:
        run(main())
    second = next(line for line in str(caught.value).splitlines() if "second in line" in line)
    assert "wait_for_turn" in second
    assert "Lock.acquire at" in second


def test_a_deadlock_of_many_tasks_names_some_and_counts_the_others() -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.Event().wait() for _ in range(100)))

    with pytest.raises(DeadlockError, match="and 81 more"):
        run(main())


def test_cleanup_runs_after_a_deadlock() -> None:
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append("main")

    with pytest.raises(DeadlockError):
        run(main())
    assert cleaned == ["main"]


def test_two_runs_of_a_program_see_the_same_order_and_the_same_times() -> None:
    async def worker(number: int, queue: asyncio.Queue[int], seen: list[tuple[int, int, float]]) -> None:
        while True:
            item = await queue.get()
            await asyncio.sleep(0.1 * (item % 3 + 1))
            seen.append((number, item, now()))
            queue.task_done()

    async def main() -> list[tuple[int, int, float]]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        seen: list[tuple[int, int, float]] = []
        for item in range(20):
            queue.put_nowait(item)
        workers = [asyncio.create_task(worker(number, queue, seen)) for number in range(3)]
        await queue.join()
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return seen

    runs = [run(main()) for _ in range(3)]
    assert all(first == second for first, second in itertools.pairwise(runs))


def test_the_fixture_gives_a_loop_on_virtual_time(virtual_loop: VirtualLoop) -> None:
    virtual_loop.run_until_complete(asyncio.sleep(60))
    assert repr(virtual_loop) == "<VirtualLoop idle at 60 s>"


def test_the_repr_tells_state_and_time() -> None:
    async def main() -> str:
        return repr(asyncio.get_running_loop())

    assert run(main()) == "<VirtualLoop running at 0 s>"
    loop = VirtualLoop(start=1.5)
    loop.close()
    assert repr(loop) == "<VirtualLoop closed at 1.5 s>"
