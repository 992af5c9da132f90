"""Threads under virtual time: of the loop and all of them exactly one runs, and who is next is decided.

Synchronous tasks block, so each simulated worker needs a thread. But it runs only while the loop waits for
it: the loop hands the turn to a thread and gets it back when the thread parks (in `get`, `wait` or `sleep`)
or ends. A parked thread goes on when its gate is open or its virtual time is over.

Rule 1: nothing but park() gives the turn back; a thread that waits for anything else stops the world.
Rule 2: which of several threads that can go on does so first is drawn from the seed.
Rule 3: what a thread holds is dropped before its last turn ends, so that no destructor runs beside the loop.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from ..process import current

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable
    from contextvars import Context

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: How often a thread that is being ended may go on regardless, before that is an error.
_PATIENCE: Final = 1000


class Killed(BaseException):
    """The simulated process of this thread has ended: raised where the thread was parked."""


class TurnThread(threading.Thread):
    """A thread that runs only in its turns.

    Args:
        run: What it does.
        context: Where it does that.
        name: What it is called.
    """

    def __init__(self, run: Callable[[], None], context: Context, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.ended = False
        #: Its process has ended: whenever it would park, it is killed.
        self.doomed = False
        #: What it raised, when that ended it; None iff it ended well.
        self.failure: BaseException | None = None
        #: What it waits for while it is parked.
        self.gate: threading.Lock | None = None
        self.timeout_s: float | None = None
        self._work: Callable[[], None] | None = run
        self._place: Context | None = context
        self._turn = _closed_gate()
        self._back = _closed_gate()
        self._opened = False
        self._error: BaseException | None = None

    def take_turn(self, *, opened: bool, error: BaseException | None = None) -> None:
        """Let it run until it parks or ends. On the loop's thread.

        Args:
            opened: What park returns.
            error: What park raises instead.
        """
        self._opened, self._error = opened, error
        self._turn.release()
        self._back.acquire()

    def run(self) -> None:
        """What the thread does."""
        self._turn.acquire()
        try:
            if not self.doomed:
                self._place.run(self._work)  # type: ignore[union-attr, arg-type]
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - kept for who started the thread
            self.failure = error
        finally:
            self._work = self._place = None
            self.ended = True
            self._back.release()

    def park(self, gate: threading.Lock, timeout_s: float | None) -> bool:
        """Give the turn back until *gate* is open; False when the time is over first. In the thread itself.

        Raises:
            Killed: when the simulated process of the thread has ended.
        """
        if self.doomed:
            raise Killed
        if gate.acquire(blocking=False):
            return True
        self.gate, self.timeout_s = gate, timeout_s
        self._back.release()
        self._turn.acquire()
        self.gate = None
        error, self._error = self._error, None
        if error is None:
            return self._opened
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: together they would live on


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


class Turns:
    """Gives each thread its turns; watches their gates for the loop.

    Args:
        loop: The loop that all turns come from.
        rng: Decides who is first.
        on_end: Called with each thread that has ended.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        on_end: Callable[[TurnThread], None],
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._on_end = on_end
        #: Threads whose gate is closed, each with the timer that ends its patience.
        self._parked: dict[TurnThread, asyncio.TimerHandle | None] = {}
        #: Threads that will have a turn soon, and what park will raise in them.
        self._due: dict[TurnThread, BaseException | None] = {}

    def start(self, thread: TurnThread) -> None:
        """Start a thread; its first turn comes soon."""
        thread.start()
        self._schedule(thread, opened=False)

    def interrupt(self, thread: TurnThread, error: BaseException) -> None:
        """Raise *error* where a thread is parked. On the loop's thread; nothing when it has ended."""
        if thread in self._due:
            self._due[thread] = error
        elif thread in self._parked:
            self._unpark(thread)
            self._schedule(thread, opened=False)
            self._due[thread] = error

    def end(self, thread: TurnThread) -> None:
        """Kill a thread; it has ended when this returns. On the loop's thread.

        Raises:
            RuntimeError: when it goes on whatever is raised in it.
        """
        thread.doomed = True
        self._unpark(thread)
        self._due.pop(thread, None)
        for _ in range(_PATIENCE):
            if thread.ended:
                return
            self._give_turn(thread, opened=False, error=Killed())
            self._unpark(thread)
        raise RuntimeError(f"{thread.name} cannot be killed: it catches what is raised in it and goes on")

    # --- for the loop (Watcher) -----------------------------------------------------------------------------

    def look(self) -> bool:
        opened = [thread for thread in self._parked if thread.gate.acquire(blocking=False)]  # type: ignore[union-attr]
        if len(opened) > 1:
            self._rng.shuffle(opened)
        for thread in opened:
            self._unpark(thread)
            self._schedule(thread, opened=True)
        return bool(opened)

    def blocked(self) -> list[str]:
        frames = sys._current_frames()
        places = [(thread.name, _user_place(frames.get(thread.ident or 0))) for thread in self._parked]
        return [f"{name}: {place}" for name, place in places if place]

    # --- turns ----------------------------------------------------------------------------------------------

    def _schedule(self, thread: TurnThread, *, opened: bool) -> None:
        self._due[thread] = None
        # From whichever thread has the turn.
        self._loop.call_soon_threadsafe(self._go_on, thread, opened)

    def _go_on(self, thread: TurnThread, opened: bool) -> None:
        if thread in self._due:
            self._give_turn(thread, opened=opened, error=self._due.pop(thread))

    def _give_turn(self, thread: TurnThread, *, opened: bool, error: BaseException | None) -> None:
        thread.take_turn(opened=opened, error=error)
        if thread.ended:
            thread.join()
            self._on_end(thread)
            return
        timer = None
        if thread.timeout_s is not None:
            timer = self._loop.call_later(thread.timeout_s, self._time_is_over, thread)
        self._parked[thread] = timer

    def _unpark(self, thread: TurnThread) -> None:
        timer = self._parked.pop(thread, None)
        if timer is not None:
            timer.cancel()

    def _time_is_over(self, thread: TurnThread) -> None:
        self._parked.pop(thread)
        opened = thread.gate.acquire(blocking=False)  # type: ignore[union-attr]
        self._due[thread] = None
        self._go_on(thread, opened)


def _user_place(frame: Any) -> str:
    """Where a parked thread stands in code that is not asyncray's; "" when there is no such code."""
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE) and code.co_filename != threading.__file__:
            return f"{code.co_qualname} at {code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class TurnParker:
    """How the threads of a simulation wait; each session of it has this one."""

    def park(self, gate: threading.Lock, timeout: float | None) -> bool:
        thread = threading.current_thread()
        if not isinstance(thread, TurnThread):
            raise RuntimeError("in a simulation only synchronous tasks and cluster.run_blocking may wait")  # noqa: TRY004
        return thread.park(gate, timeout)


def sleep(seconds: float) -> None:
    """Let virtual time pass in a synchronous task of a simulation, which keeps its CPU meanwhile.

    `time.sleep` would stop the whole simulation for as long as it takes, and no virtual time would pass.

    Args:
        seconds: How long; 0 lets others have their turn.

    Raises:
        RuntimeError: outside a synchronous task of a simulation.
    """
    session = current().session
    parker = None if session is None else session.waits._parker
    if not isinstance(parker, TurnParker):
        raise RuntimeError("asyncray.testing.sleep is for synchronous tasks in a simulation")  # noqa: TRY004
    parker.park(_closed_gate(), seconds)
