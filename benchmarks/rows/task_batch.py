"""What does a call cost among many in flight?"""

from __future__ import annotations

from ..harness import Bench, row
from ..targets import TimesRay


@row("tasks/s", target=TimesRay(20), limit="bare_frames")
def task_batch_1000(bench: Bench) -> float:
    """How many tasks a second can one caller run with 1000 in flight?"""
    return bench.rate(lambda: batch(bench, 1000), per_call=1000)


@row("tasks/s", target=TimesRay(20), limit="bare_frames")
def task_batch_10000(bench: Bench) -> float:
    """How many tasks a second can one caller run with 10,000 in flight?"""
    return bench.rate(lambda: batch(bench, 10_000), per_call=10_000, warm_s=0, bursts=1)


def batch(bench: Bench, size: int) -> None:
    """Submit ``size`` tasks, then get all results."""
    task = bench.small_value()
    bench.runtime.get([task.remote() for _ in range(size)])
