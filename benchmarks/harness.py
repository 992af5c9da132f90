"""Rows and how they are timed: what a row file needs, and nothing about processes or tables."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .life import Life
    from .runtime import RemoteFunction, Runtime
    from .targets import Target

ASYNCRAY = "asyncray"
RAY = "ray"
BARE = "bare"
"""The bare machine: Python on sockets, no runtime."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a row measures with, inside the process that holds the runtime.

    Args:
        runtime_or_none: The runtime, started; None for a row of the bare machine.
        life_or_none: The times of its start, and after the shutdown that of its end; None likewise.
        clock: Seconds from some point on.
    """

    runtime_or_none: Runtime | None = None
    life_or_none: Life | None = None
    clock: Callable[[], float] = time.perf_counter

    @property
    def runtime(self) -> Runtime:
        """The runtime. Raises: RuntimeError: when this is a row of the bare machine."""
        if self.runtime_or_none is None:
            raise RuntimeError("a row of the bare machine has no runtime")
        return self.runtime_or_none

    @property
    def life(self) -> Life:
        """The runtime's life. Raises: RuntimeError: when this is a row of the bare machine."""
        if self.life_or_none is None:
            raise RuntimeError("a row of the bare machine has no life")
        return self.life_or_none

    def small_value(self) -> RemoteFunction:
        """The task of most rows: no arguments, and ``b"ok"`` as its result."""
        return self.runtime.remote(lambda: b"ok")

    def rate(
        self,
        call: Callable[[], object],
        *,
        per_call: int = 1,
        warm_s: float = 0.15,
        burst_s: float = 0.25,
        bursts: int = 3,
    ) -> float:
        """How often ``call`` runs in a second, times ``per_call``: the median of timed bursts.

        As in Ray's microbenchmark, a warm-up finds how many calls fit between two looks at the clock; here
        the times are shorter.

        Args:
            call: What is measured.
            per_call: Units of work in one call.
            warm_s: Seconds of warm-up, at least one call; 0 for none.
            burst_s: Seconds of one burst, at least one call.
            bursts: How many bursts are timed.
        """
        warm_calls = self._count(call, warm_s, 1)[0] if warm_s else 0
        step = warm_calls // 10 + 1
        rates = []
        for _ in range(bursts):
            calls, seconds = self._count(call, burst_s, step)
            rates.append(per_call * calls / seconds)
        return statistics.median(rates)

    def seconds(self, call: Callable[[], object]) -> float:
        """How long one ``call`` takes, in seconds."""
        started = self.clock()
        call()
        return self.clock() - started

    def _count(self, call: Callable[[], object], at_least_s: float, step: int) -> tuple[int, float]:
        """Run ``call`` in groups of ``step`` until ``at_least_s`` seconds are over: (calls, seconds)."""
        started = self.clock()
        calls = 0
        while True:
            for _ in range(step):
                call()
            calls += step
            elapsed = self.clock() - started
            if elapsed >= at_least_s:
                return calls, elapsed


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: one question, put to each runtime in each round.

    Args:
        name: What it is called on the command line and in the table.
        question: The one question that it answers.
        unit: Of its figure, e.g. ``tasks/s``.
        measure: Answers the question once.
        on: The runtimes that it is put to.
        target: What asyncray is to reach, if anything.
        limit: The row of the bare machine that bounds this one, if any.
        ray_rounds: How many rounds Ray takes part in; None for all.
        after_shutdown: Whether it looks back after the shutdown.
        limit_s: Seconds after which a process that has not answered is killed.
        note: What a reader of the table has to know, shown below it.
    """

    name: str
    question: str
    unit: str
    measure: Callable[[Bench], float]
    on: tuple[str, ...] = (ASYNCRAY, RAY)
    target: Target | None = None
    limit: str | None = None
    ray_rounds: int | None = None
    after_shutdown: bool = False
    limit_s: float = 30.0
    note: str = ""

    def runs_on(self, runtime: str, round_number: int) -> bool:
        """Whether ``runtime`` answers this row in this round, counted from 0."""
        if runtime not in self.on:
            return False
        return runtime != RAY or self.ray_rounds is None or round_number < self.ray_rounds


def row(
    unit: str,
    *,
    on: tuple[str, ...] = (ASYNCRAY, RAY),
    target: Target | None = None,
    limit: str | None = None,
    ray_rounds: int | None = None,
    after_shutdown: bool = False,
    limit_s: float = 30.0,
    note: str = "",
) -> Callable[[Callable[[Bench], float]], Row]:
    """Make a function a row: its name is the row's, the first line of its docstring the question.

    Options are those of :class:`Row`.
    """

    def make(measure: Callable[[Bench], float]) -> Row:
        question = (measure.__doc__ or "").strip().partition("\n")[0]
        return Row(
            name=measure.__name__,
            question=question,
            unit=unit,
            measure=measure,
            on=on,
            target=target,
            limit=limit,
            ray_rounds=ray_rounds,
            after_shutdown=after_shutdown,
            limit_s=limit_s,
            note=note,
        )

    return make
