"""The node's side of its templates: asking for workers, hearing of their ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from .template import DIED, FAILED, FORKED, READY, pack, unpack

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_MESSAGE_BYTES = 1 << 20


class TemplateLink:
    """One template process.

    Args:
        loop: The node's loop.
        sock: The node's end of the connection.
        pid: The template's process id; it is a child of this process.
        on_event: Called with what the template says.
        on_gone: Called once when the template has ended; it is reaped by then.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        pid: int,
        on_event: Callable[[str, list[Any]], None],
        on_gone: Callable[[TemplateLink], None],
    ) -> None:
        self.pid = pid
        self._loop = loop
        self._sock = sock
        self._on_event = on_event
        self._on_gone = on_gone
        self._gone = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._on_end)

    def fork(self, number: int, settings: dict[str, Any], fds: list[int]) -> bool:
        """Ask for a worker; False when the template is gone (which on_gone tells, or told)."""
        try:
            socket.send_fds(self._sock, [pack(["fork", number, settings])], fds)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let the template end, and its workers with it."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _on_readable(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                data = self._sock.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            kind, *rest = unpack(data)
            assert kind in (DIED, FAILED, FORKED, READY), kind
            self._on_event(kind, rest)

    def _on_end(self) -> None:
        # What it said before it ended is heard first.
        self._on_readable()
        self.close()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._gone = True
        self._on_gone(self)

    def kill(self) -> None:
        """End it without asking."""
        if not self._gone:
            os.kill(self.pid, signal.SIGKILL)


def reap_orphans() -> None:
    """Reap the workers of a template that died before it could; they have been killed with it."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def describe_end(pid: int, status: int) -> str:
    """What a wait status says, for a person."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"process {pid} exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "an unknown signal"
    return f"process {pid} was killed by {name} (signal {-code})"
