"""Virtual time: an event loop whose clock jumps instead of waiting.

Rule 1: time moves only when no task can run, and then straight to the next timer. An hour of `asyncio.sleep`
    costs microseconds, and two runs of a program see the same times.
Rule 2: when no task can run and no timer is pending, nothing will ever happen again. That is an error at
    once, `DeadlockError`, and no hang.
Rule 3: only this loop's own work is seen. Time jumps past work in other threads, in other processes and on
    real networks, so a program under virtual time uses none of them: `run_in_executor` and
    `asyncio.to_thread` run their function inline, connections come from an in-memory network.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from types import CodeType

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

#: Blocked tasks that a `DeadlockError` names; of the others it gives the number.
_NAMED_TASKS = 20


class DeadlockError(RuntimeError):
    """Every task is blocked and no timer is pending: the program would wait for ever.

    The fault is the program's; to run it again changes nothing. The message names the blocked tasks and where
    each of them waits.
    """


class Watcher(Protocol):
    """Something that the loop itself does not see, and that may have work for it."""

    def look(self) -> bool:
        """Give the loop what there is to do (`call_soon`); return whether there was anything."""

    def blocked(self) -> list[str]:
        """Describe what waits here, a line each, for the message of a DeadlockError."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time.

    Use it wherever a loop factory is taken: `asyncio.Runner(loop_factory=VirtualLoop)`.

    Args:
        start: What the clock shows at first, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._watchers: list[Watcher] = []
        super().__init__(_JumpSelector(self))
        self._widen_resolution()

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "running" if self.is_running() else "idle"
        return f"<VirtualLoop {state} at {self._now:g} s>"

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Args], _T],
        *args: *_Args,
    ) -> asyncio.Future[_T]:
        """Run `func(*args)` here and now; virtual time stands still meanwhile.

        Args:
            executor: Ignored: the work of another thread would be out of the clock's sight.
            func: What to call.
            *args: What to call it with.

        Returns:
            A future that already holds the result, or the exception.
        """
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits the future gets it
            future.set_exception(error)
        return future

    def add_watcher(self, watcher: Watcher) -> None:
        """Ask *watcher* in every turn, before time may move, whether it has found something to do."""
        self._watchers.append(watcher)

    def remove_watcher(self, watcher: Watcher) -> None:
        """Ask it no more."""
        self._watchers.remove(watcher)

    def _jump(self, seconds: float) -> None:
        """Move the clock forward, after the selector found nothing to do for so long."""
        self._now += seconds
        self._widen_resolution()

    def _widen_resolution(self) -> None:
        """Keep the loop's resolution above the spacing of floats around the time.

        A timer is due when it lies before `time() + resolution`. Past 2**24 seconds the default of a
        nanosecond vanishes in that sum: a timer due now would never be due, and the loop would spin.
        """
        self._clock_resolution = max(1e-9, 2 * math.ulp(self._now))


class _JumpSelector(selectors.DefaultSelector):
    """A selector that never waits: where it would, it moves its loop's clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, or else jump ahead by `timeout` seconds.

        Raises:
            DeadlockError: When nothing is ready and no timer is pending.
        """
        events = super().select(0)
        found = [watcher.look() for watcher in self._loop._watchers]
        if events or timeout == 0 or any(found):
            return events
        if timeout is None:
            raise DeadlockError(_describe_deadlock(self._loop))
        self._loop._jump(timeout)
        return events


def _describe_deadlock(loop: VirtualLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    lines = [f"at {loop.time():g} s every task is blocked and no timer is pending"]
    lines += [f"  {task.get_name()}: {_waits_at(task)}" for task in tasks[:_NAMED_TASKS]]
    if len(tasks) > _NAMED_TASKS:
        lines.append(f"  and {len(tasks) - _NAMED_TASKS} more")
    lines += [f"  {line}" for watcher in loop._watchers for line in watcher.blocked()]
    return "\n".join(lines)


def _waits_at(task: asyncio.Task[Any]) -> str:
    """Return where a task is suspended: its coroutine, and the innermost await that it stands at."""
    frames = list(_await_chain(task.get_coro()))
    if not frames:
        return "not started, or waiting inside a foreign awaitable"
    names = " > ".join(code.co_qualname for code, _ in frames)
    code, line = frames[-1]
    return f"{names} at {code.co_filename}:{line}"


def _await_chain(awaitable: object) -> Iterator[tuple[CodeType, int]]:
    """Yield code and line of each coroutine, from the outermost to the one that is suspended."""
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is None:
            return
        yield frame.f_code, frame.f_lineno
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
