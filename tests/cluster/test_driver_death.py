"""However a driver ends, within a second nothing of its session is left, and it ends quietly."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .doors import Doors

ROOT = Path(__file__).parents[2]
#: Seconds that anything of a session may stay after its driver.
SOON_S = 1.0
#: Seconds for what must not hang.
PATIENCE_S = 30.0

#: How many tasks of each driver run when it ends.
TASKS = {"idle": 0, "working": 2, "blocked": 1, "threads": 1}
SIGNALS = [signal.SIGKILL, signal.SIGTERM]


@pytest.fixture(autouse=True)
def nobody_else_reaps() -> Iterator[None]:
    with processes.adopting_orphans():
        before = set(processes.children(os.getpid()))
        yield
        # What a node began after a driver had told of its processes: nobody else knows of it.
        adopted = set(processes.children(os.getpid())) - before
        assert not processes.left_of(adopted, SOON_S, reaping=adopted)


class Driver:
    """A driver in a process of its own, and everything that it has started by the time it ends."""

    def __init__(self, doors: Doors, name: str, how: str, terminal: int | None) -> None:
        self.door, self.yard = doors.new(), doors.new()
        arguments = [name, self.door.name, self.yard.name, how]
        command = [sys.executable, "-W", "error", "-m", "tests.cluster.drivers", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=terminal or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=terminal is not None,
            preexec_fn=None if terminal is None else _take_terminal,  # noqa: PLW1509 - no thread is here
        )
        self.pids: list[int] = []
        self.node = 0

    def arrival(self, tasks: int = 0) -> str:
        """Wait until it is at its place, and so many tasks at theirs; returns the session's name."""
        for _ in range(tasks):
            self.yard.hear()
        session = self.door.hear()
        self._note_processes()
        return session

    def _note_processes(self) -> None:
        """Remember who is there now: when their parents have died, nobody could tell whose they were."""
        self.pids = processes.descendants(self.process.pid)
        (self.node,) = processes.children(self.process.pid)

    def end(self) -> tuple[int, str]:
        """Wait for its end; returns its exit code and what it wrote on stderr."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert out == ""
        return self.process.returncode, err

    def left(self) -> list[str]:
        """What is left of it a second after its end."""
        return processes.left_of(self.pids, SOON_S, reaping=[self.node])


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def driver(doors: Doors, name: str, how: str = "return", terminal: int | None = None) -> Iterator[Driver]:
    started = Driver(doors, name, how, terminal)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for pipe in (started.process.stdout, started.process.stderr):
            assert pipe is not None
            pipe.close()


# --- ends that nobody announces -------------------------------------------------------------------------


@pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)
@pytest.mark.parametrize("name", ["idle", "working", "blocked"])
def test_a_driver_that_is_killed_leaves_nothing(doors: Doors, name: str, how: signal.Signals) -> None:
    with driver(doors, name) as dying:
        session = dying.arrival(TASKS[name])
        assert processes.sockets_named(session)
        dying.process.send_signal(how)
        code, err = dying.end()
        assert code == -how
        assert not dying.left()
        assert not processes.sockets_named(session)
        assert err == ""


def test_a_stopped_node_and_template_go_on_when_the_driver_dies(doors: Doors) -> None:
    with driver(doors, "working") as dying:
        dying.arrival(TASKS["working"])
        for pid in (processes.template_pid(dying.node), dying.node):
            os.kill(pid, signal.SIGSTOP)
        dying.process.kill()
        dying.end()
        assert not dying.left()


@pytest.mark.parametrize(
    "stage",
    ["the node knows nothing yet", "nobody has connected to the node", "the node is not ready yet"],
)
def test_a_driver_that_is_killed_during_init_leaves_nothing(doors: Doors, stage: str) -> None:
    with driver(doors, "starting", stage) as dying:
        assert dying.arrival() == stage
        dying.process.kill()
        assert dying.end() == (-signal.SIGKILL, "")
        assert not dying.left()


@pytest.mark.parametrize(
    "stage",
    ["the node knows nothing yet", "nobody has connected to the node", "the node is not ready yet"],
)
def test_a_driver_that_leaves_during_init_leaves_nothing(doors: Doors, stage: str) -> None:
    with driver(doors, "starting", stage) as dying:
        assert dying.arrival() == stage
        dying.door.let_in()
        assert dying.end() == (3, "")
        assert not dying.left()


@pytest.mark.parametrize("name", ["working", "blocked"])
def test_a_closing_terminal_ends_everything(doors: Doors, name: str) -> None:
    ours, theirs = pty.openpty()
    with driver(doors, name, terminal=theirs) as dying:
        os.close(theirs)
        session = dying.arrival(TASKS[name])
        os.close(ours)
        code, err = dying.end()
        assert code == -signal.SIGHUP
        assert not dying.left()
        assert not processes.sockets_named(session)
        assert err == ""


def test_a_child_that_holds_the_drivers_sockets_open_keeps_nothing_alive(doors: Doors) -> None:
    with driver(doors, "outlived") as dying:
        session, child = dying.door.hear().split()
        dying.pids = processes.descendants(dying.process.pid)
        dying.pids.remove(int(child))
        (dying.node,) = set(processes.children(dying.process.pid)) - {int(child)}
        dying.process.kill()
        dying.process.wait()
        assert not dying.left()
        assert len(set(processes.sockets_named(session))) == 1, "the driver's own is in its child's hands"
        dying.yard.let_in()
        assert not processes.left_of([int(child)], SOON_S, reaping=[int(child)])
        assert not processes.sockets_named(session)


@pytest.mark.parametrize("how", [signal.SIGKILL, "shutdown"])
def test_a_template_that_imports_for_ever_ends_with_its_driver(
    doors: Doors, how: signal.Signals | str
) -> None:
    argument = how if isinstance(how, str) else "return"
    with driver(doors, "preloading", argument) as dying:
        dying.arrival()
        if isinstance(how, signal.Signals):
            dying.process.send_signal(how)
        else:
            dying.door.let_in()
        dying.end()
        assert not dying.left()


# --- ends that the interpreter announces ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how", "code", "told"),
    [
        ("idle", "_exit", 3, ""),
        ("working", "return", 0, ""),
        ("working", "exit", 3, ""),
        ("working", "raise", 1, "ValueError"),
        ("threads", "return", 0, ""),
    ],
)
def test_a_driver_that_ends_without_shutdown_ends_quietly_and_leaves_nothing(
    doors: Doors, name: str, how: str, code: int, told: str
) -> None:
    with driver(doors, name, how) as dying:
        session = dying.arrival(TASKS[name])
        dying.door.let_in()
        ended, err = dying.end()
        assert ended == code
        assert not dying.left()
        assert not processes.sockets_named(session)
        assert err.count("Traceback") == bool(told)
        assert err.rstrip().endswith("ValueError: nobody catches this") if told else err == ""


# --- forks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    ["return", "sys.exit", "os._exit", "shutdown", "ask", "init", "init without shutdown", "call"],
)
def test_a_fork_of_a_driver_is_on_its_own_and_the_driver_goes_on(doors: Doors, how: str) -> None:
    with driver(doors, "forking", how) as forking:
        assert forking.door.hear() == "the child has ended"
        forking.yard.let_in()  # what the child has seen pending comes now
        assert forking.end() == (0, "")
        assert forking.door.hear() == "the parent is well"


# --- starting and ending again and again ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["rounds", "last_breath"])
def test_sessions_may_follow_each_other_and_end_with_the_interpreter(doors: Doors, name: str) -> None:
    with driver(doors, name) as repeating:
        session = repeating.door.hear()
        assert repeating.end() == (0, "")
        assert not processes.sockets_named(session)
