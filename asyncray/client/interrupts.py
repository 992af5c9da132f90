"""Ctrl-C: where a KeyboardInterrupt may be raised, and where it must wait.

Python runs a signal handler between any two bytecodes of the main thread. An exception raised there, in the
middle of an update of our tables, would tear them. So the one SIGINT handler looks at the interrupted code:
in user code, and in the few functions of ours that are marked (they wait, or run user code), it raises; in
any other code of ours it comes back a moment later, until it finds the thread at such a place.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from types import CodeType, FrameType

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: Seconds after which a deferred interrupt tries again.
_AGAIN_S: Final = 0.001
#: Code objects by identity: equal ones, of functions written twice, are not the same place.
_MARKED: Final[dict[int, CodeType]] = {}

F = TypeVar("F", bound=Callable[..., Any])


def interruptible(function: F) -> F:
    """Mark a function of ours in which an interrupt may be raised: nothing in it is left half done."""
    _MARKED[id(function.__code__)] = function.__code__
    return function


def may_interrupt(frame: FrameType | None) -> bool:
    """Whether an exception may be raised where *frame* was interrupted."""
    while frame is not None:
        code = frame.f_code
        if id(code) in _MARKED:
            return True
        if code.co_filename.startswith(_PACKAGE):
            return False
        frame = frame.f_back
    return True


class InterruptGuard:
    """The SIGINT handler of a driver or worker.

    Args:
        again: Arranges that the given function is called after so many seconds, on another thread.
        wanted: Whether an interrupt is meant for what runs now; a worker's cancel asks this.
    """

    def __init__(
        self,
        again: Callable[[float, Callable[[], None]], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._again = again
        self._wanted = wanted
        self._previous: Any = None
        self._installed = False

    def install(self) -> None:
        """Take SIGINT over, where that is ours to do: in the main thread, from Python's own handler."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True

    def uninstall(self) -> None:
        """Give SIGINT back, unless somebody else has taken it since."""
        if not self._installed or threading.current_thread() is not threading.main_thread():
            return
        self._installed = False
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._wanted():
            return
        if may_interrupt(frame):
            raise KeyboardInterrupt
        self._again(_AGAIN_S, interrupt_main)


def interrupt_main() -> None:
    """Send SIGINT to this process's main thread, which interrupts a wait or a sleep there."""
    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, signal.SIGINT)
