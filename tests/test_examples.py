"""Every example runs as a script and says what its docstring promises."""

import ast
import math
import os
import re
import runpy
import shutil
import struct
import subprocess
import sys
import sysconfig
import zlib
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
def test_the_query_tracker_hears_of_every_look_up() -> None:
    output = run("query_tracker", "20")
    assert re.match(r"20 look-ups of \d words\n", output)
    assert len(output.splitlines()) == 4


@pytest.mark.slow
def test_the_parameter_server_finds_the_weights_in_both_ways() -> None:
    found = re.findall(r"s for 150 gradients: ([-\d., ]+)$", run("parameter_server"), re.MULTILINE)
    assert len(found) == 2
    for weights in found:
        for weight, true in zip(map(float, weights.split(",")), [2.0, -1.0, 0.5], strict=True):
            assert math.isclose(weight, true, abs_tol=0.25)


@pytest.mark.slow
def test_everybody_in_the_chat_room_is_heard() -> None:
    assert run("chat_room", "2").count("heard 2 hellos in ActorHandle(Room)") == 2


@pytest.mark.slow
def test_each_web_session_is_a_light_actor() -> None:
    output = run("web_sessions", "600")
    assert "600 users saw their carts, 600 of them the right one" in output
    assert "2 processes hosted the sessions" in output
    assert "300 sessions are still there; sold: {'tea': 600, 'cups': 400, 'spoons': 200}" in output


@pytest.mark.slow
def test_the_demo_shows_progress_statistics_and_what_was_saved() -> None:
    output = run("demo", f"{sysconfig.get_path('stdlib')}/encodings")
    assert re.search(r"\[#{24}\] (\d+)/\1 tasks", output)
    for title in ("files", "lines", "words", "identifiers", "functions", "ran in parallel", "saved"):
        assert re.search(rf"^  {title}  +\S", output, re.MULTILINE), f"no line {title!r} in\n{output}"
    assert "same counts: True" in output


@pytest.mark.slow
def test_the_ensemble_judges_the_pages_of_a_web_server() -> None:
    output = run("ensemble")
    right = re.search(r"right about (\d+) pages: by_words (\d+), .* majority (\d+)", output)
    assert right, output
    pages, by_words, majority = map(int, right.groups())
    assert pages > 20
    assert pages / 2 < by_words <= pages
    assert pages / 2 < majority <= pages
    assert seconds(output, "together") > 0
    assert seconds(output, "one after another") > pages * 0.1


def png(width: int, rows: list[bytes], colours: int) -> bytes:
    """A PNG of 8 bits a channel; each row begins with the number of its filter."""
    header = struct.pack(">IIBBBBB", width, len(rows), 8, colours, 0, 0, 0)
    chunks = b"IHDR" + header, b"IDAT" + zlib.compress(b"".join(rows)), b"IEND"
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"".join([b"\x89PNG\r\n\x1a\n", *framed])


def pixels(data: bytes) -> tuple[int, int, bytes]:
    """Width, height, and the colours of a PNG as the example writes it: filter 0, one IDAT."""
    width, height = struct.unpack_from(">II", data, 16)
    (size,) = struct.unpack_from(">I", data, 33)
    rows = zlib.decompress(data[41 : 41 + size])
    return width, height, b"".join(rows[y * (3 * width + 1) + 1 :][: 3 * width] for y in range(height))


@pytest.mark.slow
def test_the_search_stops_what_does_badly() -> None:
    output = run("search", "10")
    for epochs, trials in ((1, 16), (2, 8), (4, 4), (8, 2)):
        scores = rf"( +[01]\.\d\d){{{trials}}}"
        assert re.search(rf"^after +{epochs} epochs +{trials} trials{scores}$", output, re.MULTILINE), output
    best = re.search(r"^best .*: (0\.\d+) after 10 epochs$", output, re.MULTILINE)
    assert best, output
    assert float(best[1]) > 0.6
    trained = re.search(r"^trained +(\d+) of 160 epochs; 16 trainers have stopped$", output, re.MULTILINE)
    assert trained, output
    # What was asked for, and at most one epoch more for each: `max_unread=1`.
    assert 8 * 1 + 4 * 2 + 2 * 4 + 8 + 10 <= int(trained[1]) <= 8 * 2 + 4 * 3 + 2 * 5 + 9 + 10


@pytest.mark.slow
def test_the_top_words_run_and_no_producer_runs_too_far_ahead() -> None:
    output = run("top_words", "60")
    for files in (1, 2, 4, 8, 16, 32):
        assert re.search(rf"^ +{files} files  \w+ \d+  ", output, re.MULTILINE), output
    ahead = re.search(r"^ahead +\[(\d+), (\d+)\] files", output, re.MULTILINE)
    assert ahead, output
    assert all(int(files) <= 8 for files in ahead.groups())
    # Each reader may have one in hand when the other has read enough.
    assert re.search(r"^read +6[0-2] of \d+ files", output, re.MULTILINE), output
    assert seconds(output, "waited") > 0


@pytest.mark.slow
def test_thumbnails_are_small_and_blurred_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    half = b"\xff\x00\x00" * 64 + b"\x00\x00\xff" * 64  # red on the left, blue on the right
    (tmp_path / "halves.png").write_bytes(png(128, [b"\0" + half] * 64, 2))
    # One grey of 10, by each filter: as it is, from the left, from above, from their mean, and as Paeth does.
    first, rest = b"\0" + b"\x0a" * 4, [b"\2" + bytes(4), b"\3\5" + bytes(3), b"\4" + bytes(4)]
    (tmp_path / "grey.png").write_bytes(png(4, [b"\1\x0a" + bytes(3), first, *rest], 0))
    (tmp_path / "broken.png").write_text("no picture")
    output = run("thumbnails", str(tmp_path))
    assert "128 x 64" in output
    assert re.search(r"s  broken.png: only PNG", output)
    target = re.search(r"^2 pictures in (\S+);", output, re.MULTILINE)
    assert target, output
    made = {path.name: pixels(path.read_bytes()) for path in Path(target[1]).iterdir()}
    shutil.rmtree(target[1])
    assert made["halves.small.png"] == (64, 32, (b"\xff\x00\x00" * 32 + b"\x00\x00\xff" * 32) * 32)
    width, height, blurred = made["halves.blurred.png"]
    assert (width, height, blurred[:3]) == (64, 32, b"\xff\x00\x00")
    assert blurred[3 * 31 : 3 * 33] == bytes([153, 0, 102, 102, 0, 153])
    assert made["grey.small.png"] == made["grey.blurred.png"] == (4, 5, b"\x0a" * 60)


@pytest.mark.slow
def test_thumbnails_look_for_pictures_where_no_folder_is_named() -> None:
    example = runpy.run_path(str(EXAMPLES / "thumbnails.py"), run_name="example")
    for path in example["find"]():
        assert path.suffix == ".png"
        assert path.is_file()


@pytest.mark.slow
def test_the_gateway_falls_back_at_its_deadline_and_the_late_work_stops() -> None:
    output = run("gateway", "30")
    hard = [line.split(" | ") for line in output.splitlines() if line.startswith("request 5 |")]
    assert any(what.startswith("fell back: it was") for *_, what in hard)
    answers = re.search(r"^answers +30, of which (\d+) fell back$", output, re.MULTILINE)
    assert answers, output
    assert int(answers[1]) >= 3
    models = re.search(r"^slow models +(\d+) began, (\d+) ended, (\d+) was stopped;", output, re.MULTILINE)
    assert models, output
    began, ended, stopped = map(int, models.groups())
    assert began == ended + stopped
    assert began <= 30


@pytest.mark.slow
def test_pi_is_found_within_the_error_that_was_asked_for() -> None:
    output = run("pi", "0.005")
    assert re.search(r"\[#{24}\] 100%", output)
    found = re.search(r"pi is ([\d.]+) ± ([\d.]+), and off by", output)
    assert found, output
    assert float(found[2]) <= 0.005
    assert abs(float(found[1]) - math.pi) < 3 * float(found[2])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_what_it_shows(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring
    assert f"python examples/{name}.py" in docstring
    assert len(source.splitlines()) <= 165
    assert f"`{name}.py`" in (EXAMPLES / "README.md").read_text()
