"""What does it cost to take results as they come, one at a time, through ``wait``?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..harness import Bench, row
from ..targets import AtMost, TimesRay

if TYPE_CHECKING:
    from ..runtime import Ref

MANY = 10_000


@row("refs/s", target=TimesRay(12), limit="bare_frames")
def wait_1000(bench: Bench) -> float:
    """How many tasks a second run when 1000 are submitted and drained one by one through ``wait``?"""
    task = bench.small_value()
    return bench.rate(lambda: drain(bench, [task.remote() for _ in range(1000)]), per_call=1000)


@row("s", target=AtMost(1), ray_rounds=1, limit_s=60, note="on Ray in one round only, it takes long there")
def wait_drain_10000_finished(bench: Bench) -> float:
    """How long does it take to drain 10,000 finished refs one at a time through ``wait``?"""
    refs = submit(bench)
    bench.runtime.get(refs)
    return bench.seconds(lambda: drain(bench, refs))


@row(
    "s",
    target=AtMost(1),
    ray_rounds=1,
    limit_s=60,
    note="submitting and draining, less submitting and getting all; on Ray in one round only",
)
def wait_drain_10000_finishing(bench: Bench) -> float:
    """How much longer than their work do 10,000 tasks take when ``wait`` drains them one at a time?"""
    work = bench.seconds(lambda: bench.runtime.get(submit(bench)))
    return bench.seconds(lambda: drain(bench, submit(bench))) - work


def submit(bench: Bench) -> list[Ref]:
    """Submit many tasks."""
    task = bench.small_value()
    return [task.remote() for _ in range(MANY)]


def drain(bench: Bench, refs: list[Ref]) -> None:
    """Take one finished ref at a time until none is left."""
    wait = bench.runtime.wait
    while refs:
        _, refs = wait(refs)
