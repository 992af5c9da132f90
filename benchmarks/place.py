"""Where a runtime runs: its interpreter, and a child process there that answers requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .procfs import tree
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 60.0
END_LIMIT_S = 20.0
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment that keeps Ray quiet and at home."""


class ChildGoneError(Exception):
    """The child does not answer any more: it ended, or ran past its time and was killed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A runtime and the interpreter that has it installed."""

    runtime: str
    python: str
    store_bytes: int = 0
    """Size of the object store; 0 is the runtime's own default."""


class Child:
    """A process that holds one runtime. Made by :func:`child`."""

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    async def answer(self, limit_s: float) -> dict[str, object]:
        """The next line from the child.

        Raises:
            ChildGoneError: when it ended or did not answer within ``limit_s`` seconds.
        """
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), limit_s)
        except TimeoutError:
            raise ChildGoneError(f"no answer within {limit_s:g} s{self._last_words()}") from None
        if not line:
            code = await self._process.wait()
            raise ChildGoneError(f"the process ended with exit code {code}{self._last_words()}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    async def ask(self, limit_s: float, **request: str) -> dict[str, object]:
        """Send ``request`` and return the answer. Raises: ChildGoneError: as in :meth:`answer`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self.answer(limit_s)

    def watch(self) -> Watch:
        """A watch over the child and all its descendants."""
        return Watch(tree(self._process.pid))

    async def end(self) -> None:
        """Close its input and wait for its end; kill its process group when that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_LIMIT_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill the child and what it started in its own process group."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def _last_words(self) -> str:
        """The last line that the child wrote to stderr, if any."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()})" if lines else ""


def environment(scratch: str) -> dict[str, str]:
    """The child's environment: this repository importable in workers too, no cluster but its own."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    path = [str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, **QUIET, "PYTHONPATH": os.pathsep.join(path), "RAY_TMPDIR": scratch}


@asynccontextmanager
async def child(place: Place) -> AsyncIterator[Child]:
    """A child process at ``place``; on leaving it is ended, after an error killed."""
    # A short path: Ray puts Unix sockets below it, whose names are limited to 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch,
        tempfile.TemporaryFile() as log,
    ):
        process = await asyncio.create_subprocess_exec(
            place.python,
            *("-m", "benchmarks.child", place.runtime, str(place.store_bytes)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=environment(scratch),
            start_new_session=True,
        )
        running = Child(process, log)
        try:
            yield running
            await running.end()
        finally:
            await running.kill()
