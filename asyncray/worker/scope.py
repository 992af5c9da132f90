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


def in_main_thread() -> bool:
    """Whether the calling thread is the process's main one."""
    return threading.current_thread() is threading.main_thread()


class WorkerScope(TaskScope):
    """Tells the node when the worker's calls wait for others, so that its CPU is of use in the meantime."""

    def __init__(self, in_task_thread: Callable[[], bool] = in_main_thread) -> None:
        #: Whether the calling thread is the one that runs the calls.
        self._in_task_thread = in_task_thread
        self._serials = itertools.count(1)
        #: How often each call waits now; those that do not are not in it.
        self._waiting: dict[Call, int] = {}
        # A call's waits begin in its own thread, but may end in any. A destructor may wait, too.
        self._lock = threading.RLock()
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

    def before_wait(self) -> Call | None:
        call = running_call.get()
        if call is None:
            return None
        if not self.concurrent and not self._in_task_thread():
            # A thread of the user's own: the task itself may well go on.
            return None
        with self._lock:
            waiting = self._waiting
            waiting[call] = waiting.get(call, 0) + 1
            if len(waiting) == 1 and waiting[call] == 1:
                self.on_waiting(True)
        return call

    def after_wait(self, waiter: Call) -> None:
        with self._lock:
            waits = self._waiting.pop(waiter, 0)
            if waits > 1:
                self._waiting[waiter] = waits - 1
            elif waits and not self._waiting:
                self.on_waiting(False)

    def end(self, call: Call) -> None:
        """A call has ended. Of what it left behind (a callback, a future) it does not wait any more."""
        if call not in self._waiting:
            return
        with self._lock:
            if self._waiting.pop(call, 0) and not self._waiting:
                self.on_waiting(False)
