"""What tasks write appears at the driver: whole lines with the name and pid of their writer, nothing lost."""

from __future__ import annotations

import os
import re
import select
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.node.logs import LogHub, WorkerOutput, _end_of_piece
from asyncray.wire.messages import OUTPUT_MARK
from asyncray.worker import output
from tests.cluster import programs

if TYPE_CHECKING:
    from collections.abc import Callable

LINE = re.compile(r"\((?:(?P<name>.*) )?pid=(?P<pid>\d+)\) (?P<text>.*)")


def told(output: str) -> list[tuple[str, str]]:
    """The lines of workers as (name, text); fails when a line is anything else."""
    found = [LINE.fullmatch(line) for line in output.splitlines()]
    assert all(found), output
    return [(match["name"] or "", match["text"]) for match in found if match]


def written_when_still(pid: int) -> int:
    """Bytes that a process has written, once it writes no more."""
    written, looks = 0, 0
    while looks < 5:
        now = int(Path(f"/proc/{pid}/io").read_text().partition("wchar: ")[2].split()[0])
        looks = looks + 1 if now == written else 0
        written = now
        select.poll().poll(50)
    return written


def test_a_line_appears_with_the_name_and_pid_of_its_task(tmp_path: Path) -> None:
    out, err = programs.run(
        tmp_path,
        """
        import os, sys
        import asyncray as ray

        @ray.remote
        def speak():
            print("hello")
            return os.getpid()

        ray.init(num_cpus=1)
        sys.stderr.write(str(ray.get(speak.remote())))
        """,
    )
    assert out == f"(speak pid={err}) hello\n"


def test_each_stream_appears_on_the_same_stream_of_the_driver(tmp_path: Path) -> None:
    out, err = programs.run(
        tmp_path,
        """
        import sys
        import asyncray as ray

        @ray.remote
        def speak():
            print("one")
            print("two", file=sys.stderr)

        ray.get(speak.remote())
        """,
    )
    assert told(out) == [("speak", "one")]
    assert told(err) == [("speak", "two")]


def test_the_name_is_that_of_the_option(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        r"""
        import asyncray as ray

        @ray.remote
        def speak(): print("hello")

        ray.get(speak.options(name="my task").remote())
        ray.get(speak.options(name="two\nlines").remote())
        ray.get(speak.options(name="fünf").remote())
        """,
        environ={"PYTHONIOENCODING": "utf-8"},
    )
    assert told(out) == [("my task", "hello"), ("two lines", "hello"), ("fünf", "hello")]


def test_nested_tasks_write_under_their_own_names(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        @ray.remote
        def inner(): print("inside")

        @ray.remote
        def outer():
            print("before")
            ray.get(inner.remote())
            print("after")

        ray.init(num_cpus=1)
        ray.get(outer.remote())
        """,
    )
    assert sorted(told(out)) == [("inner", "inside"), ("outer", "after"), ("outer", "before")]


def test_many_tasks_of_different_names_in_one_worker_keep_their_lines_apart(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        def speak(i): print(i)

        ray.init(num_cpus=1)
        task = ray.remote(speak)
        ray.get([task.options(name=f"task-{i % 7}").remote(i) for i in range(300)])
        """,
    )
    assert told(out) == [(f"task-{i % 7}", str(i)) for i in range(300)]


def test_coroutines_that_share_a_worker_write_under_their_own_names(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncio
        import asyncray as ray

        async def speak(who):
            for i in range(3):
                print(who, i)
                await asyncio.sleep(0)

        ray.init(num_cpus=1)
        task = ray.remote(speak)
        ray.get([task.options(name=who).remote(who) for who in "abc"])
        """,
    )
    assert sorted(told(out)) == [(who, f"{who} {i}") for who in "abc" for i in range(3)]


def test_what_c_code_and_child_processes_write_appears_under_the_task_that_runs(tmp_path: Path) -> None:
    out, err = programs.run(
        tmp_path,
        """
        import os, subprocess, time
        import asyncray as ray

        @ray.remote
        def python(): print("from python")

        @ray.remote
        def child():
            subprocess.run(["sh", "-c", "echo from a child; echo its error >&2"], check=True)

        @ray.remote
        def descriptor(): os.write(1, b"from C\\n")

        ray.init(num_cpus=1)
        for task in (python, child, descriptor):
            ray.get(task.remote())
            # Names are told ahead at most once a millisecond.
            end = time.monotonic() + 0.005
            while time.monotonic() < end: pass
        """,
    )
    assert told(out) == [("python", "from python"), ("child", "from a child"), ("descriptor", "from C")]
    assert told(err) == [("child", "its error")]


def test_what_c_code_writes_never_appears_under_the_name_of_an_earlier_task(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import os
        import asyncray as ray

        @ray.remote
        def python(): print("python")

        @ray.remote
        def descriptor(): os.write(1, b"descriptor\\n")

        ray.init(num_cpus=1)
        ray.get([task.remote() for _ in range(100) for task in (python, descriptor)])
        """,
    )
    lines = told(out)
    assert len(lines) == 200
    assert all(name in (text, "") for name, text in lines)
    assert all(name for name, text in lines if text == "python")


def test_a_last_line_without_an_end_appears(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        @ray.remote
        def speak(text): print(text, end="")

        ray.init(num_cpus=1)
        ray.get(speak.remote("no end"))
        """,
    )
    assert told(out) == [("speak", "no end")]


@pytest.mark.parametrize(
    "write",
    [
        lambda stream: print("here", end="", file=stream),
        lambda stream: stream.writelines(["he", "re"]),
        lambda stream: stream.buffer.write(b"here"),
        lambda stream: stream.buffer.writelines([b"he", b"re"]),
    ],
)
def test_all_that_was_written_is_in_the_pipe_after_each_flush(
    write: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    pipe = output.MarkedPipe(theirs)
    stream = output.MarkedText(pipe)
    monkeypatch.setattr(output, "_streams", [(stream, pipe)])
    try:
        for _ in range(3):
            write(stream)
            output.flush()
            output.flush()
            assert os.read(ours, 100) == b"here"
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_beginning_of_a_line_is_not_given_to_the_task_that_comes_next(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        def speak(text, end): print(text, end=end)

        ray.init(num_cpus=1)
        task = ray.remote(speak)
        ray.get(task.options(name="first").remote("begun", ""))
        ray.get(task.options(name="second").remote("whole", "\\n"))
        """,
    )
    assert told(out) == [("first", "begun"), ("second", "whole")]


def test_what_is_written_just_before_the_end_of_the_session_appears(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        @ray.remote
        def speak():
            for i in range(2000): print("line", i)

        ray.init(num_cpus=1)
        ray.get(speak.remote())
        ray.shutdown()
        """,
    )
    assert told(out) == [("speak", f"line {i}") for i in range(2000)]


def test_what_a_task_wrote_before_its_worker_died_appears(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import os, signal
        import asyncray as ray

        @ray.remote(max_retries=0)
        def die():
            print("last words")
            os.kill(os.getpid(), signal.SIGKILL)

        ray.init(num_cpus=1)
        try:
            ray.get(die.remote())
        except ray.exceptions.WorkerCrashedError:
            pass
        """,
    )
    assert told(out) == [("die", "last words")]


def test_a_long_line_and_characters_of_several_bytes_arrive_unharmed(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        @ray.remote
        def speak(size): print("é€𝄞" * size)

        ray.init(num_cpus=1)
        ray.get(speak.remote(200_000))
        """,
        environ={"PYTHONIOENCODING": "utf-8"},
    )
    lines = told(out)
    assert "".join(text for _, text in lines) == "é€𝄞" * 200_000
    assert {name for name, _ in lines} == {"speak"}


def test_characters_that_the_driver_cannot_write_are_escaped(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import asyncray as ray

        @ray.remote
        def speak(): print("a€b")

        ray.get(speak.remote())
        """,
        environ={"PYTHONIOENCODING": "ascii"},
    )
    assert told(out) == [("speak", r"a\u20acb")]


def test_a_task_may_put_another_stream_in_the_place_of_stdout(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import contextlib, io, sys
        import asyncray as ray

        @ray.remote
        def speak():
            with contextlib.redirect_stdout(io.StringIO()) as kept:
                print("kept")
            print("shown")
            return kept.getvalue()

        @ray.remote
        def close(): sys.stdout.close()

        ray.init(num_cpus=1)
        assert ray.get(speak.remote()) == "kept\\n"
        ray.get(close.remote())
        ray.get(close.remote())
        """,
    )
    assert told(out) == [("speak", "shown")]


def test_log_to_driver_false_shows_nothing_and_slows_nobody(tmp_path: Path) -> None:
    out, err = programs.run(
        tmp_path,
        """
        import sys
        import asyncray as ray

        @ray.remote
        def speak():
            for i in range(300): print("x" * 10_000)
            print("x" * 10_000, file=sys.stderr)

        ray.init(num_cpus=1, log_to_driver=False)
        ray.get(speak.remote())
        """,
    )
    assert (out, err) == ("", "")


@pytest.mark.parametrize("closing", ["sys.stdout.close()", "sys.stdout = None"], ids=["closed", "none"])
def test_a_driver_without_stdout_goes_on(tmp_path: Path, closing: str) -> None:
    _, err = programs.run(
        tmp_path,
        f"""
        import os, sys
        import asyncray as ray

        @ray.remote
        def speak():
            for _ in range(300): print("x" * 10_000)
            return "done"

        ray.init(num_cpus=1)
        {closing}
        assert ray.get(speak.remote()) == "done"
        ray.shutdown()
        sys.stdout = sys.__stdout__ = None
        """,
    )
    assert err == ""


@pytest.mark.parametrize("streams", [(0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_a_driver_that_was_started_without_standard_streams_goes_on(
    tmp_path: Path, streams: tuple[int, ...]
) -> None:
    (tmp_path / "inner.py").write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import asyncray as ray

            @ray.remote
            def speak():
                print("hello")
                print("hello", file=sys.stderr)
                return 1

            ray.init(num_cpus=2)
            Path("sum").write_text(str(sum(ray.get([speak.remote() for _ in range(20)]))))
            """
        )
    )
    programs.run(
        tmp_path,
        f"""
        import os, sys
        for fd in {streams}: os.close(fd)
        os.execv(sys.executable, [sys.executable, "inner.py"])
        """,
    )
    assert (tmp_path / "sum").read_text() == "20"


def test_a_driver_whose_stdout_raises_goes_on(tmp_path: Path) -> None:
    _, err = programs.run(
        tmp_path,
        """
        import sys
        import asyncray as ray

        class Broken:
            def write(self, text): raise LookupError("broken")
            def flush(self): pass

        @ray.remote
        def speak(): print("hello")

        ray.init(num_cpus=1)
        sys.stdout = Broken()
        ray.get([speak.remote() for _ in range(3)])
        ray.shutdown()
        """,
    )
    assert "LookupError: broken" in err


@pytest.mark.slow
def test_a_worker_that_writes_faster_than_the_driver_reads_is_slowed_and_loses_nothing(
    tmp_path: Path,
) -> None:
    count, width = 500, 100_000
    program = programs.start(
        tmp_path,
        f"""
        import asyncray as ray

        @ray.remote
        def flood():
            for i in range({count}): print(f"{{i:04}}".ljust({width}, "x"))

        ray.init(num_cpus=1)
        ray.get(flood.remote())
        """,
    )
    assert program.stdout is not None
    first = program.stdout.readline()
    # Now the driver's pipe fills, and everybody behind it must come to a stand.
    written = written_when_still(int(LINE.fullmatch(first.rstrip())["pid"]))  # type: ignore[index]
    received = first + "".join(program.stdout.readlines())
    _, err = programs.end(program)
    assert told(received) == [("flood", f"{i:04}".ljust(width, "x")) for i in range(count)]
    assert err == ""
    # What waits for the driver, a pipe behind the driver and one before the node, and one line in each hand.
    assert 0 < written < 4 << 20


def test_a_driver_goes_on_when_whoever_reads_its_stdout_has_gone(tmp_path: Path) -> None:
    program = programs.start(
        tmp_path,
        """
        import sys
        import asyncray as ray

        @ray.remote
        def speak():
            for _ in range(300): print("x" * 10_000)
            return "done"

        ray.init(num_cpus=1)
        sys.stderr.write(ray.get(speak.remote()))
        ray.shutdown()
        """,
    )
    assert program.stdout is not None
    program.stdout.close()
    program.stdout = None
    _, err = programs.end(program)
    assert err == "done"


def test_processes_that_a_task_forks_write_under_its_name(tmp_path: Path) -> None:
    out, _ = programs.run(
        tmp_path,
        """
        import multiprocessing
        import asyncray as ray

        def speak(i): print("child", i)

        @ray.remote
        def parent():
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=speak, args=(i,)) for i in range(2)]
            for child in children: child.start()
            for child in children: child.join()

        ray.init(num_cpus=1)
        ray.get(parent.remote())
        """,
        environ={"PYTHONWARNINGS": "ignore"},
    )
    assert sorted(told(out)) == [("parent", "child 0"), ("parent", "child 1")]


TEXT = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(st.sampled_from(["", "f", "é"]), TEXT)), st.lists(st.integers(1, 40)))
def test_lines_and_names_are_the_same_however_the_bytes_arrive(
    lines: list[tuple[str, str]], sizes: list[int]
) -> None:
    written = b"".join(OUTPUT_MARK + name.encode() + b"\n" + text.encode() + b"\n" for name, text in lines)
    shown: list[tuple[str, str]] = []

    no_loop: Any = None

    def show(stream: str, prefix: str, text: str) -> int:
        shown.extend((prefix, line) for line in text.split("\n"))
        return 0

    output = WorkerOutput(LogHub(no_loop, show, 1), os.open(os.devnull, os.O_RDONLY), "stdout", 7)
    while written:
        size = sizes.pop() if sizes else len(written)
        output._take(output._rest + written[:size])
        written = written[size:]
    output.finish()
    assert shown == [(f"({name} pid=7)" if name else "(pid=7)", text) for name, text in lines]


@given(st.binary(max_size=600), st.sampled_from([b"", "é".encode()[:1], "𝄞".encode()[:3], OUTPUT_MARK[:5]]))
def test_a_long_line_is_never_cut_inside_a_character_or_a_mark(line: bytes, begun: bytes) -> None:
    line = b"x" * 1000 + line.replace(b"\0", b"") + b"x" + begun
    assert 0 < _end_of_piece(line) <= len(line) - len(begun)
