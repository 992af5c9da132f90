"""How soon does cancelling a running task take effect?"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from ..gate import Gate, arrive, stand
from ..harness import ASYNCRAY, Bench, row
from ..life import NUM_CPUS
from ..targets import AtMost

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime import Ref

REPEAT = 5
MILLISECONDS = 1e3


@row("ms")
def cancel_known(bench: Bench) -> float:
    """How long after ``cancel`` of a running task does ``get`` raise?"""

    def measured(ref: Ref) -> float:
        started = time.perf_counter()
        bench.runtime.cancel(ref)
        expect_cancelled(bench, ref)
        return time.perf_counter() - started

    return median_over_running_tasks(bench, measured)


@row("ms")
def cancel_frees_cpu(bench: Bench) -> float:
    """How long after ``cancel`` of a running task has another task run on all CPUs?"""
    everything = bench.small_value().options(num_cpus=NUM_CPUS)

    def measured(ref: Ref) -> float:
        started = time.perf_counter()
        bench.runtime.cancel(ref)
        bench.runtime.get(everything.remote())
        taken = time.perf_counter() - started
        expect_cancelled(bench, ref)
        return taken

    return median_over_running_tasks(bench, measured)


@row("ms", target=AtMost(1))
def cancel_queued(bench: Bench) -> float:
    """How long does it take to cancel a task that waits for a CPU, until ``get`` raises?"""
    task, value = bench.runtime.remote(stand), bench.small_value()
    samples = []
    with Gate() as gate:
        running = [task.remote(gate.address) for _ in range(NUM_CPUS)]
        gate.arrivals(NUM_CPUS)
        for _ in range(REPEAT):
            ref = value.remote()
            started = time.perf_counter()
            bench.runtime.cancel(ref)
            expect_cancelled(bench, ref)
            samples.append(time.perf_counter() - started)
        gate.open()
        bench.runtime.get(running)
    return statistics.median(samples) * MILLISECONDS


@row("ms", on=(ASYNCRAY,), target=AtMost(5), note="Ray has no coroutine tasks")
def cancel_coroutine(bench: Bench) -> float:
    """How long after ``cancel`` has a running coroutine its CancelledError, and has ``get`` raised?"""

    async def run_on(here: str, cancelled: str) -> None:
        with arrive(here):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                arrive(cancelled).close()
                raise

    task, samples = bench.runtime.remote(run_on), []
    for _ in range(REPEAT):
        with Gate() as gate, Gate() as heard:
            ref = task.remote(gate.address, heard.address)
            gate.arrivals(1)
            started = time.perf_counter()
            bench.runtime.cancel(ref)
            expect_cancelled(bench, ref)
            heard.arrivals(1)
            samples.append(time.perf_counter() - started)
    return statistics.median(samples) * MILLISECONDS


def median_over_running_tasks(bench: Bench, measured: Callable[[Ref], float]) -> float:
    """The median, in milliseconds, of ``measured`` for tasks that are running."""

    def run_on(address: str) -> None:
        with arrive(address):
            while True:
                time.sleep(0.001)

    task, samples = bench.runtime.remote(run_on), []
    for _ in range(REPEAT):
        with Gate() as gate:
            ref = task.remote(gate.address)
            gate.arrivals(1)
            samples.append(measured(ref))
    return statistics.median(samples) * MILLISECONDS


def expect_cancelled(bench: Bench, ref: Ref) -> None:
    """Get ``ref``. Raises: RuntimeError: when that gives a value instead of the cancellation."""
    try:
        value = bench.runtime.get(ref)
    except bench.runtime.exceptions.TaskCancelledError:
        return
    raise RuntimeError(f"a cancelled task gave {value!r}")
