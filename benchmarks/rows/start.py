"""How soon is a program going, and how soon is it over?"""

from __future__ import annotations

from ..harness import Bench, row
from ..targets import AtMost


@row("s", target=AtMost(0.06))
def import_package(bench: Bench) -> float:
    """How long does importing the package take in a fresh process?"""
    return bench.life.import_s


@row("s", target=AtMost(0.15))
def init_and_first_task(bench: Bench) -> float:
    """How long does it take from ``init`` to the result of the first task?"""
    return bench.life.init_s + bench.life.first_task_s


@row("s", after_shutdown=True)
def shutdown(bench: Bench) -> float:
    """How long does ``shutdown`` take at the end of the run?"""
    if bench.life.shutdown_s is None:
        raise RuntimeError("the runtime has not been shut down yet")
    return bench.life.shutdown_s
