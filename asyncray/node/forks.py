"""The node's side of its templates: asking for workers, hearing of their ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from .template import DIED, FAILED, FORK, FORKED, READY, kill_group, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

_MESSAGE_BYTES = 1 << 20


class TemplateLink:
    """One template process.

    Args:
        loop: The node's loop.
        sock: The node's end of the connection.
        pid: The template's process id; it is a child of this process.
        on_event: Called with what the template says.
        on_gone: Called once when the template has ended.
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
        #: What sets it apart from others.
        self.name = "process"
        self._loop = loop
        self._sock = sock
        self._on_event = on_event
        self._on_gone = on_gone
        self._gone = False
        #: What it has not taken yet, with our own copies of the descriptors.
        self._requests: deque[tuple[bytes, list[int]]] = deque()
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._on_end)

    def fork(self, number: int, settings: dict[str, Any], fds: list[int]) -> bool:
        """Ask for a worker; False when the template is gone (which on_gone tells, or told)."""
        request = pack([FORK, number, settings])
        if not self._requests:
            try:
                socket.send_fds(self._sock, [request], fds)
            except BlockingIOError:
                # It forks, or imports, and does not read. The rest is sent as it does.
                self._loop.add_writer(self._sock.fileno(), self._on_writable)
            except OSError:
                return False
            else:
                return True
        self._requests.append((request, [os.dup(fd) for fd in fds]))
        return True

    def _on_writable(self) -> None:
        while self._requests:
            request, fds = self._requests[0]
            try:
                socket.send_fds(self._sock, [request], fds)
            except BlockingIOError:
                return
            except OSError:  # its end is about to be told
                break
            self._drop_request()
        self._loop.remove_writer(self._sock.fileno())

    def _drop_request(self) -> None:
        for fd in self._requests.popleft()[1]:
            os.close(fd)

    def close(self) -> None:
        """Let the template end, and its workers with it."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        while self._requests:
            self._drop_request()

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
        self._gone = True
        self._on_gone(self)

    def kill(self) -> None:
        """End it without asking."""
        if not self._gone:
            # It may have ended and been reaped, and the loop has not come to its pidfd yet.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


class Reaper:
    """Reaps this process's children as they end: its templates, and who lost a parent below them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._childless = asyncio.Event()
        self._watched: set[int] = set()
        self._statuses: dict[int, int] = {}
        # Not by the loop's own means: uvloop keeps this signal for the processes that it starts itself.
        signal.signal(signal.SIGCHLD, lambda signum, frame: loop.call_soon_threadsafe(self._reap))

    def _reap(self) -> None:
        try:
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                pid = found.si_pid
                if pid not in self._watched:
                    # A worker that has lost its template, which may not even have told of it. What it had
                    # started goes before it is reaped: after that, its number may be somebody else's.
                    kill_group(pid)
                _, status = os.waitpid(pid, 0)
                if pid in self._watched:
                    self._statuses[pid] = status
        except ChildProcessError:
            self._childless.set()

    def watch(self, pid: int) -> None:
        """Keep the wait status of this child."""
        self._watched.add(pid)

    def status(self, pid: int) -> int:
        """The wait status of a child that was watched and has ended."""
        self._reap()
        self._watched.discard(pid)
        return self._statuses.pop(pid)

    async def finish(self, timeout_s: float) -> None:
        """Wait for the children that have been killed; those that nobody kills are left to others."""
        self._reap()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._childless.wait()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


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
