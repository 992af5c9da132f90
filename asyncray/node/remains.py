"""What a dead node leaves: processes of its session whose template has died too, so that nobody ends them.

A node leads a session of processes, as the kernel understands it: template, workers and what those have
started belong to it, except who has left it by `setsid`. Its number is nobody else's as long as the node has
not been reaped, so all of this comes before that.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Milliseconds of one wait for somebody's end, and how many waits there are.
_WAIT_MS: Final = 20
_WAITS: Final = 15
#: Listings after which it is given up: who forks faster than it is killed cannot be caught like this.
_ROUNDS: Final = 10
#: Where a process's line has its session: counted from the field after the name.
_SESSION: Final = 3


def has_crashed(child: int, *, wait: bool) -> bool:
    """Whether a child of this process, not reaped yet, has ended in another way than in order.

    Args:
        child: Its process id.
        wait: Wait for its end, which is near.
    """
    try:
        end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG))
    except ChildProcessError:  # the program reaps its children itself, and the number may be another's by now
        return False
    return end is not None and (end.si_code != os.CLD_EXITED or end.si_status != 0)


def end_session(leader: int, *, patient: bool) -> None:
    """Kill what is left of a session whose leader has ended and is not reaped yet.

    Args:
        leader: Its process id.
        patient: Wait a moment first: who ends by itself also reaps what it has started.
    """
    for _ in range(_WAITS if patient else 0):
        left = next(_members(leader), 0)
        if not left:
            return
        _wait_for(left)
    for _ in range(_ROUNDS):
        members = list(_members(leader))
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _wait_for(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(_WAIT_MS)
        finally:
            os.close(pidfd)


def _members(leader: int) -> Iterator[int]:
    """The processes of a session that have not ended."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # it has just gone
                with open(f"/proc/{entry}/stat", "rb") as file:
                    _, _, fields = file.read().rpartition(b") ")
                state, *numbers = fields.split()
                if state not in (b"Z", b"X") and int(numbers[_SESSION - 1]) == leader:
                    yield int(entry)
