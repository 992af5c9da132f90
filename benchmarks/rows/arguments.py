"""What do arguments cost?"""

from __future__ import annotations

from ..harness import Bench, row
from ..targets import TimesRay

LARGE = 160 * 1000


@row("tasks/s")
def task_ref_argument_1000(bench: Bench) -> float:
    """How many tasks a second run that take a reference as their argument, 1000 in flight?"""
    task, get = bench.runtime.remote(lambda _: b"ok"), bench.runtime.get
    ref = bench.runtime.put(0)
    return bench.rate(lambda: get([task.remote(ref) for _ in range(1000)]), per_call=1000, bursts=2)


@row("tasks/s", target=TimesRay(10))
def task_160kb_argument_100(bench: Bench) -> float:
    """How many tasks a second run that take 160 KB by value, 100 in flight?"""
    task, get = bench.runtime.remote(lambda _: b"ok"), bench.runtime.get
    value = bytes(LARGE)
    return bench.rate(lambda: get([task.remote(value) for _ in range(100)]), per_call=100)


@row("tasks/s")
def task_chain_200(bench: Bench) -> float:
    """How many tasks a second run when each takes the result of the one before, 200 in a chain?"""
    task, get = bench.runtime.remote(lambda value: value), bench.runtime.get

    def chain() -> None:
        ref = task.remote(0)
        for _ in range(199):
            ref = task.remote(ref)
        get(ref)

    return bench.rate(chain, per_call=200)
