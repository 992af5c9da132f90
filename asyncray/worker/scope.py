"""What a worker knows of the call that is running: for its children, its context and its waits."""

from __future__ import annotations

import itertools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from ..client.session import TaskScope

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calls import Call

#: The call that the running code belongs to; a coroutine's own where there are many.
running_call: Final[ContextVar[Call | None]] = ContextVar("asyncray_call", default=None)


class WorkerScope(TaskScope):
    """Tells the node when the worker's calls wait for others, so that its CPU is of use in the meantime."""

    def __init__(self) -> None:
        self._serials = itertools.count(1)
        self._waiting = 0
        #: Called with True when the first call begins to wait, with False when none does any more.
        self.on_waiting: Callable[[bool], None] = lambda waiting: None
        #: Whether calls run as coroutines on the loop.
        self.concurrent = False

    def begin(self, call: Call) -> None:
        """A call starts."""
        call.serial = next(self._serials)

    def running(self) -> Call | None:
        return running_call.get()

    def current_task(self) -> int | None:
        call = running_call.get()
        return None if call is None else call.serial

    def before_wait(self) -> bool:
        if running_call.get() is None:
            return False
        if not self.concurrent and threading.current_thread() is not threading.main_thread():
            # A thread of the user's own: the task itself may well go on.
            return False
        self._waiting += 1
        if self._waiting == 1:
            self.on_waiting(True)
        return True

    def after_wait(self) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            self.on_waiting(False)
