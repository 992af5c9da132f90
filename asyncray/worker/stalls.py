"""Notices a coroutine that blocks its actor's loop, and names the line, once for each.

Only the loop knows that it is blocked, and cannot tell. So while calls run, a thread asks it for a sign of
life again and again; where none comes in time, the thread looks at where the loop's thread is.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType

_log = logging.getLogger("asyncray")
#: Seconds that a coroutine may keep the loop to itself.
LONGEST_S: Final = 0.1
_PACKAGE: Final = __name__.partition(".")[0]
#: Whose frames are no user's.
_LOOPS: Final = frozenset({_PACKAGE, "asyncio", "selectors", "uvloop", "threading"})
#: Functions of this package that call a user's; the last one runs the loop, and so a user's own tasks.
_DOORS: Final = frozenset({
    "call_user", "advance", "advance_async", "end_iteration", "_outcome", "run_stop_hook", "awaited",
    "_in_turns", "load", "decode", "succeeded", "_run_async",
})  # fmt: skip
#: Places that are named at most: a program that blocks everywhere has been told.
_MOST_PLACES: Final = 100


class StallWatch:
    """Watches one loop while calls run on it.

    Args:
        loop: The loop, which runs in the main thread.
        start_thread: Runs a function in a thread of its own.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        start_thread: Callable[[Callable[[], None]], object],
    ) -> None:
        self._loop = loop
        self._start_thread = start_thread
        self._running = 0
        #: Whether the watch waits for a call to start; else it will see by itself that one has.
        self._resting = False
        self._busy = threading.Event()
        #: The loop's answer to the last question for a sign of life.
        self._beat = threading.Event()
        self._started = False
        self._told: set[tuple[str, int]] = set()

    def begin(self) -> None:
        """A call starts. On the loop."""
        self._running += 1
        if self._resting:
            self._resting = False
            self._busy.set()
        elif not self._started:
            self._started = True
            self._start_thread(self._watch)

    def end(self) -> None:
        """A call has ended. On the loop."""
        self._running -= 1

    def _rest(self) -> None:
        """Wait for a call to start."""
        self._busy.clear()
        # In this order: a call that starts in between is seen here, or sees that somebody waits for it.
        self._resting = True
        if not self._running:
            self._busy.wait()
        self._resting = False

    def _watch(self) -> None:
        while True:
            self._rest()
            self._beat.clear()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # the loop is closed: the actor has ended
                return
            if not self._beat.wait(LONGEST_S):
                self._look()
                self._beat.wait()
            # Not again at once: a sign of life costs the loop a turn.
            _pause(LONGEST_S / 2)

    def _look(self) -> None:
        frame = _users(sys._current_frames().get(threading.main_thread().ident or 0))
        if frame is None:
            return
        code, line = frame.f_code, frame.f_lineno
        place = (code.co_filename, line)
        if place in self._told or len(self._told) >= _MOST_PLACES:
            return
        self._told.add(place)
        _log.warning(
            "a coroutine has blocked its actor's event loop for more than %g ms, and all other calls with "
            "it: %s at %s:%d. Await what it waits for, or use asyncio.to_thread",
            1000 * LONGEST_S,
            code.co_qualname,
            code.co_filename,
            line,
        )


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _users(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of a user's code; None without one.

    It is neither of this package nor of the standard library's loop, nor of what this package itself calls.
    """
    while frame is not None:
        if _room(frame) not in _LOOPS:
            door: FrameType | None = frame
            while door is not None and _room(door) != _PACKAGE:
                door = door.f_back
            if door is None:  # the program that this process was started with
                return None
            if door.f_code.co_name in _DOORS:
                return frame
            frame = door
        frame = frame.f_back
    return None


def _room(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
