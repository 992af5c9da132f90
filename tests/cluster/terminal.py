"""Drivers in a terminal of their own, in which Ctrl-C can be typed."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import termios
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.cluster.beacons import PATIENCE_S, Beacon
from tests.cluster.processes import adopting_orphans, descendants, left_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path(__file__).parents[2]

#: What each program begins with.
_PROLOGUE = """\
import asyncio, os, signal, sys, threading, time
from pathlib import Path
import asyncray as ray
from asyncray import aio
from asyncray.process import current
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import light
from tests.cluster.gates import Gate
from tests.cluster.processes import node_pid
path = sys.argv[1]
tell = lambda line: light(path, line)

def tell_when_the_end_has_begun():
    def watch():
        while ray.is_initialized():
            time.sleep(0.01)
        tell("the end has begun")
    threading.Thread(target=watch, daemon=True).start()

"""


class Terminal:
    """A program that runs as the foreground job of a terminal; as a context manager it is ended at last.

    Args:
        folder: A temporary folder.
        source: The program; `tell(line)` in it tells the test a line.
        environ: Further environment variables.
    """

    def __init__(self, folder: Path, source: str, environ: Mapping[str, str] | None = None) -> None:
        self.beacon = Beacon(folder)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._master, slave = os.openpty()
        path = folder / "program.py"
        path.write_text(_PROLOGUE + textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(path), self.beacon.path],
            env={**os.environ, "PYTHONPATH": str(_ROOT), **(environ or {})},
            stdin=slave,
            stdout=slave,
            stderr=self._errors,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        )
        os.close(slave)
        self._started: set[int] = set()
        self._adopting = adopting_orphans()

    def type_ctrl_c(self) -> None:
        """Type Ctrl-C: the kernel sends SIGINT to the foreground process group."""
        self._started |= set(descendants(self.process.pid))
        os.write(self._master, b"\x03")

    def next(self) -> str:
        """Wait for the next line that the program tells."""
        line = self.beacon.next()
        self._started |= set(descendants(self.process.pid))
        return line

    def end(self) -> int:
        """Wait until the program has ended; nothing of it may be left then. Returns the exit status.

        Raises:
            AssertionError: when processes are left a second later.
            TimeoutExpired: when the program goes on.
        """
        self._started |= set(descendants(self.process.pid))
        status = self._wait()
        left = self._left()
        assert left == [], left
        return status

    def _left(self) -> list[str]:
        for _ in range(100):
            for pid in self._started:
                # What was adopted is reaped here: who does that elsewhere is not the program's matter.
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if not left_of(self._started, 0.01):
                break
        return left_of(self._started, 0)

    def _wait(self) -> int:
        # What it writes on the terminal is read, so that it is not held up by that.
        pidfd = os.pidfd_open(self.process.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(self._master, select.POLLIN)
            while ready := dict(poll.poll(PATIENCE_S * 1000)):
                if pidfd in ready:
                    break
                self._drain()
        finally:
            os.close(pidfd)
        return self.process.wait(1)

    def _drain(self) -> None:
        with suppress(OSError):
            os.read(self._master, 65536)

    def errors(self) -> str:
        """What the program has written on stderr."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def __enter__(self) -> Self:
        # From the start: a node may be killed long before the program's end.
        self._adopting.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            for pid in [self.process.pid, *descendants(self.process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self._left()
        self._adopting.__exit__(None, None, None)
        os.close(self._master)
        self._errors.close()
        self.beacon.close()
