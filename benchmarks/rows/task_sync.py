"""What does a single call cost, from submitting it to having its result?"""

from __future__ import annotations

from ..harness import Bench, row
from ..targets import TimesRay


@row("tasks/s", target=TimesRay(8), limit="bare_ping_pong")
def task_sync(bench: Bench) -> float:
    """How many tasks a second can one caller run one after the other?"""
    task, get = bench.small_value(), bench.runtime.get
    return bench.rate(lambda: get(task.remote()))
