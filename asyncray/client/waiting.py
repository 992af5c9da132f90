"""Waiting for records: threads that park, futures on loops, callbacks.

Every waiter has one method, ``notify(record)``, called once per record it was registered on, outside the
owner's lock, by the thread that completed the record.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..state.objects import FAILED, ObjectRecord
from .interrupts import interruptible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextvars import Context


class Waiter(Protocol):
    """Something that is told when a record is done."""

    def notify(self, record: ObjectRecord) -> None:
        """The record is done."""


class Parker(Protocol):
    """How a thread waits; the simulation has one of its own."""

    def park(self, gate: threading.Lock, timeout: float | None) -> bool:
        """Wait until *gate* is released by another thread; False when *timeout* (seconds) ran out first."""


class ThreadParker:
    """A thread waits on a lock, which a signal can interrupt."""

    @interruptible
    def park(self, gate: threading.Lock, timeout: float | None) -> bool:
        return gate.acquire(timeout=-1 if timeout is None else timeout)


class Countdown:
    """Opens its gate when every record is done, or at the first one that failed."""

    __slots__ = ("_lock", "_remaining", "gate")

    def __init__(self, count: int) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self._lock = threading.Lock()
        self._remaining = count

    def notify(self, record: ObjectRecord) -> None:
        with self._lock:
            if self._remaining <= 0:
                return
            self._remaining = 0 if record.state == FAILED else self._remaining - 1
            if self._remaining:
                return
        self.gate.release()


class Bell:
    """Opens its gate at the first notice, once."""

    __slots__ = ("_rung", "gate")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self._rung = False

    def notify(self, record: ObjectRecord | None) -> None:
        if not self._rung:
            self._rung = True
            with contextlib.suppress(RuntimeError):  # two completions at once: the gate is open already
                self.gate.release()


class LoopPost:
    """Brings calls onto one event loop, all that come at about the same time with one wake-up."""

    __slots__ = ("_calls", "_posted", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._posted = False

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        """Run *call* on the loop soon. A loop that is closed is skipped."""
        self._calls.append((call, arguments))
        if self._posted:
            return
        self._posted = True
        try:
            self.loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # the loop was closed: nobody is left who waits on it
            self._calls.clear()
            self._posted = False

    def _run(self) -> None:
        # Cleared first: what is appended from here on posts again, so nothing is left behind.
        self._posted = False
        calls = self._calls
        while calls:
            call, arguments = calls.popleft()
            try:
                call(*arguments)
            except Exception as error:  # noqa: BLE001 - a user's callback; the loop's handler reports it
                self.loop.call_exception_handler(
                    {"message": "a callback of an ObjectRef raised", "exception": error}
                )


class LoopWaiter:
    """Ends a future on its own loop."""

    __slots__ = ("future", "post")

    def __init__(self, future: asyncio.Future[None], post: LoopPost) -> None:
        self.future = future
        self.post = post

    def notify(self, record: ObjectRecord | None) -> None:
        self.post.post(_finish, self.future)


class LoopCountdown(Countdown):
    """A countdown that ends a future instead of opening a gate."""

    __slots__ = ("_waiter",)

    def __init__(self, count: int, waiter: LoopWaiter) -> None:
        super().__init__(count)
        self._waiter = waiter

    def notify(self, record: ObjectRecord) -> None:
        super().notify(record)
        if not self.gate.locked():
            self._waiter.notify(record)


class Callback:
    """Calls a function once, on the loop that registered it, or here when there was none."""

    __slots__ = ("_call", "_context", "_post", "key")

    def __init__(
        self, key: object, call: Callable[[], object], context: Context | None, post: LoopPost | None
    ) -> None:
        #: What the function is known by, for its removal.
        self.key = key
        self._call = call
        self._context = context
        self._post = post

    def notify(self, record: ObjectRecord) -> None:
        if self._post is None:
            self._run()
        else:
            self._post.post(self._run)

    def _run(self) -> None:
        if self._context is None:
            self._call()
        else:
            self._context.run(self._call)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
