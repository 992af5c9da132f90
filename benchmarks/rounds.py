"""A run: rounds in which each runtime starts, answers its rows once and ends before the next one starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from .place import END_LIMIT_S, START_LIMIT_S, Child, ChildGoneError, Place, child
from .report import number
from .stats import Results

if TYPE_CHECKING:
    from .harness import Row

Progress = Callable[[str], None]
GONE_LIMIT_S = 10.0
"""Seconds that the processes of a runtime have to be gone after its shutdown."""


async def run(rows: Sequence[Row], places: Sequence[Place], rounds: int, progress: Progress) -> Results:
    """Put ``rows`` to the runtimes at ``places``, ``rounds`` times, in alternating order.

    A row that failed on a runtime is not put to it again.
    """
    results = Results()
    for round_number in range(rounds):
        # Whatever drifts with time (heat, neighbours) burdens each runtime first as often as last.
        for place in places if round_number % 2 == 0 else reversed(places):
            visit = Visit(place, results, progress, f"round {round_number + 1}/{rounds} {place.runtime}:")
            await visit.answer([row for row in rows if visit.is_due(row, round_number)])
    return results


class Visit:
    """One runtime's turn in one round; ``label`` begins each line of progress."""

    def __init__(self, place: Place, results: Results, progress: Progress, label: str) -> None:
        self._place = place
        self._results = results
        self._progress = progress
        self._label = label
        self._greeted = False

    def is_due(self, row: Row, round_number: int) -> bool:
        """Whether this runtime answers ``row`` in this round."""
        failed = (row.name, self._place.runtime) in self._results.failures
        return row.runs_on(self._place.runtime, round_number) and not failed

    async def answer(self, rows: Sequence[Row]) -> None:
        """Have ``rows`` answered. A child that is lost costs its row; the others go to a new one."""
        running = [row for row in rows if not row.after_shutdown]
        ended = [row for row in rows if row.after_shutdown]
        while running or ended:
            try:
                async with child(self._place) as process:
                    await self._greet(process)
                    await self._ask_all(process, running)
                    await self._close(process, ended)
            except ChildGoneError as error:
                self._lose(running, ended, str(error))

    async def _greet(self, process: Child) -> None:
        """Learn which versions answer."""
        hello = await process.answer(START_LIMIT_S)
        version, python = hello["version"], hello["python"]
        self._results.versions[self._place.runtime] = f"{version} on Python {python}".strip()
        self._greeted = True

    async def _ask_all(self, process: Child, rows: list[Row]) -> None:
        """Ask for the rows, taking each off the list once it is answered."""
        while rows:
            row = rows[0]
            self._note(row, await process.ask(row.limit_s, do="row", name=row.name))
            rows.pop(0)

    async def _close(self, process: Child, ended: list[Row]) -> None:
        """Shut the runtime down, ask for the rows that look back on that, and wait for a quiet machine."""
        with closing(process.watch()) as watch:
            await process.ask(END_LIMIT_S, do="shutdown")
            await self._ask_all(process, ended)
            await process.end()
            if survivors := await watch.survivors(GONE_LIMIT_S):
                who = f"{len(survivors)} processes of {self._place.runtime}"
                self._results.remarks.append(f"{who} were alive {GONE_LIMIT_S:g} s after its end")

    def _note(self, row: Row, reply: dict[str, object]) -> None:
        """Note what the child said about ``row``."""
        if "error" in reply:
            self._fail(row, str(reply["error"]))
            return
        value = float(str(reply["value"]))
        self._results.add(row.name, self._place.runtime, value)
        self._progress(f"{self._label} {row.name} {number(value)} {row.unit}")

    def _lose(self, running: list[Row], ended: list[Row], reason: str) -> None:
        """Strike off the row that a child was lost in; all rows when it was lost at its start or end."""
        if running and self._greeted:
            self._fail(running.pop(0), reason)
            self._greeted = False
            return
        for row in running + ended:
            self._fail(row, reason)
        if not running and not ended:
            self._results.remarks.append(f"{self._place.runtime} was lost at its end: {reason}")
        running.clear()
        ended.clear()

    def _fail(self, row: Row, reason: str) -> None:
        """Note that ``row`` has no figure here, and why."""
        self._results.fail(row.name, self._place.runtime, reason)
        self._progress(f"{self._label} {row.name} FAILED: {reason}")
