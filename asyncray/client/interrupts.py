"""Ctrl-C: where a KeyboardInterrupt may be raised, and where it must wait.

Python runs a signal handler between any two bytecodes of the main thread. An exception raised there, in the
middle of an update of our tables, would tear them. So our handler looks at the interrupted code: in user
code, and in the few functions of ours that are marked (they wait, or run user code), it raises; in any other
code of ours it comes back a moment later, until it finds the thread at such a place.

It comes back by a signal of its own, not by another SIGINT: what is due is raised once, however often one
looks for a place. A worker's cancel comes by that way alone: SIGINT belongs to the tasks, which may handle,
ignore or send it, and leave a handler behind.
"""

from __future__ import annotations

import _thread
import functools
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from types import CodeType, FrameType

#: Where the code of this package is.
PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: Seconds after which an interrupt that found no place tries again; each further time twice as many.
_AGAIN_S: Final = 0.001
_AT_MOST_S: Final = 0.05
#: Code objects by identity: equal ones, of functions written twice, are not the same place.
_MARKED: Final[dict[int, CodeType]] = {}

F = TypeVar("F", bound=Callable[..., Any])


def interruptible(function: F) -> F:
    """Mark a function of ours in which an interrupt may be raised: nothing in it is left half done."""
    _MARKED[id(function.__code__)] = function.__code__
    return function


def is_ours(frame: FrameType) -> bool:
    """Whether a frame runs code of this package."""
    return frame.f_code.co_filename.startswith(PACKAGE)


def is_guarded(frame: FrameType) -> bool:
    """Whether a frame of ours is one that must not be interrupted."""
    return id(frame.f_code) not in _MARKED


def may_interrupt(frame: FrameType | None) -> bool:
    """Whether an exception may be raised where *frame* was interrupted."""
    while frame is not None:
        if is_ours(frame):
            return not is_guarded(frame)
        frame = frame.f_back
    return True


def signal_handlers() -> set[CodeType]:
    """The code of every handler of a signal that is written in Python."""
    codes = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        # An object that can be called has its code in its class.
        code = getattr(handler, "__code__", None) or getattr(
            vars(type(handler)).get("__call__"), "__code__", None
        )
        if code is not None:
            codes.add(code)
    return codes


def _start_thread(run: Callable[[], None]) -> None:
    """Run a function on a new thread; unlike `threading`, with no lock that the interrupted code may hold."""
    _thread.start_new_thread(run, ())


class Interrupts:
    """Raises KeyboardInterrupt in the main thread, once for each time it is asked, where that may be.

    The main thread is brought to look by a signal. That is sent again and again while something is due: the
    thread may be at a wrong place, and a signal that comes just as it goes to wait is not seen before the
    wait is over.

    Args:
        wanted: Whether an interrupt is meant for what runs now; when it is not, it is dropped.
        start_thread: Runs a function on a new thread.
    """

    def __init__(
        self,
        wanted: Callable[[], bool] = lambda: True,
        start_thread: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        self.wanted = wanted
        self._start_thread = start_thread
        #: Numbers of the interrupts that were asked for and neither raised nor dropped.
        self._due: dict[int, None] = {}
        self._numbers = itertools.count()
        #: The signal's number; 0 until it is installed.
        self._signal: Any = 0

    def install(self) -> None:
        """Take a signal that nobody uses. In the main thread; for good, because one may be on its way."""
        if not self._signal:
            # The last one is left to debuggers.
            numbers = range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1)
            self._signal = next(n for n in numbers if signal.getsignal(n) is signal.SIG_DFL)
            signal.signal(self._signal, lambda signum, frame: self._look(frame))

    def ask(self) -> None:
        """Interrupt the main thread. From any thread."""
        number = self._add()
        self._send()
        self._insist_on(number)

    def ask_at(self, frame: FrameType | None) -> None:
        """Interrupt the main thread, which a signal has just stopped at *frame*.

        Raises:
            KeyboardInterrupt: when that place will do.
        """
        number = self._add()
        self._look(frame)
        if number in self._due:
            self._insist_on(number)

    def _add(self) -> int:
        number = next(self._numbers)
        self._due[number] = None
        return number

    def _look(self, frame: FrameType | None) -> None:
        due = list(self._due)  # others may be added meanwhile: they are looked at by their own signal
        wanted = self.wanted()
        if not due or (wanted and not may_interrupt(frame)):
            return
        for number in due:
            self._due.pop(number, None)
        if wanted:
            raise KeyboardInterrupt

    def _insist_on(self, number: int) -> None:
        try:
            self._start_thread(lambda: self._insist(number))
        except RuntimeError:  # no thread to be had: it stays due, and the next signal looks for a place
            return

    def _insist(self, number: int) -> None:
        never = _thread.allocate_lock()
        never.acquire()
        wait_s = _AGAIN_S
        while number in self._due:
            never.acquire(timeout=wait_s)
            if number in self._due:
                self._send()
            wait_s = min(2 * wait_s, _AT_MOST_S)

    def _send(self) -> None:
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, self._signal)


class InterruptGuard:
    """The SIGINT handler of a driver or worker.

    Args:
        interrupts: What raises.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._installed = False

    def install(self) -> None:
        """Take SIGINT over, where that is ours to do: in the main thread, from Python's own handler."""
        if in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._interrupts.install()
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True

    def uninstall(self) -> None:
        """Give SIGINT back, unless somebody else has taken it since."""
        if not self._installed or not in_main_thread():
            return
        self._installed = False
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not _cancels_main_task(frame):
            self._interrupts.ask_at(frame)


def _cancels_main_task(frame: FrameType | None) -> bool:
    """Do as asyncio where `asyncio.run` runs: its first Ctrl-C cancels the main task, and raises nothing.

    Raised between two lines of a loop, an exception loses the callback that the loop has just taken, and the
    task that waits for that never ends. asyncio has a handler of its own for this, which it only installs
    where there is none but Python's; so it is called from here. Its second Ctrl-C is raised.

    Returns:
        Whether that is all that this signal does.
    """
    runners = sys.modules.get("asyncio.runners")
    if runners is None:
        return False
    run = runners.Runner.run.__code__
    while frame is not None and frame.f_code is not run:
        frame = frame.f_back
    if frame is None:
        return False
    names = frame.f_locals
    if "task" not in names:  # it is just starting
        return False
    try:
        names["self"]._on_sigint(signal.SIGINT, frame, names["task"])
    except KeyboardInterrupt:
        return False
    return True


def in_main_thread() -> bool:
    """Whether the calling thread is the one that signals interrupt."""
    return threading.current_thread() is threading.main_thread()
