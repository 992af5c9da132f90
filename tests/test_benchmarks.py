"""The benchmarks' harness: its figures, targets, table, rows and processes; neither runtime is needed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import cli, machine, procfs, rayenv, rows, xoscarenv
from benchmarks.gate import Gate, stand
from benchmarks.harness import ASYNCRAY, BARE, RAY, Bench, Row, row
from benchmarks.place import Place
from benchmarks.report import HEADERS, align, as_json, cell, number, table
from benchmarks.rounds import run
from benchmarks.rows import ROWS, by_name
from benchmarks.stats import Results, Spread
from benchmarks.targets import AheadOf, AtMost, AtMostTimesRow, TimesRay
from benchmarks.watch import Watch

# ---- figures


def test_a_spread_has_the_median_and_the_ends_of_its_samples() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])

    assert (spread.low, spread.median, spread.high) == (1.0, 2.5, 10.0)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        Spread.of([])


def test_the_ratio_is_that_of_the_medians() -> None:
    assert results(asyncray=[10, 80, 30], ray=[2, 1, 9]).ratio("speed") == 15


def test_without_a_figure_of_ray_there_is_no_ratio() -> None:
    assert results(asyncray=[1]).ratio("speed") is None


def test_a_row_that_failed_in_a_later_round_has_no_figure() -> None:
    found = results(asyncray=[1, 2])
    found.fail("speed", ASYNCRAY, "it broke")

    assert found.spread("speed", ASYNCRAY) is None


def test_a_rate_counts_the_calls_of_each_burst_by_the_clock() -> None:
    bench, calls = ticking_bench(), count()

    rate = bench.rate(lambda: next(calls), per_call=100, warm_s=0, burst_s=5, bursts=3)

    # Each look at the clock takes a second and each call none: five calls a burst.
    assert rate == 100
    assert next(calls) == 15


def test_after_a_warm_up_the_clock_is_read_after_a_tenth_of_its_calls() -> None:
    bench, calls = ticking_bench(), count()

    rate = bench.rate(lambda: next(calls), warm_s=40, burst_s=2, bursts=1)

    assert rate == 5
    assert next(calls) == 40 + 2 * 5


def test_seconds_are_those_between_two_looks_at_the_clock() -> None:
    assert ticking_bench().seconds(lambda: None) == 1


def test_a_row_of_the_bare_machine_has_neither_runtime_nor_life() -> None:
    with pytest.raises(RuntimeError, match="no runtime"):
        Bench().runtime  # noqa: B018
    with pytest.raises(RuntimeError, match="no life"):
        Bench().life  # noqa: B018


# ---- targets


@pytest.mark.parametrize(("ours", "met"), [(16, True), (15.9, False)])
def test_a_multiple_of_ray_is_met_from_that_multiple_on(ours: float, met: bool) -> None:
    assert TimesRay(8).met("speed", results(asyncray=[ours], ray=[2])) is met


@pytest.mark.parametrize(("ours", "met"), [(0.15, True), (0.151, False)])
def test_a_ceiling_is_met_up_to_that_figure(ours: float, met: bool) -> None:
    assert AtMost(0.15).met("speed", results(asyncray=[ours])) is met


@pytest.mark.parametrize(("ours", "met"), [(6, True), (6.1, False)])
def test_a_multiple_of_another_row_is_met_up_to_that_multiple(ours: float, met: bool) -> None:
    found = results(asyncray=[ours])
    found.add("other", ASYNCRAY, 3)

    assert AtMostTimesRow(2, "other").met("speed", found) is met


@pytest.mark.parametrize("target", [TimesRay(8), AtMostTimesRow(2, "other")])
def test_a_target_whose_figures_are_missing_is_neither_met_nor_missed(
    target: TimesRay | AtMostTimesRow,
) -> None:
    assert target.met("speed", results(asyncray=[1])) is None


@pytest.mark.parametrize(("ours", "others", "met"), [(2, 1, True), (1, 1, False)])
def test_another_framework_is_to_be_left_behind(ours: float, others: float, *, met: bool) -> None:
    found = results(asyncray=[ours])
    found.add("other", "bare", others)

    assert AheadOf("other").met("speed", found) is met
    assert AheadOf("missing").met("speed", found) is None


def test_without_xoscar_its_row_is_left_out_and_the_reason_told(tmp_path: Path) -> None:
    assert "give --xoscar-python" in xoscarenv.find(None, tmp_path / "python")


def test_targets_describe_themselves() -> None:
    described = [target.describe() for target in (TimesRay(8), AtMost(0.15), AtMostTimesRow(2, "other"))]

    assert described == [">= 8x", "<= 0.15", "<= 2x other"]


# ---- the table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00001234, "0.000012"),
        (1e-9, "1.0e-09"),
        (0.01234, "0.0123"),
        (0.9999, "1"),
        (1.5, "1.5"),
        (2, "2"),
        (99.96, "100"),
        (-3.21987, "-3.22"),
        (12345, "12,300"),
        (1234567.8, "1,230,000"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_cell_shows_the_median_and_the_ends() -> None:
    assert cell(Spread.of([1, 2, 4])) == "2 (1-4)"
    assert cell(Spread.of([7])) == "7"


def test_columns_are_aligned_and_lines_end_without_blanks() -> None:
    assert align([("a", "12", ""), ("bcd", "3", "x")], {0, 2}) == ["a    12", "bcd   3  x"]


def test_the_table_has_one_line_for_a_row_with_its_verdict_and_the_bare_limit() -> None:
    found = results(asyncray=[100, 120, 110], ray=[10, 11, 12])
    found.add("wire", BARE, 500)

    head, rule, line = table(found, [SPEED]).splitlines()

    assert [title for title in HEADERS if title not in head] == []
    assert len(rule) == max(len(head), len(line))
    assert line.split("  ") == [text for text in line.split("  ") if text == text.rstrip()]
    assert line.split() == [
        "speed",
        "/s",
        "110",
        "(100-120)",
        "11",
        "(10-12)",
        "10x",
        "500",
        ">=",
        "8x",
        "yes",
    ]


def test_the_table_says_below_what_failed_and_what_is_to_be_known() -> None:
    found = results(ray=[1])
    found.fail("speed", ASYNCRAY, "TypeError: no")
    found.remarks.append("no figures for Dask")

    text = table(found, [replace(SPEED, note="downhill")])

    assert "failed" in text.splitlines()[2]
    assert text.endswith("\nspeed: downhill\nspeed failed on asyncray: TypeError: no\nno figures for Dask")


def test_json_has_each_sample_and_why_others_are_missing() -> None:
    facts = as_json(results(asyncray=[3, 1]), [SPEED], {"rounds": 2})

    assert facts["rounds"] == 2
    assert facts["rows"] == [
        {
            "name": "speed",
            "question": "How fast is it?",
            "unit": "/s",
            "figures": {
                "asyncray": {"median": 2, "low": 1, "high": 3, "samples": [3, 1]},
                "ray": {"failure": "not measured"},
            },
            "ratio": None,
            "target": ">= 8x",
            "met": None,
        }
    ]


# ---- the rows


def test_every_row_in_the_files_of_rows_is_listed_once() -> None:
    modules = [module for module in vars(rows).values() if isinstance(module, ModuleType)]
    written = {item.name for module in modules for item in vars(module).values() if isinstance(item, Row)}
    listed = [item.name for item in ROWS]
    files = {path.stem for path in Path(rows.__file__).parent.glob("*.py")} - {"__init__"}

    assert sorted(listed) == sorted(written)
    assert files <= {module.__name__.rpartition(".")[2] for module in modules}


@pytest.mark.parametrize("item", ROWS, ids=lambda item: item.name)
def test_a_row_states_one_question(item: Row) -> None:
    assert item.question.endswith("?")
    assert item.question.count("?") == 1
    assert item.question[0].isupper()


@pytest.mark.parametrize("item", ROWS, ids=lambda item: item.name)
def test_what_a_row_refers_to_exists(item: Row) -> None:
    if item.limit:
        assert by_name(item.limit).on == (BARE,)
    if isinstance(item.target, AtMostTimesRow):
        assert by_name(item.target.other).unit == item.unit
    if isinstance(item.target, TimesRay):
        assert set(item.on) == {ASYNCRAY, RAY}


def test_a_file_of_rows_says_its_question_and_is_short() -> None:
    for path in Path(rows.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 130, path.name
        assert path.name == "__init__.py" or text.partition("\n")[0].endswith('?"""'), path.name


def test_an_unknown_row_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(KeyError, match=r"'task_fast'; there are .*task_sync"):
        by_name("task_fast")


def test_ray_may_take_part_in_the_first_rounds_only() -> None:
    heavy = replace(SPEED, ray_rounds=1)

    assert [heavy.runs_on(RAY, round_number) for round_number in range(3)] == [True, False, False]
    assert heavy.runs_on(ASYNCRAY, 2)
    assert not heavy.runs_on(BARE, 0)


# ---- the command line


def test_rows_are_named_in_any_order_and_run_in_that_of_the_table() -> None:
    options = cli.parse(["--rows", "put_small, task_sync", "--rounds", "2", "--only", "asyncray"])

    assert [item.name for item in options.rows] == ["task_sync", "put_small"]
    assert (options.rounds, options.only) == (2, ASYNCRAY)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="no row is called 'x'"):
        cli.named_rows("x")
    with pytest.raises(ArgumentTypeError, match="0 is less than 1"):
        cli.positive("0")


def test_where_ray_cannot_be_installed_the_others_run_and_a_remark_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> str:
        raise rayenv.RayMissingError("no wheel for this Python")

    monkeypatch.setattr(rayenv, "ensure", fail)

    places, remarks = cli.find_places(None, None)

    assert [place.runtime for place in places] == [ASYNCRAY, BARE]
    assert remarks == ["no figures for Ray: no wheel for this Python"]


def test_an_environment_that_has_ray_is_used_as_it_is(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\necho {rayenv.RAY_VERSION}\n")
    python.chmod(0o755)

    assert rayenv.ensure(pytest.fail, tmp_path) == str(python)


def test_an_environment_that_cannot_be_made_is_told_with_its_error() -> None:
    script = "import sys; sys.exit('ERROR: no such thing\\nbuy a new pip')"

    with pytest.raises(rayenv.RayMissingError, match="exit code 1: ERROR: no such thing"):
        rayenv.run(sys.executable, "-c", script)


def test_the_machine_is_named() -> None:
    about = machine.describe()

    assert about["cores"] == len(os.sched_getaffinity(0))
    assert machine.model("processor\t: 0\nmodel name\t: A: B 9000\n") == "A: B 9000"
    assert machine.model("") != ""


# ---- processes


async def test_each_runtime_starts_answers_and_ends_in_each_round(stub: Place) -> None:
    said: list[str] = []

    found = await run(
        rows_on(stub, "import_package", "shutdown", "init_and_first_task"), [stub], 2, said.append
    )

    assert found.failures == {}
    assert {name: len(samples) for (name, _), samples in found.samples.items()} == {
        "import_package": 2,
        "init_and_first_task": 2,
        "shutdown": 2,
    }
    assert found.versions[stub.runtime].startswith("1.0 on Python 3.")
    assert [line.partition(":")[0] for line in said] == ["round 1/2 stub"] * 3 + ["round 2/2 stub"] * 3


async def test_a_row_that_raises_is_told_and_not_put_again(stub: Place) -> None:
    found = await run(rows_on(stub, "get_small", "shutdown"), [stub], 2, ignore)

    assert found.failures == {("get_small", "stub"): "LookupError: nothing to get"}
    assert len(found.samples["shutdown", "stub"]) == 2


async def test_a_process_that_is_lost_costs_its_row_alone(stub: Place) -> None:
    found = await run(rows_on(stub, "wait_1000", "import_package", "shutdown"), [stub], 1, ignore)

    assert list(found.failures) == [("wait_1000", "stub")]
    assert "exit code 7" in found.failures["wait_1000", "stub"]
    assert {name for name, _ in found.samples} == {"import_package", "shutdown"}


async def test_a_row_that_never_answers_is_given_up(stub: Place) -> None:
    endless = [replace(item, limit_s=0.5) for item in rows_on(stub, "as_completed_1000")]

    found = await run(endless, [stub], 1, ignore)

    assert found.failures["as_completed_1000", "stub"].startswith("no answer within 0.5 s")


async def test_a_runtime_that_cannot_start_fails_all_rows_at_once() -> None:
    nowhere = Place("no_such_runtime", sys.executable)

    found = await run(rows_on(nowhere, "put_small", "shutdown"), [nowhere], 3, ignore)

    assert len(found.failures) == 2
    assert all("No module named 'no_such_runtime'" in reason for reason in found.failures.values())


def test_tasks_stand_at_a_gate_until_it_opens() -> None:
    with Gate() as gate:
        tasks = [threading.Thread(target=stand, args=(gate.address,)) for _ in range(2)]
        for task in tasks:
            task.start()

        assert gate.arrivals(2) == [os.getpid()] * 2
        assert all(task.is_alive() for task in tasks)

        gate.open()
        for task in tasks:
            task.join()


def test_a_gate_says_how_many_did_not_arrive() -> None:
    with Gate() as gate, pytest.raises(TimeoutError, match="0 of 3 tasks were running"):
        gate.arrivals(3, timeout_s=0.01)


def test_a_footprint_covers_the_tree_of_processes() -> None:
    alone = procfs.footprint(os.getpid())
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        with_child = procfs.footprint(os.getpid())

        assert process.pid in procfs.tree(os.getpid())

    assert with_child.processes == alone.processes + 1
    assert with_child.pss > 0


async def test_a_watch_waits_for_the_ends_of_processes() -> None:
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
    with closing(Watch([process.pid])) as watch:
        assert await watch.survivors(0.01) == [process.pid]

        assert process.stdin is not None
        process.stdin.close()
        assert await watch.survivors(10) == []

    await process.wait()
    assert await Watch([process.pid]).survivors(0) == []


# ---- helpers


@row("/s", target=TimesRay(8), limit="wire")
def speed(_: Bench) -> float:
    """How fast is it?"""
    return 1.0


SPEED = speed
STUB = """
import os, threading, types
__version__ = "1.0"
class Ref: pass
class Function:
    def __init__(self, function): pass
    def remote(self, *arguments): return Ref()
remote = Function
def init(**options): pass
def shutdown(): pass
def put(value): return Ref()
def wait(refs): os._exit(7)
def get(refs):
    if isinstance(refs, list): return threading.Event().wait()
    if hasattr(get, "used"): raise LookupError("nothing to get")
    get.used = True
"""
"""A runtime whose first `get` works, whose `wait` kills the process and whose `get` of a list never ends."""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A package with the runtime's API, in the path of child processes."""
    package = tmp_path / "stub"
    package.mkdir()
    (package / "__init__.py").write_text(STUB)
    (package / "exceptions.py").touch()
    (package / "util.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return Place("stub", sys.executable)


def rows_on(place: Place, *names: str) -> list[Row]:
    """The rows called ``names``, to be put to the runtime at ``place``."""
    return [replace(by_name(name), on=(place.runtime,)) for name in names]


def results(**samples: list[float]) -> Results:
    """Results of the row ``speed``, by runtime."""
    found = Results()
    for runtime, values in samples.items():
        for value in values:
            found.add("speed", runtime, value)
    return found


def ticking_bench() -> Bench:
    """A bench whose clock goes on by a second at each look."""
    ticks = count()
    return Bench(clock=lambda: float(next(ticks)))


def ignore(_: str) -> None:
    """Nobody looks at the progress."""
