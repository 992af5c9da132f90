"""Every example runs as a script and says what its docstring promises."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SECONDS = 50


def run(name: str, *arguments: str) -> str:
    """Run an example from a folder that is not the repository's, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def seconds(output: str, way: str) -> float:
    """Return the seconds that the line of this *way* tells."""
    found = re.search(rf"^{way}\s+([\d.]+) s", output, re.MULTILINE)
    assert found, output
    return float(found[1])


@pytest.mark.slow
def test_the_database_answers_in_four_ways() -> None:
    output = run("database", "0.02")
    assert output.count("every word here waits longer than the last") == 2
    assert re.search(r"in_pairs .*every", output)
    assert "every>word here>waits longer>than the>last" in output
    assert seconds(output, "in_parallel") < seconds(output, "in_order")


@pytest.mark.slow
def test_as_available_is_quicker_than_in_order() -> None:
    output = run("as_available", "5")
    assert "handled [5, 4, 3, 2, 1]" in output
    assert seconds(output, "as_available") < seconds(output, "in_order")


@pytest.mark.slow
def test_the_straggler_is_left_behind_and_cancelled() -> None:
    output = run("straggler")
    assert "in time: [0, 1, 2, 4, 5]; late: 1" in output
    assert "the late one was cancelled; its worker does other work: 7" in output
    assert "in a coroutine: cancelled is True" in output


@pytest.mark.slow
def test_pipelined_sums_are_the_sums_and_come_sooner() -> None:
    output = run("pipelined_sums")
    assert output.count("sum of 1..8 = 36") == 2
    assert seconds(output, "pipelined") < seconds(output, "fetched")


@pytest.mark.slow
def test_quicksort_sorts() -> None:
    output = run("quicksort", "20000")
    assert "sums of squares: [5, 50, 149]" in output
    assert "correct is True" in output


@pytest.mark.slow
def test_tree_reduction_adds_up_to_the_same_either_way() -> None:
    assert run("tree_reduction", "1000").count("1000 sums, all {4950}") == 2


@pytest.mark.slow
def test_fibonacci_in_parallel_gives_the_same_numbers() -> None:
    output = run("fibonacci", "20")
    assert output.count("[6765, 4181, 2584, 1597]") == 2
    assert "the same numbers: True" in output


@pytest.mark.slow
def test_the_web_handler_answers_while_tasks_compute() -> None:
    pytest.importorskip("httpx")
    pytest.importorskip("starlette")
    output = run("web_handler", "10000")
    assert output.count('200 {"primes":1229}') == 4
    assert output.strip().endswith('504 {"error":"took too long"}')


@pytest.mark.slow
def test_the_progress_of_a_monte_carlo_is_watched_to_its_end() -> None:
    output = run("monte_carlo", "100000")
    assert re.search(r"^ 100% thrown; pi is about 3\.1\d$", output, re.MULTILINE)


@pytest.mark.slow
def test_everybody_in_the_chat_room_is_heard() -> None:
    assert run("chat_room", "2").count("heard 2 hellos in ActorHandle(Room)") == 2


@pytest.mark.slow
def test_the_demo_shows_progress_statistics_and_what_was_saved() -> None:
    output = run("demo")
    assert re.search(r"\[#{24}\] (\d+)/\1 tasks", output)
    for title in ("files", "lines", "words", "identifiers", "functions", "ran in parallel", "saved"):
        assert re.search(rf"^  {title}  +\S", output, re.MULTILINE), f"no line {title!r} in\n{output}"
    assert "same counts: True" in output


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_what_it_shows(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring
    assert f"python examples/{name}.py" in docstring
    assert len(source.splitlines()) <= (150 if name == "demo" else 60)
    assert f"`{name}.py`" in (EXAMPLES / "README.md").read_text()
