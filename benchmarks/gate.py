"""A gate at which tasks stop until it opens, so that a row knows who is running without polling."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Gate:
    """A listening socket in the caller's process; tasks connect to it, say who they are and wait.

    The address is abstract: it leaves no file behind.
    """

    def __init__(self) -> None:
        self.address = f"\0benchmark-gate-{secrets.token_hex(8)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen(64)
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
        self._listener.close()

    def arrivals(self, count: int, timeout_s: float = 20.0) -> list[int]:
        """Wait until ``count`` more tasks stand at the gate: their process ids.

        Raises:
            TimeoutError: when one did not arrive within ``timeout_s`` seconds of the one before.
        """
        self._listener.settimeout(timeout_s)
        pids: list[int] = []
        while len(pids) < count:
            try:
                task, _ = self._listener.accept()
            except TimeoutError:
                reason = f"{len(pids)} of {count} tasks were running, no other started within {timeout_s:g} s"
                raise TimeoutError(reason) from None
            self._waiting.append(task)
            pids.append(int(task.recv(32)))
        return pids

    def open(self) -> None:
        """Let all go that stand at the gate."""
        for task in self._waiting:
            task.close()
        self._waiting.clear()


def arrive(address: str) -> socket.socket:
    """Called by a task: say which process it runs in. Keep the socket: :func:`stand` waits on it."""
    gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    gate.connect(address)
    gate.sendall(b"%d" % os.getpid())
    return gate


def stand(address: str) -> int:
    """Called by a task: arrive and wait until the gate opens. The process id."""
    with arrive(address) as gate:
        gate.recv(1)
    return os.getpid()
