"""Does ``as_completed`` cost the same per ref however many there are?"""

from __future__ import annotations

from ..harness import ASYNCRAY, Bench, row
from ..targets import AtMostTimesRow

MICROSECONDS = 1e6


@row("us/ref")
def as_completed_1000(bench: Bench) -> float:
    """What does each of 1000 finished refs cost in ``as_completed``?"""
    return per_ref(bench, 1000, batches=5)


@row(
    "us/ref",
    on=(ASYNCRAY,),
    # Not 1: the processor's caches hold 1000 refs and not 100,000. Growing with the list it would be 100.
    target=AtMostTimesRow(2, "as_completed_1000"),
    note="not on Ray, where making as many refs takes longer than all else here",
)
def as_completed_100000(bench: Bench) -> float:
    """What does each of 100,000 finished refs cost in ``as_completed``?"""
    return per_ref(bench, 100_000, batches=1)


def per_ref(bench: Bench, size: int, *, batches: int) -> float:
    """Microseconds a ref, over ``batches`` lists of ``size`` refs, each gone through once."""
    task = bench.small_value()
    lists = [[task.remote() for _ in range(size)] for _ in range(batches)]
    for refs in lists:
        bench.runtime.get(refs)

    def run_through() -> None:
        for refs in lists:
            for _ in bench.runtime.util.as_completed(refs):
                pass

    return bench.seconds(run_through) / (size * batches) * MICROSECONDS
