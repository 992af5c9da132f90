"""The processes of a session, as the kernel tells of them."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncray.process import current

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PR_SET_CHILD_SUBREAPER = 36
#: Milliseconds between two looks at a process that has ended and waits to be reaped: nothing announces that.
_LOOK_AGAIN_MS = 5


def node_pid() -> int:
    """The node of this process's session."""
    driver = current().driver
    assert driver is not None
    return driver._node.pid


def template_pid(node: int) -> int:
    """The template of a node that has started a worker."""
    (pid,) = [pid for pid in children(node) if name(pid) == "asyncray-templ"]
    return pid


def children(parent: int) -> list[int]:
    """The children of a process, those among them too that have ended and not been reaped."""
    return [pid for pid, fields in _table() if int(fields[1]) == parent]


def descendants(ancestor: int) -> list[int]:
    """All below a process."""
    parents = {pid: int(fields[1]) for pid, fields in _table()}
    found: list[int] = []
    level = {ancestor}
    while level := {pid for pid, parent in parents.items() if parent in level}:
        found += level
    return found


def name(pid: int) -> str:
    """What a process calls itself; nothing when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def exists(pid: int) -> bool:
    """Whether a process is in the table: it runs, or has ended and not been reaped."""
    return Path(f"/proc/{pid}").exists()


def sockets_named(part: str) -> list[str]:
    """The abstract sockets whose name has *part* in it."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line.split()[-1] for line in lines if part in line]


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    """End a process."""
    os.kill(pid, how)


def left_of(pids: Iterable[int], within_s: float, reaping: Iterable[int] = ()) -> list[str]:
    """Wait until none of the processes is in the table; tell which still are after so many seconds.

    Args:
        pids: The processes.
        within_s: Seconds to wait.
        reaping: Those that this process may have adopted by then, and must reap itself.
    """
    left = set(pids)
    deadline = time.monotonic() + within_s
    while left := {pid for pid in left if _still_there(pid, reaping)}:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        _await_change(left, remaining)
    return [f"{pid} ({name(pid)}, {state(pid)}, child of {parent_of(pid)})" for pid in sorted(left)]


def state(pid: int) -> str:
    """The kernel's letter: R runs, S sleeps, Z has ended and waits to be reaped; nothing when it is gone."""
    return next((fields[0] for found, fields in _table() if found == pid), "")


def parent_of(pid: int) -> int:
    """Process id of the parent; 0 when it is gone."""
    return next((int(fields[1]) for found, fields in _table() if found == pid), 0)


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be the parent of whoever loses theirs: what others have not reaped then stays in the table."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _still_there(pid: int, reaping: Iterable[int]) -> bool:
    if pid in reaping:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return exists(pid)


def _await_change(pids: Iterable[int], timeout_s: float) -> None:
    """Return when one has ended, or a moment later when all have and wait to be reaped."""
    running = [pid for pid in pids if state(pid) not in ("Z", "")]
    poll = select.poll()
    opened = []
    for pid in running:
        with suppress(ProcessLookupError):
            opened.append(os.pidfd_open(pid))
            poll.register(opened[-1], select.POLLIN)
    poll.poll(timeout_s * 1000 if opened else _LOOK_AGAIN_MS)
    for fd in opened:
        os.close(fd)


def _table() -> Iterator[tuple[int, list[str]]]:
    """Yield for each process what its `stat` tells after the name: state, parent and so on."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 - often, and pathlib is slow at it
        if entry.isdigit():
            with suppress(OSError):
                _, _, fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")
                yield int(entry), fields.split()
