"""What a worker knows of the call that is running: for its children, its context and its waits."""

from __future__ import annotations

import itertools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from ..client.session import TaskScope

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.waiting import What
    from .calls import Call

#: The call that the running code belongs to; a coroutine's own where there are many.
running_call: Final[ContextVar[Call | None]] = ContextVar("asyncray_call", default=None)


def in_main_thread() -> bool:
    """Whether the calling thread is the process's main one."""
    return threading.current_thread() is threading.main_thread()


class CallWait:
    """One wait of a call."""

    __slots__ = ("call", "number", "since", "what")

    def __init__(self, call: Call, number: int, what: What | None, since: float) -> None:
        self.call = call
        #: Different for each wait of a worker.
        self.number = number
        #: Says what for; None for what no task makes.
        self.what = what
        #: Seconds on the session's clock.
        self.since = since


class CallWaits:
    """All waits of one call at a time: a coroutine can have several."""

    __slots__ = ("changed_at", "told", "waits")

    def __init__(self) -> None:
        self.waits: dict[CallWait, None] = {}
        #: When the last one began or ended.
        self.changed_at = 0.0
        #: Whether it was told that the call stands still, with these very waits.
        self.told = False


class WorkerScope(TaskScope):
    """Tells the node when the worker's calls wait for others, so that its CPU is of use in the meantime."""

    def __init__(self, in_task_thread: Callable[[], bool] = in_main_thread) -> None:
        #: Whether the calling thread is the one that runs the calls.
        self._in_task_thread = in_task_thread
        self._serials = itertools.count(1)
        self._wait_numbers = itertools.count(1)
        #: The waits of each call now; calls that do not wait are not in it.
        self._waiting: dict[Call, CallWaits] = {}
        # A call's waits begin in its own thread, but may end in any. A destructor may wait, too.
        self._lock = threading.RLock()
        #: Called with True when the first call begins to wait, with False when none does any more.
        self.on_waiting: Callable[[bool], None] = lambda waiting: None
        #: Whether calls run as coroutines on the loop.
        self.concurrent = False
        #: Called when calls that wait should be looked at once they have waited for long.
        self.on_change: Callable[[], None] = lambda: None
        #: Whether they will be: on_change need not be called then.
        self.watched = True

    def begin(self, call: Call) -> None:
        """A call starts."""
        call.serial = next(self._serials)

    def running(self) -> Call | None:
        return running_call.get()

    def current_task(self) -> int | None:
        call = running_call.get()
        return None if call is None else call.serial

    def before_wait(self, what: What | None = None) -> CallWait | None:
        call = running_call.get()
        if call is None:
            return None
        if not self.concurrent and not self._in_task_thread():
            # A thread of the user's own: the task itself may well go on.
            return None
        wait = CallWait(call, next(self._wait_numbers), what, self.clock())
        with self._lock:
            waiting = self._waiting
            waits = waiting.get(call)
            if waits is None:
                waits = waiting[call] = CallWaits()
                if len(waiting) == 1:
                    self.on_waiting(True)
            waits.waits[wait] = None
            self._changed(waits, wait.since)
        return wait

    def after_wait(self, waiter: CallWait) -> None:
        with self._lock:
            waits = self._waiting.get(waiter.call)
            if waits is None or waits.waits.pop(waiter, waiter) is not None:
                return
            if waits.waits:
                self._changed(waits, self.clock())
                return
            del self._waiting[waiter.call]
            if not self._waiting:
                self.on_waiting(False)

    def _changed(self, waits: CallWaits, now: float) -> None:
        waits.changed_at = now
        waits.told = False
        if not self.watched:
            self.watched = True
            self.on_change()

    def stalled(self, since: float) -> tuple[bool, float | None]:
        """Look for calls that wait for the same since *since*, on the session's clock, or longer.

        Returns:
            Whether there are any that were not found before; when the oldest of the others began to wait for
            what it waits for now, None for none. In that case nothing is watched any more.
        """
        with self._lock:
            untold = [waits for waits in self._waiting.values() if not waits.told]
            stalled = [waits for waits in untold if waits.changed_at <= since]
            for waits in stalled:
                waits.told = True
            left = [waits.changed_at for waits in untold if not waits.told]
            self.watched = bool(left)
            return bool(stalled), min(left, default=None)

    def waits_of(self, call: Call) -> list[CallWait]:
        """What a call waits for now, in the order in which it began to; from any thread."""
        with self._lock:
            waits = self._waiting.get(call)
            return [] if waits is None else list(waits.waits)

    def end(self, call: Call) -> None:
        """A call has ended. Of what it left behind (a callback, a future) it does not wait any more."""
        if call not in self._waiting:
            return
        with self._lock:
            if self._waiting.pop(call, None) and not self._waiting:
                self.on_waiting(False)
