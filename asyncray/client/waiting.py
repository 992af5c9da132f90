"""Waiting for records: threads that park, futures on loops, callbacks.

Every waiter has one method, ``notify(record)``, called once per record it was registered on, outside the
owner's lock, by the thread that completed the record.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from ..state.objects import FAILED, REMOTE, ObjectRecord
from .interrupts import in_main_thread, interruptible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextvars import Context


_log = logging.getLogger("asyncray")


class Waiter(Protocol):
    """Something that is told when a record is done."""

    def notify(self, record: ObjectRecord) -> None:
        """The record is done."""


#: Says what somebody waits for: the records, those that are done left out, and how many of them are enough.
What: TypeAlias = "Callable[[], tuple[Sequence[ObjectRecord], int]]"


class Parker(Protocol):
    """How a thread waits; the simulation has one of its own."""

    def park(self, gate: threading.Lock, timeout: float | None) -> bool:
        """Wait until *gate* is released by another thread; False when *timeout* (seconds) ran out first."""


class ThreadParker:
    """A thread waits on a lock, which a signal can interrupt."""

    @interruptible
    def park(self, gate: threading.Lock, timeout: float | None) -> bool:
        return gate.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))


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


class Single:
    """Opens its gate when its one record is done: what a single call is waited for with."""

    __slots__ = ("gate",)

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()

    def notify(self, record: ObjectRecord) -> None:
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


class Tally:
    """Hears of every completion of its process, and opens its gate when so many have come.

    Only so many of the records that somebody waits for can be done then: who misses three looks again after
    three. That costs the records nothing, however many they are. Who was woken in vain can name those that
    count from then on.
    """

    __slots__ = ("_lock", "_target", "gate", "heard", "only")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        #: Completions so far.
        self.heard = 0
        #: The records that count; None for all.
        self.only: set[ObjectRecord] | None = None
        self._lock = threading.Lock()
        self._target = 0

    def notify(self, record: ObjectRecord) -> None:
        if self.only is not None and record not in self.only:
            return
        with self._lock:
            self.heard += 1
            if self.heard != self._target:
                return
        self._ring()

    def arm(self, target: int) -> bool:
        """Ring at the *target*-th completion; False when that is past."""
        with self._lock:
            self._target = target
            return self.heard < target

    def _ring(self) -> None:
        self.gate.release()


class LoopPost:
    """Brings calls onto one event loop, all that come at about the same time with one wake-up.

    They run in the session's context, not in that of whoever came first: a timer that one of them sets would
    keep the values of that context alive, and the next timer in its turn.
    """

    __slots__ = ("_calls", "_context", "_posted", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.loop = loop
        self._context = context
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._posted = False

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        """Run *call* on the loop soon. A loop that is closed is skipped."""
        self._calls.append((call, arguments))
        if self._posted and not self.loop.is_closed():
            return
        self._posted = True
        try:
            self.loop.call_soon_threadsafe(self._run, context=self._context.copy())
        except RuntimeError:  # the loop was closed: nobody is left who waits on it
            self._calls.clear()
            self._posted = False

    def _run(self) -> None:
        # Cleared first: what is appended from here on posts again, so nothing is left behind.
        self._posted = False
        calls = self._calls
        # Those alone that are there now: callbacks that add callbacks must let the loop turn.
        for _ in range(len(calls)):
            call, arguments = calls.popleft()
            try:
                call(*arguments)
            except (KeyboardInterrupt, SystemExit):  # they stop the loop, as they do out of any callback
                self.loop.call_soon(self._run)
                raise
            except BaseException as error:  # noqa: BLE001 - a user's callback; the loop's handler reports it
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


class LoopTally(Tally):
    """A tally that ends a future instead of opening a gate."""

    __slots__ = ("_post", "future")

    def __init__(self, post: LoopPost) -> None:
        super().__init__()
        self._post = post
        #: Made by arm.
        self.future: asyncio.Future[None]

    def arm(self, target: int) -> bool:
        self.future = self._post.loop.create_future()
        return super().arm(target)

    def _ring(self) -> None:
        self._post.post(_finish, self.future)


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

    __slots__ = ("_call", "_context", "_post", "at_end", "key")

    def __init__(
        self, key: object, call: Callable[[], object], context: Context, post: LoopPost | None
    ) -> None:
        #: What the function is known by, for its removal.
        self.key = key
        #: Called before the function is, or when it is removed.
        self.at_end: Callable[[], object] | None = None
        self._call = call
        self._context = context
        self._post = post

    def notify(self, record: ObjectRecord) -> None:
        if record.state == REMOTE:
            # Somebody had asked only whether the value is there. Now it is wanted.
            record.owner.session.waits.register(record, self)
        elif self._post is None:
            self._run_guarded()
        else:
            self._post.post(self._run)

    def end(self) -> None:
        """Nobody waits for this any more."""
        if self.at_end is not None:
            self.at_end()

    def _run(self) -> None:
        self.end()
        _call_user(self._context, self._call)

    def _run_guarded(self) -> None:
        """Run it at once; deep inside of other callbacks, when the outermost of this thread is over."""
        if len(_nested.running) >= _DEEPEST:
            _nested.put_off.append(self)
            return
        _nested.running.append(self)
        try:
            self._run_reported()
        finally:
            _nested.running.pop()
        while _nested.put_off and not _nested.running:
            _nested.put_off.popleft()._run_guarded()

    def _run_reported(self) -> None:
        """Run it between others that must be told, too: what it raises is reported here."""
        try:
            self._run()
        except BaseException as error:  # SystemExit too: it must not end the thread of all callbacks
            if isinstance(error, KeyboardInterrupt) and in_main_thread():
                raise
            _log.exception("a callback of an ObjectRef raised")


class _Nested(threading.local):
    """The callbacks of one thread inside each other: what they wait for was done when they were added."""

    def __init__(self) -> None:
        self.running: list[Callback] = []
        self.put_off: deque[Callback] = deque()


_nested = _Nested()
#: Callbacks inside each other, at most: a chain of calls that are quick would end at the recursion limit.
_DEEPEST: Final = 32


@interruptible
def _call_user(context: Context, call: Callable[[], object]) -> None:
    context.run(call)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
