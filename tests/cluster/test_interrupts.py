"""Ctrl-C: at each line of the framework, in a terminal, once and twice, at the start and at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import asyncray as ray
from asyncray.exceptions import TaskCancelledError
from tests.cluster import cancelled_at_each_line as traced
from tests.cluster.beacons import PATIENCE_S
from tests.cluster.terminal import Terminal

ROOT = Path(__file__).parents[2]

#: Whether each line is tried, which takes minutes, or some that are spread over all.
EVERY_LINE = bool(os.environ.get("ASYNCRAY_TEST_EVERY_LINE"))

#: What is interrupted in one session, and every how many lines.
SCENES = [
    ("submit", 4),
    ("submit_new_function", 6),
    ("put", 2),
    ("get", 5),
    ("wait", 5),
    ("cancel", 4),
    ("stream", 12),
    ("map_all", 8),
    ("explain", 8),
    ("ask", 4),
]


def try_lines(scene: str, every: int) -> dict[str, object]:
    """Interrupt each *every*-th line of a scene, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.cluster.at_each_line", scene, str(1 if EVERY_LINE else every)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.returncode == 0
    found: dict[str, object] = json.loads(run.stdout)
    return found


# ---- at each line ----


@pytest.mark.parametrize(("scene", "every"), SCENES)
def test_an_interrupt_at_any_line_leaves_the_session_whole(scene: str, every: int) -> None:
    found = try_lines(scene, every)
    assert found["failures"] == []
    assert found["passed"] >= 40  # type: ignore[operator]


@pytest.mark.timeout(300 if EVERY_LINE else 60)
@pytest.mark.parametrize(("scene", "every"), [("init", 23), ("shutdown", 8)])
def test_an_interrupt_at_any_line_of_the_start_or_the_end_leaves_nothing_behind(
    scene: str, every: int
) -> None:
    found = try_lines(scene, every)
    assert found["failures"] == []
    assert found["passed"] >= 8  # type: ignore[operator]


def test_a_cancel_at_any_line_of_a_worker_hits_its_own_task_or_nothing() -> None:
    hook = {"worker_process_setup_hook": traced.cancel_at_each_line}
    with ray.init(num_cpus=1, runtime_env=hook):
        values: list[object] = [1, "text", [2, 3], bytearray(200_000), {"a": ray.put(4)}]
        hit, pids = [-1], set()
        while hit[-1] != hit[0] or len(hit) < 5:
            argument = ray.put("argument")
            for value in values:
                ref = traced.work.remote(value, argument)
                error = ref.exception(PATIENCE_S)
                if error is None:
                    returned, pid, lines = ray.get(ref)
                    assert type(returned) is type(value)
                    pids.add(pid)
                    hit = [*hit, lines][-5:]
                else:
                    assert type(error) is TaskCancelledError
        assert len(pids) == 1, "no worker was lost"
        assert hit[-1] > 200


# ---- in a terminal ----

ONE_TRACEBACK = "Traceback (most recent call last):"


def assert_quiet(errors: str) -> None:
    """Nothing but the traceback of one KeyboardInterrupt."""
    assert errors.count(ONE_TRACEBACK) == 1, errors
    assert errors.startswith(ONE_TRACEBACK), errors
    assert errors.endswith("\nKeyboardInterrupt\n"), errors


WAITS = """\
    waits = [
        lambda: ray.get(ref),
        lambda: ray.get([ray.put(1), ref]),
        lambda: ray.get(ref, timeout=1000),
        lambda: ray.wait([ref]),
        lambda: ref.result(),
        lambda: ref.exception(),
        lambda: list(ray.util.as_completed([ref])),
        lambda: list(ray.util.map_unordered(tasks.after, [gate])),
        lambda: ref.future().result(),
        lambda: asyncio.run(aio.get(ref)),
        lambda: next(ray.remote(endless).remote(gate)),
        lambda: list(ray.util.map(tasks.after, [gate])),
        lambda: time.sleep(1000),
    ]
"""


def test_ctrl_c_interrupts_every_kind_of_wait_at_once(tmp_path: Path) -> None:
    source = f"""\
    ray.init(num_cpus=2)
    gate = Gate(Path(path).parent).path
    ref = tasks.after.remote(gate)

    def endless(gate):
        yield ray.get(tasks.after.remote(gate))

{WAITS}
    for wait in waits:
        try:
            tell("waits")
            wait()
        except KeyboardInterrupt:
            tell("interrupted")
    tell(ray.get(tasks.plain.remote("works")))
    """
    with Terminal(tmp_path, source) as program:
        for _ in range(WAITS.count("lambda")):
            assert program.next() == "waits"
            program.type_ctrl_c()
            assert program.next() == "interrupted"
        assert program.next() == "works"
        assert program.end() == 0
        assert program.errors() == ""


def test_ctrl_c_ends_a_program_with_all_that_it_had(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=2)
    refs = [task.remote(path) for task in (tasks.sleep, tasks.linger, tasks.sleep)]
    ray.get(refs)
    """
    with Terminal(tmp_path, source) as program:
        program.next(), program.next()
        program.type_ctrl_c()
        assert program.end() == -signal.SIGINT
        assert_quiet(program.errors())


def test_ctrl_c_is_the_drivers_alone_and_its_work_goes_on(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=2)
    gate = path + "-gate"
    os.mkfifo(gate)
    fd = os.open(gate, os.O_RDWR)
    ref = tasks.hold.remote(path, gate, "the value")
    try:
        ray.get(ref)
    except KeyboardInterrupt:
        tell("interrupted")
    os.write(fd, b".")
    tell(ray.get(ref))
    tell(sum(ray.get([tasks.plain.remote(i) for i in range(100)])))
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        assert [program.next() for _ in range(3)] == ["interrupted", "the value", "4950"]
        assert program.end() == 0
        assert program.errors() == ""


def test_a_second_ctrl_c_ends_a_program_that_has_caught_the_first(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=2)
    ref = tasks.sleep.remote(path)
    try:
        ray.get(ref)
    except KeyboardInterrupt:
        tell("interrupted")
    ray.get(ref)
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        assert program.next() == "interrupted"
        program.type_ctrl_c()
        assert program.end() == -signal.SIGINT
        assert_quiet(program.errors())


def test_ctrl_c_interrupts_a_start_that_takes_long(tmp_path: Path) -> None:
    # The node's interpreter never comes to its first line.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, threading\n"
        "if 'asyncray-node' in sys.orig_argv:\n"
        "    from tests.cluster.beacons import light\n"
        "    light(os.environ['BEACON'], 'the node hangs')\n"
        "    threading.Event().wait()\n"
    )
    source = """\
    os.environ["BEACON"] = path
    os.environ["PYTHONPATH"] = os.path.dirname(path) + os.pathsep + os.environ["PYTHONPATH"]
    sys.path.insert(0, os.path.dirname(path))
    try:
        ray.init(num_cpus=1)
    finally:
        tell(ray.is_initialized())
    """
    with Terminal(tmp_path, source) as program:
        assert program.next() == "the node hangs"
        program.type_ctrl_c()
        assert program.next() == "False"
        assert program.end() == -signal.SIGINT
        assert_quiet(program.errors())


def test_ctrl_c_interrupts_a_shutdown_that_takes_long(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=1)
    ref = tasks.sleep.remote(path)
    os.kill(node_pid(), signal.SIGSTOP)
    tell_when_the_end_has_begun()
    try:
        ray.shutdown()
    except KeyboardInterrupt:
        tell("interrupted")
    tell(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    ray.init(num_cpus=1)
    tell(ray.get(tasks.plain.remote("works again")))
    """
    with Terminal(tmp_path, source) as program:
        assert program.next() == "the end has begun"
        program.type_ctrl_c()
        assert [program.next() for _ in range(3)] == ["interrupted", "True", "works again"]
        assert program.end() == 0
        assert program.errors() == ""


def test_a_second_ctrl_c_ends_a_program_whose_end_takes_long(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=1)
    ref = tasks.sleep.remote(path)
    try:
        ray.get(ref)
    finally:
        os.kill(node_pid(), signal.SIGSTOP)
        tell_when_the_end_has_begun()
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        assert program.next() == "the end has begun"
        program.type_ctrl_c()
        assert program.end() == -signal.SIGINT
        assert_quiet(program.errors())


def test_ctrl_c_gets_out_of_an_end_that_a_stuck_terminal_holds_up(tmp_path: Path) -> None:
    source = """\
    @ray.remote
    def write() -> None:
        for _ in range(3000):
            print("x" * 100)

    out, stuck = os.pipe()
    os.dup2(stuck, 1)
    ray.init(num_cpus=1)
    ref = write.remote()
    ray.get(ref)
    tell_when_the_end_has_begun()
    try:
        ray.shutdown()
    except KeyboardInterrupt:
        tell("interrupted")
    tell(ray.is_initialized())
    while len(os.read(out, 65536)) == 65536:
        pass
    """
    with Terminal(tmp_path, source) as program:
        assert program.next() == "the end has begun"
        program.type_ctrl_c()
        assert [program.next(), program.next()] == ["interrupted", "False"]
        assert program.end() == 0
        assert program.errors() == ""


# ---- with a loop ----


def test_ctrl_c_cancels_a_program_on_a_loop_which_ends_its_session(tmp_path: Path) -> None:
    source = """\
    async def main():
        async with aio.session(num_cpus=2):
            try:
                await tasks.sleep.remote(path)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                tell("cancelled")
                raise
            finally:
                tell(await tasks.plain.remote("still works"))

    asyncio.run(main())
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        assert [program.next(), program.next()] == ["cancelled", "still works"]
        assert program.end() == -signal.SIGINT
        assert program.errors().endswith("\nKeyboardInterrupt\n")
        assert "asyncray-" not in program.errors()


def test_a_second_ctrl_c_ends_a_program_on_a_loop_whose_session_takes_long_to_end(tmp_path: Path) -> None:
    source = """\
    async def main():
        async with aio.session(num_cpus=2):
            try:
                await tasks.sleep.remote(path)
            finally:
                os.kill(node_pid(), signal.SIGSTOP)
                tell_when_the_end_has_begun()

    asyncio.run(main())
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        assert program.next() == "the end has begun"
        program.type_ctrl_c()
        assert program.end() == -signal.SIGINT
        assert program.errors().endswith("\nKeyboardInterrupt\n")


def test_a_start_on_a_loop_that_is_cancelled_leaves_no_session(tmp_path: Path) -> None:
    source = """\
    async def main():
        async with aio.session(num_cpus=1):
            tell("never")

    async def cancel_it():
        starting = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            tell(ray.is_initialized())
        async with aio.session(num_cpus=1):
            tell(await tasks.plain.remote("the next one works"))

    asyncio.run(cancel_it())
    """
    with Terminal(tmp_path, source) as program:
        assert [program.next(), program.next()] == ["False", "the next one works"]
        assert program.end() == 0
        assert program.errors() == ""


# ---- threads and handlers ----


def test_ctrl_c_is_heard_while_the_loop_thread_runs_a_callback(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=2)
    gate = Gate(Path(path).parent)
    never = Gate(Path(path).parent).ref()
    enough = False

    def callback(ref):
        tell("busy")
        while not enough:
            pass

    gate.ref().add_done_callback(callback)
    gate.open()
    try:
        ray.get(never)
    except KeyboardInterrupt:
        tell("interrupted")
    enough = True
    tell(ray.get(tasks.plain.remote("goes on")))
    """
    with Terminal(tmp_path, source) as program:
        assert program.next() == "busy"
        program.type_ctrl_c()
        assert [program.next(), program.next()] == ["interrupted", "goes on"]
        assert program.end() == 0
        assert program.errors() == ""


def test_two_ctrl_c_end_a_program_whose_callback_never_ends(tmp_path: Path) -> None:
    source = """\
    ray.init(num_cpus=2)
    gate = Gate(Path(path).parent)
    never = Gate(Path(path).parent).ref()

    def callback(ref):
        tell("stuck")
        threading.Event().wait()

    tell_when_the_end_has_begun()
    gate.ref().add_done_callback(callback)
    gate.open()
    ray.get(never)
    """
    with Terminal(tmp_path, source) as program:
        assert program.next() == "stuck"
        program.type_ctrl_c()
        assert program.next() == "the end has begun"
        program.type_ctrl_c()
        assert program.end() == -signal.SIGINT
        assert_quiet(program.errors())


def test_ctrl_c_interrupts_a_callback_in_the_main_thread_and_others_are_told_all_the_same(
    tmp_path: Path,
) -> None:
    source = """\
    ray.init(num_cpus=2)
    never = Gate(Path(path).parent).ref()

    def callback(ref):
        tell("stuck")
        threading.Event().wait()

    never.add_done_callback(callback)
    never.add_done_callback(lambda ref: tell("told, too"))
    # While the loop thread is held up, it is the main thread that tells of the cancel.
    reached, go_on = threading.Event(), threading.Event()
    current().session.call_soon(lambda: (reached.set(), go_on.wait()))
    reached.wait()
    try:
        ray.cancel(never)
    except KeyboardInterrupt:
        tell("interrupted")
    go_on.set()
    tell(type(never.exception()).__name__)
    """
    with Terminal(tmp_path, source) as program:
        assert program.next() == "stuck"
        program.type_ctrl_c()
        told = [program.next() for _ in range(3)]
        assert sorted(told) == ["TaskCancelledError", "interrupted", "told, too"]
        assert program.end() == 0
        assert program.errors() == ""


def test_a_session_from_another_thread_is_guarded_as_soon_as_the_main_thread_uses_it(tmp_path: Path) -> None:
    source = """\
    thread = threading.Thread(target=ray.init, kwargs={"num_cpus": 1})
    thread.start()
    thread.join()
    tell(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    ref = tasks.sleep.remote(path)
    tell(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    try:
        ray.get(ref)
    except KeyboardInterrupt:
        tell("interrupted")
    ray.shutdown()
    tell(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    with Terminal(tmp_path, source) as program:
        assert [program.next(), program.next()] == ["True", "False"]
        program.next()
        program.type_ctrl_c()
        assert [program.next(), program.next()] == ["interrupted", "True"]
        assert program.end() == 0
        assert program.errors() == ""


def test_handlers_of_the_users_own_stay_and_pythons_comes_back(shared_handlers: None) -> None:
    def own(number: int, frame: object) -> None:
        """A handler of the user's."""

    ray.init(num_cpus=1)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ray.shutdown()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ray.init(num_cpus=1)
    signal.signal(signal.SIGINT, own)
    ray.shutdown()
    assert signal.getsignal(signal.SIGINT) is own
    ray.init(num_cpus=1)
    assert signal.getsignal(signal.SIGINT) is own
    ray.shutdown()
    assert signal.getsignal(signal.SIGINT) is own


def test_a_handler_of_the_users_own_runs_during_a_wait(tmp_path: Path) -> None:
    source = """\
    signal.signal(signal.SIGINT, lambda number, frame: tell("handled"))
    ray.init(num_cpus=1)
    gate = path + "-gate"
    os.mkfifo(gate)
    fd = os.open(gate, os.O_RDWR)
    ref = tasks.hold.remote(path, gate, "the value")
    threading.Thread(target=lambda: (sys.stdin.readline(), os.write(fd, b"."))).start()
    tell(ray.get(ref))
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        assert program.next() == "handled"
        program.type_ctrl_c()
        assert program.next() == "handled"
        os.write(program._master, b"\n")
        assert program.next() == "the value"
        assert program.end() == 0


def test_a_program_that_ignores_ctrl_c_can_still_cancel(tmp_path: Path) -> None:
    source = """\
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ray.init(num_cpus=1)
    ref = tasks.sleep.remote(path)
    sys.stdin.readline()
    ray.cancel(ref)
    ray.get(tasks.plain.remote(1))
    """
    with Terminal(tmp_path, source) as program:
        program.next()
        program.type_ctrl_c()
        os.write(program._master, b"\n")
        assert program.next() == "KeyboardInterrupt"
        assert program.end() == 0
        assert program.errors() == ""


@pytest.fixture
def shared_handlers() -> object:
    """Begin with Python's own handler, and end with the one that was there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
