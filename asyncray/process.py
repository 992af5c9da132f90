"""Which process, real or simulated, the running code belongs to: one context variable tells.

Nothing in asyncray keeps a client in a module global. Whatever needs the current session, the running task
or the process's identity asks :func:`current`, which looks here. A real process has one slot for all its
threads and coroutines (the variable's default); a simulated one sets its own in the context that it runs in.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .client.bootstrap import Driver
    from .client.interrupts import InterruptGuard
    from .client.session import Session


class Process:
    """What one process, real or simulated, knows of itself."""

    __slots__ = ("driver", "guard", "hooked", "session", "worker")

    def __init__(self) -> None:
        #: The open session; None before init and after shutdown.
        self.session: Session | None = None
        #: What holds a driver's session; None in a worker, before init and after shutdown.
        self.driver: Driver | None = None
        #: The driver's handler of Ctrl-C; made by the first start, and kept.
        self.guard: InterruptGuard | None = None
        #: Whether the end of this process, and its forks, have been taken care of.
        self.hooked = False
        #: Whether this process is one of asyncray's workers.
        self.worker = False

    def after_fork(self) -> None:
        """This process is a fork of one with a session: it must not use that, nor hold its sockets open."""
        session, self.session, self.driver = self.session, None, None
        if session is not None:
            session.abandon()


_current: Final[ContextVar[Process]] = ContextVar("asyncray_process", default=Process())  # noqa: B039

#: The process that the running code belongs to.
current = _current.get
#: Make another process current, in this context only; used by the simulation.
enter = _current.set
leave = _current.reset
