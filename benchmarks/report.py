"""The results as an aligned table for people and as JSON for programs; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import ASYNCRAY, BARE, RAY, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stats import Results, Spread

HEADERS = (
    "row",
    "unit",
    "asyncray (min-max)",
    "ray (min-max)",
    "asyncray/ray",
    "bare limit",
    "target",
    "met",
)
TEXT_COLUMNS = {0, 1, 6, 7}
"""Columns that are aligned to the left; figures go to the right."""
VERDICTS = {True: "yes", False: "NO", None: "?"}
"""How a target reads in the table; "?" when a figure that it needs is missing."""


def number(value: float) -> str:
    """``value`` with three significant digits, thousands grouped: 0.0123, 4.56, 123, 12,300."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    text = f"{rounded:.6f}".rstrip("0").rstrip(".") if abs(rounded) < 1 else f"{rounded:.3g}"
    return text if float(text) else f"{rounded:.1e}"


def cell(spread: Spread) -> str:
    """``median (min-max)``; the median alone when there is one sample."""
    if len(spread.samples) == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)}-{number(spread.high)})"


def figure(results: Results, row: Row, runtime: str) -> str:
    """The cell of ``row`` under ``runtime``."""
    if (row.name, runtime) in results.failures:
        return "failed"
    spread = results.spread(row.name, runtime)
    return "-" if spread is None else cell(spread)


def limit(results: Results, row: Row) -> str:
    """What the bare machine does: the row's own figure, or that of the row which bounds it."""
    if BARE in row.on:
        return figure(results, row, BARE)
    median = results.median(row.limit, BARE) if row.limit else None
    return "" if median is None else number(median)


def line(results: Results, row: Row) -> tuple[str, ...]:
    """The cells of one row of the table."""
    ratio = results.ratio(row.name)
    return (
        row.name,
        row.unit,
        figure(results, row, ASYNCRAY),
        figure(results, row, RAY),
        "" if ratio is None else f"{number(ratio)}x",
        limit(results, row),
        row.target.describe() if row.target else "",
        VERDICTS[row.target.met(row.name, results)] if row.target else "",
    )


def align(lines: Sequence[Sequence[str]], left: set[int]) -> list[str]:
    """Pad the cells of each column to one width; columns in ``left`` to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if index in left else text.rjust(width)
            for index, (text, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    ]


def table(results: Results, rows: Sequence[Row]) -> str:
    """The whole table: a header, a rule, one row a line, and below it what a reader has to know."""
    head, *body = align([HEADERS, *(line(results, row) for row in rows)], TEXT_COLUMNS)
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    notes += [f"{name} failed on {runtime}: {reason}" for (name, runtime), reason in results.failures.items()]
    notes += results.remarks
    rule = "-" * max(map(len, [head, *body]))
    return "\n".join([head, rule, *body, *([""] if notes else []), *notes])


def as_json(results: Results, rows: Sequence[Row], about: dict[str, object]) -> dict[str, object]:
    """The same as a JSON object, with each round's samples; ``about`` says where and how it was measured."""
    return {
        **about,
        "versions": results.versions,
        "remarks": results.remarks,
        "rows": [
            {
                "name": row.name,
                "question": row.question,
                "unit": row.unit,
                "figures": {runtime: facts(results, row, runtime) for runtime in row.on},
                "ratio": results.ratio(row.name),
                "target": row.target.describe() if row.target else None,
                "met": row.target.met(row.name, results) if row.target else None,
            }
            for row in rows
        ],
    }


def facts(results: Results, row: Row, runtime: str) -> dict[str, object]:
    """The figures of ``row`` on ``runtime``, or why there are none."""
    spread = results.spread(row.name, runtime)
    if spread is None:
        return {"failure": results.failures.get((row.name, runtime), "not measured")}
    return {"median": spread.median, "low": spread.low, "high": spread.high, "samples": list(spread.samples)}
