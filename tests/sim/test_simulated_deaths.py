"""Workers that are killed at chosen moments, and tasks that are cancelled, under virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import Event, SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.tasks import HOUR_S, double, idle, now, outer, work

if TYPE_CHECKING:
    from collections.abc import Callable


# --- killed workers -----------------------------------------------------------------------------------------


def kill_when(
    cluster: SimulatedCluster, what: str, *, times: int = 1, at: Callable[[str], int] | None = None
) -> None:
    """Kill who does *what*, or the process that *at* reads from it, just before it does."""
    left = times

    def watch(event: Event) -> None:
        nonlocal left
        if left and event.what.startswith(what):
            left -= 1
            cluster.kill_worker(event.pid if at is None else at(event.what))

    cluster.on_event(watch)


def receiver(what: str) -> int:
    return int(what.rpartition(" ")[2])


def test_a_task_whose_worker_dies_before_it_starts_runs_elsewhere() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        kill_when(cluster, "sends TASKS", at=receiver)
        assert await double.remote(1) == 2
        assert notes.noted["double"] == 1

    simulate(main)


def test_a_task_whose_worker_dies_runs_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(HOUR_S, "done")
        await asyncio.sleep(HOUR_S / 2)
        cluster.kill_worker()
        assert await ref == "done"
        assert now() == pytest.approx(1.5 * HOUR_S, abs=1.0)
        assert (notes.noted["work"], notes.noted["worked"]) == (2, 1)

    simulate(main)


def test_a_task_whose_worker_dies_between_result_and_report_runs_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        kill_when(cluster, "sends RESULTS")
        assert await double.remote(1) == 2
        assert notes.noted["double"] == 2

    simulate(main)


def test_a_result_that_was_sent_before_its_worker_died_counts() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        reported = asyncio.Event()
        cluster.on_event(lambda event: reported.set() if event.what.startswith("sends RESULTS") else None)
        ref = double.options(max_retries=0).remote(1)
        await reported.wait()
        cluster.kill_worker()
        assert await ref == 2
        assert notes.noted["double"] == 1

    for seed in range(10):
        notes.noted.clear()
        simulate(main, seed=seed, num_cpus=1)


def test_a_task_whose_worker_dies_while_it_waits_in_get_runs_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        kill_when(cluster, "sends BLOCKED")
        assert await outer.remote(10) == 2
        assert (notes.noted["outer"], notes.noted["outer goes on"]) == (2, 1)

    simulate(main)


def test_a_child_of_a_dead_task_ends_with_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = outer.options(max_retries=0).remote(HOUR_S)
        await asyncio.sleep(10)
        parent = next(e.pid for e in cluster.trace.events if e.what.startswith("sends BLOCKED"))
        cluster.kill_worker(parent)
        with pytest.raises(exceptions.WorkerCrashedError):
            await ref
        await asyncio.sleep(2 * HOUR_S)
        assert notes.noted["worked"] == 0

    simulate(main)


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_retries_end_and_the_error_says_how(max_retries: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        kill_when(cluster, "sends RESULTS", times=100)
        with pytest.raises(exceptions.WorkerCrashedError, match=r"'double'.*SIGKILL"):
            await double.options(max_retries=max_retries).remote(1)
        assert notes.noted["double"] == max_retries + 1

    simulate(main)


def test_coroutines_of_a_dead_worker_run_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [idle.remote(HOUR_S, number) for number in range(10)]
        await asyncio.sleep(HOUR_S / 2)
        cluster.kill_worker()
        assert await ray.aio.get(refs) == list(range(10))
        assert notes.noted["idle"] == 20

    simulate(main, num_cpus=1)


def test_what_was_queued_behind_a_killed_task_pays_nothing() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await ray.aio.get([work.remote(0.0001) for _ in range(50)])
        crasher = work.options(max_retries=0).remote(0.005, "long")
        refs = [work.options(max_retries=0).remote(0.0001, number) for number in range(30)]
        await asyncio.sleep(0.003)
        cluster.kill_worker()
        outcomes = await asyncio.gather(crasher, *refs, return_exceptions=True)
        crashed = [o for o in outcomes if isinstance(o, exceptions.WorkerCrashedError)]
        assert len(crashed) == 1
        assert sum(isinstance(outcome, int) for outcome in outcomes) >= 29

    for seed in range(5):
        simulate(main, seed=seed, num_cpus=1)


def test_nothing_of_a_killed_process_reaches_anybody() -> None:
    @ray.remote(max_retries=0)
    def stubborn() -> None:
        try:
            sleep(HOUR_S)
        finally:
            notes.note("clean-up")
            double.remote(1)
            ray.get(double.remote(2))
            notes.note("got")

    async def main(cluster: SimulatedCluster) -> None:
        ref = stubborn.remote()
        await asyncio.sleep(1)
        pid = cluster.kill_worker()
        with pytest.raises(exceptions.WorkerCrashedError):
            await ref
        events = [event.what for event in cluster.trace.events if event.pid == pid]
        assert events[-1] == "dies"
        assert notes.noted == {"clean-up": 1}

    simulate(main)


def test_there_must_be_a_worker_to_kill() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        pid = cluster.kill_worker(cluster.workers[0])
        with pytest.raises(LookupError, match=f"{pid} is alive"):
            cluster.kill_worker(pid)
        with pytest.raises(LookupError):
            cluster.kill_worker(cluster.driver.identity.pid)
        while cluster.workers:
            cluster.kill_worker()
        with pytest.raises(LookupError, match="no worker"):
            cluster.kill_worker()
        assert await double.remote(1) == 2

    simulate(main)


def test_the_death_of_the_node_ends_every_wait() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(HOUR_S)
        await asyncio.sleep(10)
        cluster.kill_node()
        cluster.kill_node()
        with pytest.raises(exceptions.LocalRayletDiedError):
            await ref
        with pytest.raises(exceptions.LocalRayletDiedError):
            double.remote(1)
        await asyncio.sleep(1)
        assert cluster.workers == []

    simulate(main)


# --- cancel -----------------------------------------------------------------------------------------------


def test_a_cancelled_task_that_waits_never_runs() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        first = work.remote(60)
        waiting = double.remote(1)
        ray.cancel(waiting)
        with pytest.raises(exceptions.TaskCancelledError):
            await waiting
        assert now() < 60
        await first
        await asyncio.sleep(60)
        assert notes.noted["double"] == 0

    simulate(main, num_cpus=1)


def test_a_cancelled_synchronous_task_is_interrupted() -> None:
    @ray.remote
    def tidy() -> None:
        try:
            sleep(HOUR_S)
        except KeyboardInterrupt:
            notes.note("interrupted")
            raise

    async def main(cluster: SimulatedCluster) -> None:
        ref = tidy.remote()
        await asyncio.sleep(60)
        ray.cancel(ref)
        with pytest.raises(exceptions.TaskCancelledError):
            await ref
        await asyncio.sleep(1)
        assert notes.noted == {"interrupted": 1}
        workers = cluster.workers
        assert await double.remote(1) == 2
        assert cluster.workers == workers

    simulate(main)


def test_a_cancelled_coroutine_is_cancelled() -> None:
    @ray.remote
    async def tidy() -> None:
        try:
            await asyncio.sleep(HOUR_S)
        finally:
            await asyncio.sleep(1)  # it may wait for its clean-up, within the grace
            notes.note("tidied")

    async def main(cluster: SimulatedCluster) -> None:
        ref = tidy.remote()
        await asyncio.sleep(60)
        ray.cancel(ref)
        with pytest.raises(exceptions.TaskCancelledError):
            await ref
        await asyncio.sleep(15)
        assert notes.noted == {"tidied": 1}

    simulate(main)


def test_children_are_cancelled_with_their_parent() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = outer.remote(HOUR_S)
        await asyncio.sleep(60)
        ray.cancel(ref)
        with pytest.raises(exceptions.TaskCancelledError):
            await ref
        await asyncio.sleep(2 * HOUR_S)
        assert (notes.noted["work"], notes.noted["worked"], notes.noted["outer goes on"]) == (1, 0, 0)

    simulate(main)


def test_force_kills_the_worker() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(HOUR_S)
        await asyncio.sleep(60)
        before = cluster.workers
        ray.cancel(ref, force=True)
        with pytest.raises(exceptions.TaskCancelledError):
            await ref
        await asyncio.sleep(60)
        assert len(set(before) - set(cluster.workers)) == 1
        assert notes.noted["work"] == 1

    simulate(main)
