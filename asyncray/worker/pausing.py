"""How a stream that a thread produces pauses until its reader has read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ..client.waiting import Bell

if TYPE_CHECKING:
    import threading

    from ..client.surroundings import TaskScope
    from ..client.waiting import Parker
    from .calls import Call

#: Seconds of a pause after which a stream counts as waiting, and its CPU is free.
PAUSE_S: Final = 0.001


class ThreadPauses:
    """Parks threads that produce streams. One for all calls of a worker.

    Args:
        parker: How a thread waits.
        scope: Hears of pauses that last, as of any other wait of a call.
    """

    def __init__(self, parker: Parker, scope: TaskScope) -> None:
        self._parker = parker
        self._scope = scope

    def pause(self, call: Call) -> None:
        """Wait until the reader has read, or the call is cancelled. In the call's own thread."""
        flow = call.flow
        assert flow is not None
        while not call.cancelled and not flow.may_go_on():
            if flow.is_over():
                call.cancelled = True
                return
            bell = Bell()
            flow.on_credit = partial(bell.notify, None)
            # Looked at once more: what came before the bell was there has not rung it.
            if not call.cancelled and not flow.may_go_on() and not flow.is_over():
                self._park(bell.gate)
            flow.on_credit = None

    def _park(self, gate: threading.Lock) -> None:
        if self._parker.park(gate, PAUSE_S):
            return
        waiter = self._scope.before_wait()
        try:
            self._parker.park(gate, None)
        finally:
            if waiter is not None:
                self._scope.after_wait(waiter)


def wake(call: Call) -> None:
    """A call has been cancelled: if it pauses, it sees that now. On the loop."""
    ring = None if call.flow is None else call.flow.on_credit
    if ring is not None:
        ring()
