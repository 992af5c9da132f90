"""The command line: which rows, which runtimes, how many rounds; then the table."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine, rayenv, xoscarenv
from .harness import ASYNCRAY, BARE, RAY, Row
from .place import Place
from .report import as_json, table
from .rounds import run
from .rows import ROWS, by_name

if TYPE_CHECKING:
    from collections.abc import Sequence


#: Rows that need xoscar.
XOSCAR = ("xoscar_gather_1000",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print the table; the exit code is 1 when a row failed on asyncray, else 0."""
    options = parse(arguments)
    places, missing = find_places(options.only, options.ray_python)
    places = [replace(place, store_bytes=options.store_mib << 20) for place in places]
    rows = [row for row in options.rows if any(place.runtime in row.on for place in places)]
    if any(row.name in XOSCAR for row in rows) and (remark := xoscarenv.find(options.xoscar_python)):
        rows = [row for row in rows if row.name not in XOSCAR]
        missing = [*missing, remark]
        say(remark)
    about = machine.describe()
    started = time.perf_counter()
    results = asyncio.run(run(rows, places, options.rounds, say))
    results.remarks += missing
    took = time.perf_counter() - started

    print(f"{about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB, {about['kernel']}")
    for name, version in results.versions.items():
        print(f"{name} {version}")
    print(f"median (min-max) a row over {options.rounds} interleaved round(s), {took:.0f} s in all\n")
    print(table(results, rows))
    if options.json:
        facts = as_json(results, rows, {"machine": about, "rounds": options.rounds, "seconds": took})
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(any(runtime == ASYNCRAY for _, runtime in results.failures))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; an unknown row or a bad number ends the program with a message."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument(
        "--rows", type=named_rows, default=list(ROWS), metavar="A,B", help="these rows alone (default: all)"
    )
    parser.add_argument("--only", choices=(ASYNCRAY, RAY, BARE), help="this runtime alone (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--ray-python", metavar="PATH", help="interpreter with Ray (default: made in .venv-ray)"
    )
    parser.add_argument(
        "--store-mib",
        type=positive,
        default=0,
        metavar="N",
        help="size of both runtimes' object stores (default: what each takes by itself)",
    )
    parser.add_argument(
        "--xoscar-python", metavar="PATH", help="interpreter with xoscar (default: that of .venv-xoscar)"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def named_rows(text: str) -> list[Row]:
    """The rows with the names in ``text``, in the order of the table."""
    names = [name.strip() for name in text.split(",")]
    try:
        wanted = {by_name(name).name for name in names}
    except KeyError as error:
        raise argparse.ArgumentTypeError(str(error.args[0])) from None
    return [row for row in ROWS if row.name in wanted]


def find_places(only: str | None, ray_python: str | None) -> tuple[list[Place], list[str]]:
    """Where each wanted runtime runs, and a remark when Ray cannot be had."""
    places = [Place(name, sys.executable) for name in (ASYNCRAY, BARE) if only in (None, name)]
    if only not in (None, RAY):
        return places, []
    try:
        return [*places, Place(RAY, ray_python or rayenv.ensure(say))], []
    except rayenv.RayMissingError as error:
        remark = f"no figures for Ray: {error}"
        say(remark)
        return places, [remark]


def say(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)
