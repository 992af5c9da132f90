"""Driver, node and workers in one process under virtual time: what they do, and that a seed replays it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import time
from typing import Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import DeadlockError, Event, SimulatedCluster, VirtualLoop, simulate, sleep
from tests.quality.source import ROOT
from tests.sim import notes
from tests.sim.tasks import HOUR_S, add, afib, double, fail, fib, idle, now, outer, work

# --- calls ------------------------------------------------------------------------------------------------


def test_a_call_is_awaited_like_anywhere_else() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert ray.is_initialized()
        assert await double.remote(21) == 42
        assert await ray.aio.get([double.remote(number) for number in range(100)]) == list(range(0, 200, 2))

    simulate(main)
    assert not ray.is_initialized()


def test_it_is_a_context_manager_on_any_virtual_loop() -> None:
    async def main() -> int:
        async with SimulatedCluster(seed=3, num_cpus=1) as cluster:
            assert cluster.driver.failure is None
            return await double.remote(1)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == 2
        assert runner.run(main()) == 2


def test_arguments_may_be_references_and_graphs_may_be_deep() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        total = double.remote(0)
        for number in range(50):
            left, right = double.remote(total), double.remote(number)
            total = add.remote(left, right)
            del left, right
        expected = 0
        for number in range(50):
            expected = 2 * expected + 2 * number
        assert await total == expected

    simulate(main)


def test_large_values_travel_too() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        block = bytes(300_000)
        identity = ray.remote(lambda value: value)
        assert await identity.remote(block) == block
        assert await identity.remote(identity.remote(block)) == block
        assert await identity.remote(ray.put(block)) == block

    simulate(main)


def test_several_returns_and_none() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs: Any = ray.remote(lambda: (1, 2, 3)).options(num_returns=3).remote()
        assert await ray.aio.get(refs) == [1, 2, 3]
        assert double.options(num_returns=0).remote(1) is None

    simulate(main)


@pytest.mark.parametrize("num_cpus", [1, 2, 4])
def test_tasks_wait_for_tasks_of_their_own(num_cpus: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert await fib.remote(8) == 21
        assert await afib.remote(8) == 21

    simulate(main, num_cpus=num_cpus)


def test_nesting_goes_forty_levels_deep_on_one_cpu() -> None:
    @ray.remote
    def descend(depth: int) -> int:
        return 0 if not depth else 1 + ray.get(descend.remote(depth - 1))

    async def main(cluster: SimulatedCluster) -> None:
        assert await descend.remote(40) == 40

    simulate(main, num_cpus=1)


def test_an_error_arrives_as_itself_and_its_dependents_carry_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        failed = fail.remote("no")
        with pytest.raises(ValueError, match="no") as caught:
            await failed
        assert isinstance(caught.value, exceptions.RayTaskError)
        with pytest.raises(ValueError, match="no"):
            await double.remote(failed)  # type: ignore[arg-type]
        assert notes.noted["double"] == 0

    simulate(main)


def test_errors_that_may_be_retried_are() -> None:
    @ray.remote(max_retries=5, retry_exceptions=[ValueError])
    def third_time_lucky() -> int:
        count = notes.note("try")
        if count < 3:
            raise ValueError(count)
        return count

    async def main(cluster: SimulatedCluster) -> None:
        assert await third_time_lucky.remote() == 3

    simulate(main)


def test_a_worker_ends_after_so_many_calls_of_a_function_and_another_takes_its_place() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        limited = ray.remote(max_calls=2)(lambda: ray.get_runtime_context().get_worker_id())
        ids = [await limited.remote() for _ in range(6)]
        assert ids[0] == ids[1] != ids[2] == ids[3] != ids[4] == ids[5]

    simulate(main, num_cpus=1)


def test_blocking_verbs_work_in_a_thread_of_the_driver() -> None:
    def script(count: int) -> list[int]:
        refs = [work.remote(count - number, number) for number in range(count)]
        assert sorted(ray.util.as_completed(refs)) == list(range(count))
        ready, rest = ray.wait(refs, num_returns=count)
        assert (len(ready), rest) == (count, [])
        assert ray.available_resources()["CPU"] > 0
        with pytest.raises(exceptions.GetTimeoutError):
            ray.get(work.remote(10), timeout=1)
        return ray.get(refs)

    async def main(cluster: SimulatedCluster) -> None:
        assert await cluster.run_blocking(script, 5) == list(range(5))
        with pytest.raises(ZeroDivisionError):
            await cluster.run_blocking(lambda: 1 / 0)

    simulate(main)


def test_a_blocking_get_on_the_loop_is_refused() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with pytest.raises(RuntimeError, match="use `await ref` instead"):
            ray.get(double.remote(1))

    simulate(main)


# --- time -------------------------------------------------------------------------------------------------


def test_hours_pass_in_milliseconds() -> None:
    async def main(cluster: SimulatedCluster) -> float:
        assert await ray.aio.get([work.remote(HOUR_S, number) for number in range(10)]) == list(range(10))
        return now()

    started = time.monotonic()
    # Ten hours of work on two CPUs.
    assert simulate(main) == pytest.approx(5 * HOUR_S, abs=1.0)
    assert time.monotonic() - started < 5.0


def test_coroutines_share_a_cpu() -> None:
    async def main(cluster: SimulatedCluster) -> float:
        await ray.aio.get([idle.remote(HOUR_S) for _ in range(100)])
        return now()

    assert simulate(main, num_cpus=1) == pytest.approx(HOUR_S, abs=1.0)


def test_a_task_that_waits_for_another_gives_its_cpu_to_it() -> None:
    async def main(cluster: SimulatedCluster) -> float:
        assert await ray.aio.get([outer.remote(HOUR_S) for _ in range(3)]) == [2, 2, 2]
        return now()

    assert simulate(main, num_cpus=1) == pytest.approx(3 * HOUR_S, abs=1.0)


def test_a_get_gives_up_at_its_time_and_the_task_goes_on() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(HOUR_S, "done")
        with pytest.raises(exceptions.GetTimeoutError):
            await ray.aio.get(ref, timeout=60)
        assert now() == pytest.approx(60, abs=0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await ref
        assert await ref == "done"
        assert now() == pytest.approx(HOUR_S, abs=0.1)
        assert notes.noted["work"] == 1

    simulate(main)


def test_a_get_inside_a_task_gives_up_at_its_time() -> None:
    @ray.remote
    def impatient() -> str:
        try:
            ray.get(work.remote(HOUR_S), timeout=60)
        except exceptions.GetTimeoutError:
            return "gave up"
        return "waited"

    async def main(cluster: SimulatedCluster) -> None:
        assert await impatient.remote() == "gave up"
        assert now() == pytest.approx(60, abs=0.1)

    simulate(main)


def test_wait_takes_what_is_done_in_time() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [idle.remote(10.0 * number, number) for number in range(1, 6)]
        ready, rest = await ray.aio.wait(refs, num_returns=2)
        assert (ready, rest) == (refs[:2], refs[2:])
        ready, rest = await ray.aio.wait(refs, num_returns=5, timeout=15)
        assert (ready, rest) == (refs[:3], refs[3:])
        assert now() == pytest.approx(35, abs=0.1)

    simulate(main)


def test_as_completed_yields_in_the_order_of_the_ends() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [idle.remote(seconds, seconds) for seconds in (30, 10, 20)]
        assert [await ref async for ref in ray.aio.as_completed(refs)] == [10, 20, 30]
        refs = [idle.remote(seconds, seconds) for seconds in (30, 10, 20)]
        assert [await first for first in asyncio.as_completed(refs)] == [10, 20, 30]

    simulate(main)


def test_short_tasks_behind_a_long_one_move_to_a_worker_that_idles() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        # Measured as short, so that many are sent to a worker at once.
        await ray.aio.get([work.remote(0.0001) for _ in range(50)])
        long = work.remote(HOUR_S)
        await ray.aio.get([work.remote(0.0001) for _ in range(100)])
        assert now() < 10
        await long

    simulate(main)


def test_idle_workers_retire() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await fib.remote(6)
        assert len(cluster.workers) > 2
        await asyncio.sleep(60)
        assert len(cluster.workers) == 2
        assert await fib.remote(6) == 8

    simulate(main)


# --- references -------------------------------------------------------------------------------------------


def test_a_reference_is_borrowed_through_three_processes_and_freed_after_the_last() -> None:
    @ray.remote
    def pass_on(boxed: list[ray.ObjectRef[str]], hops: int) -> str:
        if hops:
            return ray.get(pass_on.remote(boxed, hops - 1))
        sleep(60)
        return ray.get(boxed[0])

    async def main(cluster: SimulatedCluster) -> None:
        value = ray.put("value")
        result = pass_on.remote([value], 3)
        del value
        await asyncio.sleep(30)
        assert len(cluster.workers) >= 4
        assert len(cluster.driver.owner.objects.owned) == 2
        assert await result == "value"
        del result
        await asyncio.sleep(1)
        assert cluster.driver.owner.objects.owned == {}

    simulate(main, num_cpus=1)


def test_a_reference_returned_by_a_task_is_its_worker_s_to_keep() -> None:
    @ray.remote
    def make() -> list[ray.ObjectRef[str]]:
        return [ray.put("inner")]

    @ray.remote
    def unbox(boxed: list[ray.ObjectRef[str]]) -> str:
        return ray.get(boxed[0])

    async def main(cluster: SimulatedCluster) -> None:
        boxed = make.remote()
        assert await unbox.remote(boxed) == "inner"
        inner = (await boxed)[0]
        del boxed
        await asyncio.sleep(60)
        assert await inner == "inner"
        del inner
        await asyncio.sleep(1)
        assert cluster.driver.owner.objects.borrowed == {}
        assert cluster.driver.owner.objects.owned == {}

    simulate(main)


def test_what_a_dead_worker_owned_is_lost() -> None:
    @ray.remote
    def make() -> list[ray.ObjectRef[Any]]:
        return [work.remote(HOUR_S), ray.put("value")]

    async def main(cluster: SimulatedCluster) -> None:
        pending, value = await make.remote()
        maker = next(e.pid for e in cluster.trace.events if e.what.startswith("sends RESULTS"))
        cluster.kill_worker(maker)
        for ref in (pending, value):
            with pytest.raises(exceptions.OwnerDiedError):
                await ref

    simulate(main)


# --- what simulation is -------------------------------------------------------------------------------------


async def a_program(cluster: SimulatedCluster) -> list[Event]:
    """Something of everything, with two kills in it."""
    refs = [work.remote(0.01 * number, number) for number in range(10)]
    sums = [add.remote(left, right) for left, right in itertools.pairwise(refs)]
    nested, coroutines = fib.remote(6), [idle.remote(0.02, number) for number in range(5)]
    await asyncio.sleep(0.02)
    cluster.kill_worker()
    await ray.aio.wait(sums, num_returns=3)
    cluster.kill_worker()
    assert await ray.aio.get([nested, *sums, *coroutines]) == [8, *range(1, 19, 2), *range(5)]
    return cluster.trace.events


def test_a_seed_replays_a_run() -> None:
    for seed in range(3):
        first, second = simulate(a_program, seed=seed), simulate(a_program, seed=seed)
        assert len(first) > 100
        assert first == second


def test_another_seed_is_another_run() -> None:
    assert len({tuple(simulate(a_program, seed=seed)) for seed in range(5)}) == 5


def test_a_seed_replays_a_run_in_another_interpreter() -> None:
    script = (
        "import hashlib\n"
        "from asyncray.testing import simulate\n"
        "from tests.sim.test_simulated_cluster import a_program\n"
        "print(hashlib.sha256(repr(simulate(a_program, seed=5)).encode()).hexdigest())\n"
    )
    told = set()
    for hash_seed in "12":
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", script]
        told.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(told) == 1


def test_without_delays_too_a_seed_replays_a_run() -> None:
    first = simulate(a_program, seed=1, delay_s=0.0)
    assert first == simulate(a_program, seed=1, delay_s=0.0)


def test_a_wait_without_end_is_an_error_that_names_the_place() -> None:
    impossible = double.options(num_cpus=99)

    @ray.remote
    def stuck() -> int:
        return ray.get(impossible.remote(1))

    async def main(cluster: SimulatedCluster) -> None:
        await stuck.remote()

    with pytest.raises(DeadlockError, match=r"worker \d+ \(\d+\): .*stuck at .*test_simulated_cluster"):
        simulate(main)


def test_garbage_is_collected_again_afterwards() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert not gc.isenabled()

    assert gc.isenabled()
    simulate(main)
    assert gc.isenabled()


def test_it_needs_virtual_time() -> None:
    async def main() -> None:
        async with SimulatedCluster():
            """Never reached."""

    with pytest.raises(RuntimeError, match="virtual time"):
        asyncio.run(main())


def test_sleep_is_for_tasks_of_a_simulation() -> None:
    with pytest.raises(RuntimeError, match="in a simulation"):
        sleep(1)

    async def main(cluster: SimulatedCluster) -> None:
        with pytest.raises(RuntimeError, match="only synchronous tasks"):
            sleep(1)

    simulate(main)


def test_what_cannot_be_simulated_is_refused() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with pytest.raises(exceptions.RuntimeEnvSetupError, match="cannot be simulated"):
            await double.options(runtime_env={"env_vars": {"A": "b"}}).remote(1)

    simulate(main)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="lease_keep_s"):
        SimulatedCluster(lease_kep_s=1)


def test_an_error_that_nobody_hears_of_fails_the_simulation() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = double.remote(1)
        ref.add_done_callback(lambda done: 1 / 0)
        await ref

    with pytest.raises(ExceptionGroup) as caught:
        simulate(main)
    assert caught.group_contains(ZeroDivisionError)


def test_an_error_of_the_program_is_raised_as_it_is() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        work.remote(HOUR_S)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        simulate(main)
