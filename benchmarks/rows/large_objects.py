"""What do large values cost, NumPy's, which both runtimes read without a copy?"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Any

from ..harness import ASYNCRAY, Bench, row
from ..procfs import footprint
from ..targets import AtLeast, AtMost, TimesRay

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 100 * 1000 * 1000
GB = 1e9
MB = 1e6
REFS = 10_000
RETURNS = 3000
PUTS = 1_000_000


@row("GB/s", target=TimesRay(5), note="each after the one before was dropped")
def put_100mb(bench: Bench) -> float:
    """How fast are 100 MB put?"""
    value, put = large_value(), bench.runtime.put
    return bench.rate(lambda: put(value)) * LARGE / GB


@row("", on=(ASYNCRAY,), target=AtLeast(0.8), note="1: as fast as memcpy into shared pages that are warm")
def put_100mb_of_memcpy(bench: Bench) -> float:
    """How fast are 100 MB put, as a part of the bare copy in the same process?"""
    value, put = large_value(), bench.runtime.put
    memory = mmap.mmap(-1, LARGE)
    source = value.ctypes.data
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # In turns, so that neighbours burden both.
    pairs = [
        (bench.rate(lambda: put(value), bursts=1), bench.rate(lambda: ctypes.memmove(place, source, LARGE)))
        for _ in range(3)
    ]
    return max(ours / bare for ours, bare in pairs)


@row("gets/s", target=TimesRay(3))
def get_100mb(bench: Bench) -> float:
    """How often a second are 100 MB got?"""
    ref, get = bench.runtime.put(large_value()), bench.runtime.get
    return bench.rate(lambda: get(ref))


@row("tasks/s", target=TimesRay(8), note="the task looks at the last byte")
def task_100mb_ref(bench: Bench) -> float:
    """How many tasks a second run that take a reference to 100 MB, one at a time?"""
    task, get = bench.runtime.remote(lambda value: int(value[-1])), bench.runtime.get
    ref = bench.runtime.put(large_value())
    return bench.rate(lambda: get(task.remote(ref)))


@row("GB/s", target=TimesRay(3), note="the worker keeps the value that it returns")
def result_100mb(bench: Bench) -> float:
    """How fast do 100 MB come from a task, one at a time?"""
    kept: list[Any] = []

    def result() -> Any:
        import numpy as np

        if not kept:
            kept.append(np.ones(LARGE, "u1"))
        return kept[0]

    task, get = bench.runtime.remote(result), bench.runtime.get
    return bench.rate(lambda: get(task.remote()), warm_s=1) * LARGE / GB


@row("gets/s", target=TimesRay(10))
def get_object_of_10000_refs(bench: Bench) -> float:
    """How often a second is an object got that holds 10,000 references?"""
    put, get = bench.runtime.put, bench.runtime.get
    ref = put([put(number) for number in range(REFS)])
    return bench.rate(lambda: get(ref), warm_s=0)


@row("tasks/s", target=TimesRay(40), limit_s=90)
def task_10000_ref_arguments(bench: Bench) -> float:
    """How many tasks a second run that take 10,000 references as arguments, one at a time?"""
    task, get = bench.runtime.remote(lambda *values: len(values)), bench.runtime.get
    refs = [bench.runtime.put(number) for number in range(REFS)]
    return bench.rate(lambda: get(task.remote(*refs)), warm_s=0, bursts=1)


@row("tasks/s", target=TimesRay(10))
def task_3000_returns(bench: Bench) -> float:
    """How many tasks a second run that return 3000 values, one at a time?"""
    get: Callable[[Any], object] = bench.runtime.get
    task = bench.runtime.remote(lambda: list(range(RETURNS))).options(num_returns=RETURNS)
    return bench.rate(lambda: get(task.remote()))


@row(
    "MB", on=(ASYNCRAY,), target=AtMost(8), limit_s=120, note="after a million puts, every tenth in the store"
)
def store_after_puts(bench: Bench) -> float:
    """How much more memory do the processes take after many puts than after few?"""
    put, large = bench.runtime.put, bytes(128 * 1024)
    few = PUTS // 50

    def puts(count: int) -> None:
        for number in range(count):
            put(large if number % 10 == 0 else number)

    puts(few)
    before = footprint(os.getpid()).pss
    puts(PUTS - few)
    return max(0.0, footprint(os.getpid()).pss - before) / MB


def large_value() -> Any:
    """100 MB that differ."""
    import numpy as np

    return np.random.default_rng(1).integers(0, 256, LARGE, "u1")
