"""What does a started runtime weigh?"""

from __future__ import annotations

import os

from ..gate import Gate, stand
from ..harness import ASYNCRAY, Bench, row
from ..life import NUM_CPUS
from ..procfs import footprint, settled_footprint
from ..targets import AtMost

MB = 1e6
FURTHER_WORKERS = 8


@row("", note="of the program and all its descendants, once nothing starts any more")
def processes_after_init(_: Bench) -> float:
    """How many processes are there after ``init`` and a task?"""
    return settled_footprint(os.getpid()).processes


@row("MB")
def pss_after_init(_: Bench) -> float:
    """How much memory do these processes take together (proportional set size)?"""
    return settled_footprint(os.getpid()).pss / MB


@row("MB", on=(ASYNCRAY,), target=AtMost(8), note="Ray keeps no more idle workers than CPUs")
def pss_of_further_idle_worker(bench: Bench) -> float:
    """How much memory does one idle worker more take?"""
    meet(bench, NUM_CPUS)
    few = footprint(os.getpid())
    meet(bench, NUM_CPUS + FURTHER_WORKERS)
    many = footprint(os.getpid())
    further = many.processes - few.processes
    if further < 1:
        raise RuntimeError(f"{FURTHER_WORKERS} more tasks at once started no further worker")
    return (many.pss - few.pss) / further / MB


def meet(bench: Bench, count: int) -> None:
    """Have ``count`` tasks run at the same time, so that there are at least as many workers."""
    share = NUM_CPUS / count
    task = bench.runtime.remote(stand).options(num_cpus=share)
    with Gate() as gate:
        refs = [task.remote(gate.address) for _ in range(count)]
        gate.arrivals(count)
        gate.open()
        bench.runtime.get(refs)
