"""What a test may leave behind: nothing. The check that says so.

    before = take_stock()
    ...                                  # the test
    left = settle(before)                # waits a moment for what is just ending, then one line for each leak

Looked at: processes (descendants, and orphans that still carry this run's mark in their environment),
threads, file descriptors, tasks of event loops, and what is named after asyncray in /dev/shm or in the
temporary directory.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import tempfile
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Environment variable that this run sets to a value of its own. Every process below it inherits that: an
#: orphan too is known by it, whoever has adopted it.
MARK = "ASYNCRAY_TEST_RUN"

#: Seconds that what is already ending may take.
GRACE_S = 2.0

#: Milliseconds between two looks at what ends unannounced: a child that awaits reaping, a descriptor.
_LOOK_AGAIN_MS = 10

#: Where a process's line has the moment of its start: counted from the field after the name.
_STARTED = 19
_READ_BYTES = 1 << 16

Kind = Literal["process", "thread", "descriptor", "task", "file"]


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table. Pid and start time together name a process for good."""

    pid: int
    #: The kernel's letter: R runs, S sleeps, Z has ended and awaits reaping.
    state: str
    #: Clock ticks from the start of the machine to that of the process.
    started: int
    command: str

    @property
    def key(self) -> tuple[int, int]:
        """Return what tells this process from a later one with the same pid."""
        return self.pid, self.started

    def __str__(self) -> str:
        reaped = " (ended, but nobody reaped it)" if self.state == "Z" else ""
        return f"process {self.pid}{reaped}: {self.command}"


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that was not there before."""

    kind: Kind
    text: str
    #: The process, thread or task itself, to wait for; None where there is nothing to wait on.
    subject: Any = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Stock:
    """What was there at one moment."""

    processes: frozenset[tuple[int, int]]
    threads: weakref.WeakSet[threading.Thread]
    descriptors: dict[int, str]
    tasks: weakref.WeakSet[asyncio.Task[Any]]
    files: frozenset[str]


def take_stock() -> Stock:
    """Return what is there now."""
    return Stock(
        processes=frozenset(process.key for process in our_processes()),
        threads=weakref.WeakSet(threading.enumerate()),
        descriptors=open_descriptors(),
        tasks=weakref.WeakSet(pending_tasks()),
        files=frozenset(named_files()),
    )


def settle(before: Stock, *, session_alive: bool = False, grace_s: float = GRACE_S) -> list[Leak]:
    """Wait until what was not there before is gone, and return what stays.

    Args:
        before: What may stay.
        session_alive: A session outlives the test on purpose: its processes, threads, descriptors and tasks
            may come and go.
        grace_s: Seconds that things may take to end. They are waited for, not slept for.
    """
    end = time.monotonic() + grace_s
    while True:
        leaks = [leak for leak in _find(before) if not (session_alive and _may_belong_to_session(leak))]
        remaining = end - time.monotonic()
        if not leaks or remaining <= 0:
            return leaks
        _wait_for_one(leaks, remaining)


def _find(before: Stock) -> Iterator[Leak]:
    for process in our_processes():
        if process.key not in before.processes:
            yield Leak("process", str(process), process)
    for thread in threading.enumerate():
        if thread not in before.threads:
            yield Leak("thread", f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}", thread)
    for fd, target in open_descriptors().items():
        if before.descriptors.get(fd) != target:
            yield Leak("descriptor", f"file descriptor {fd}: {target}")
    for task in pending_tasks():
        if task not in before.tasks:
            yield Leak("task", f"task {task!r}", task)
    for path in sorted(set(named_files()) - before.files):
        yield Leak("file", f"file {path}")


def _may_belong_to_session(leak: Leak) -> bool:
    if leak.kind == "thread":
        return str(leak.subject.name).startswith("asyncray")
    if leak.kind == "task":
        return bool(leak.subject.get_loop().is_running())  # not the test's own loop: that has stopped by now
    return leak.kind in {"process", "descriptor"}


def _wait_for_one(leaks: list[Leak], timeout_s: float) -> None:
    """Return when one of the leaks has gone, or may have, or after `timeout_s` seconds."""
    alive = [leak.subject.pid for leak in leaks if leak.kind == "process" and leak.subject.state != "Z"]
    threads = [leak.subject for leak in leaks if leak.kind == "thread"]
    loops = {leak.subject.get_loop() for leak in leaks if leak.kind == "task"}
    if alive:
        wait_for_exit(alive, timeout_s)
    elif threads:
        threads[0].join(timeout_s)
    else:
        for loop in loops:
            _let_run(loop)
        gc.collect()
        select.poll().poll(_LOOK_AGAIN_MS)


def _let_run(loop: asyncio.AbstractEventLoop) -> None:
    """Give tasks that were cancelled, but had no chance to see it, that chance."""
    if not loop.is_running() and not loop.is_closed():
        loop.run_until_complete(asyncio.sleep(0))


def wait_for_exit(pids: Iterable[int], timeout_s: float) -> None:
    """Return when one of the processes has ended, or after `timeout_s` seconds."""
    poll = select.poll()
    with ExitStack() as opened:
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            opened.callback(os.close, pidfd)
            poll.register(pidfd, select.POLLIN)
        poll.poll(timeout_s * 1000)


def our_processes() -> list[Process]:
    """Return the descendants of this process, and orphans of this run that others have adopted."""
    stats = dict(_process_table())
    parents = {pid: int(fields[1]) for pid, fields in stats.items()}
    ours: set[int] = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= found
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    began = int(stats[os.getpid()][_STARTED])  # what is older is nothing of ours: no need to look at it
    young = {pid for pid, fields in stats.items() if int(fields[_STARTED]) >= began} - ours
    ours |= {pid for pid in young if mark in _words(pid, "environ")}
    return [_describe(pid, stats[pid]) for pid in sorted(ours - {os.getpid()})]


def _process_table() -> Iterator[tuple[int, list[str]]]:
    """Yield for each process of the machine what its `stat` tells after the name: state, parent and so on."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 - around every test: pathlib takes five times as long
        if entry.isdigit():
            # The name, in parentheses, may itself hold spaces and parentheses.
            _, found, fields = _read(entry, "stat").rpartition(b") ")
            if found:
                yield int(entry), fields.decode().split()


def _describe(pid: int, fields: list[str]) -> Process:
    command = b" ".join(_words(pid, "cmdline")).decode(errors="replace").strip()
    return Process(pid, state=fields[0], started=int(fields[_STARTED]), command=command or "?")


def _words(pid: int, file: Literal["cmdline", "environ"]) -> list[bytes]:
    return _read(str(pid), file).split(b"\0")


def _read(pid: str, file: Literal["stat", "cmdline", "environ"]) -> bytes:
    """Return a file of the process's folder; nothing when the process has gone or is somebody else's."""
    content = b""
    with suppress(OSError):
        fd = os.open(f"/proc/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC)  # `open` takes three times as long
        try:
            while part := os.read(fd, _READ_BYTES):
                content += part
                if file == "stat":  # a line, and always whole
                    break
        except OSError:
            return b""
        finally:
            os.close(fd)
    return content


def open_descriptors() -> dict[int, str]:
    """Return what each of this process's file descriptors points at."""
    found: dict[int, str] = {}
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as in _process_table
        with suppress(FileNotFoundError):  # the descriptor that listed the folder
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115 - likewise
    return found


def pending_tasks() -> list[asyncio.Task[Any]]:
    """Return the unfinished tasks of every loop, closed ones too.

    asyncio tells only the tasks of one loop that is at hand, so this reads the sets behind that.
    """
    known: Any = getattr(asyncio.tasks, "_scheduled_tasks", None)  # 3.12 and later
    if known is None:
        known = asyncio.tasks._all_tasks  # type: ignore[attr-defined]
    return [task for task in _copy(known) if not task.done()]


def _copy(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Copy a set that other threads may change meanwhile, as `asyncio.all_tasks` does it."""
    for _ in range(1000):
        with suppress(RuntimeError):
            return list(tasks)
    raise AssertionError("the set of tasks never held still")


def named_files() -> Iterator[str]:
    """Yield what is named after asyncray in shared memory and in the temporary directory."""
    for folder in ("/dev/shm", tempfile.gettempdir()):
        with suppress(FileNotFoundError):
            yield from (f"{folder}/{name}" for name in os.listdir(folder) if "asyncray" in name)  # noqa: PTH208
