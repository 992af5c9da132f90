"""The same programs return the same on asyncray and on Ray.

They always run on asyncray. They run on Ray, too, where an interpreter has it: the one that the environment
variable ASYNCRAY_COMPAT_RAY_PYTHON names, or `.venv-ray/bin/python` in the folder of the repository.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests import leaks
from tests.compat import harness

ROOT = Path(__file__).parents[2]
RAY_PYTHON = Path(os.environ.get("ASYNCRAY_COMPAT_RAY_PYTHON") or ROOT / ".venv-ray/bin/python")
PROGRAMS = harness.all_programs()

#: Ray 2.60 itself aborts now and then, in failed checks of its own, when tasks are cancelled. The programs
#: that were still to run are then run by a new process, so many times at most.
RAY_RESTARTS = 5


class Runner:
    """A process that runs programs one after another; each outcome is read when it is asked for."""

    def __init__(self, python: str, library: str, log: IO[bytes], restarts: int = 0) -> None:
        self._command = [python, "-m", "tests.compat.run", library]
        self._log = log
        self._restarts = restarts
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._process = self._start(list(PROGRAMS))

    def value_of(self, name: str) -> object:
        """Wait until the program of this name has run, and return its value."""
        while name not in self._outcomes:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if line:
                outcome = json.loads(line)
                self._outcomes[outcome["program"]] = outcome
            else:
                self._restart()
        outcome = self._outcomes[name]
        if "error" in outcome:
            pytest.fail(f"{name} raised:\n{outcome['error']}", pytrace=False)
        return outcome["value"]

    def close(self) -> None:
        """Wait until the process has ended; one that has programs left to run is killed."""
        if len(self._outcomes) < len(PROGRAMS):
            self._process.kill()
        self._process.communicate()

    def kill_group(self) -> None:
        """Kill what the process has left running in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self, names: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *names],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def _restart(self) -> None:
        self._process.communicate()
        if not self._restarts:
            self._log.seek(0)
            log = self._log.read().decode(errors="replace")[-4000:]
            pytest.fail(f"the process ended early, code {self._process.returncode}:\n{log}", pytrace=False)
        self.kill_group()
        self._restarts -= 1
        self._process = self._start([name for name in PROGRAMS if name not in self._outcomes])


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> None:
    """Replace the check after every test: a runner outlives the test, and is looked at after the last one."""


@pytest.fixture(scope="module")
def asyncray_runner(leak_grace_s: float) -> Iterator[Runner]:
    """Run the programs on asyncray, and check that nothing is left of it."""
    before = leaks.take_stock()
    with tempfile.TemporaryFile() as log:
        runner = Runner(sys.executable, "asyncray", log)
        yield runner
        runner.close()
    assert leaks.settle(before, grace_s=leak_grace_s) == []


@pytest.fixture(scope="module")
def ray_runner() -> Iterator[Runner]:
    """Run the programs on Ray, in a temporary folder of its own; its sockets' paths must be short."""
    if not RAY_PYTHON.exists():
        pytest.skip(f"Ray is not installed: there is no {RAY_PYTHON}")
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as log,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.delenv(leaks.MARK, raising=False)
        runner = Runner(str(RAY_PYTHON), "ray", log, RAY_RESTARTS)
        yield runner
        runner.close()
        runner.kill_group()  # after an abort Ray's agents live on for a minute


def as_json(value: object) -> object:
    """Return what a process on the other side of a pipe would have sent."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_asyncray(name: str, asyncray_runner: Runner) -> None:
    assert asyncray_runner.value_of(name) == as_json(PROGRAMS[name][1])


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_ray(name: str, ray_runner: Runner) -> None:
    assert ray_runner.value_of(name) == as_json(PROGRAMS[name][1])
