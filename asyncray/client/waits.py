"""Waiting for outcomes: on a thread, on a loop, by callback."""

from __future__ import annotations

import asyncio
import functools
from asyncio import _get_running_loop
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..exceptions import GetTimeoutError
from ..state.objects import FAILED, PENDING, ObjectRecord
from .destructors import interrupts_us
from .waiting import (
    Callback,
    Countdown,
    LoopCountdown,
    LoopPost,
    LoopTally,
    LoopWaiter,
    Parker,
    Single,
    Tally,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextvars import Context

    from .session import Session
    from .waiting import What


class Waits:
    """How the threads and coroutines of one process wait for records."""

    def __init__(self, session: Session, parker: Parker) -> None:
        self._session = session
        self._owner = session.owner
        self._scope = session.scope
        self._clock = session.clock
        self._parker = parker
        self._posts: dict[asyncio.AbstractEventLoop, LoopPost] = {}
        #: The session's own; no call's.
        self._context = copy_context()

    def check_may_block(self, remedy: str) -> None:
        """Raise unless the calling thread may wait.

        Raises:
            RuntimeError: on a running event loop, or inside a destructor, or a handler of a signal, that
                interrupted asyncray itself.
        """
        loop = _get_running_loop()
        if loop is not None and loop is self._session.loop and not self._scope.concurrent:
            raise RuntimeError(
                "this runs on asyncray's own thread, which must not wait: it is a destructor, or a callback "
                "that was added without a running event loop; wait in a thread or a coroutine of your own"
            )
        if loop is not None:
            raise RuntimeError(f"this would block the running event loop; use {remedy} instead")
        if self._owner.lock._is_owned() or interrupts_us():  # type: ignore[attr-defined]
            raise RuntimeError(
                "a destructor, or a handler of a signal, that interrupted asyncray cannot wait for results"
            )

    def may_block(self) -> bool:
        """Whether the calling thread may wait."""
        try:
            self.check_may_block("")
        except RuntimeError:
            return False
        return True

    def park(self, gate: Any, timeout: float | None, what: What | None = None) -> bool:
        """Wait for a gate, as a task that gives its CPU back while it does."""
        if timeout is not None and timeout <= 0:
            return bool(gate.acquire(blocking=False))
        waiter = self._scope.before_wait(what)
        try:
            return self._parker.park(gate, timeout)
        finally:
            if waiter is not None:
                self._scope.after_wait(waiter)

    def wait_all(self, records: Sequence[ObjectRecord], timeout: float | None, remedy: str) -> None:
        """Park until all outcomes are here, or one is a failure.

        Raises:
            GetTimeoutError: when *timeout* seconds have passed.
        """
        deadline = None if timeout is None else self._clock() + timeout
        while True:
            pending = pending_of(records)
            if not pending:
                return
            left = None if deadline is None else deadline - self._clock()
            if timeout != 0:
                self.check_may_block(remedy)
            over = left is not None and left <= 0 and timeout
            if over or not self._wait_round(pending, timeout if timeout == 0 else left):
                raise timed_out(len(pending), timeout)

    def _wait_round(self, pending: list[ObjectRecord], timeout: float | None) -> bool:
        """Park until something is here that one waits for; False when there was no time left for it."""
        looked_at = one_of_each_task(pending)
        countdown = Countdown(len(looked_at)) if len(looked_at) > 1 else Single()
        opened = False
        self._register(looked_at, countdown)
        try:
            self._session.fetch(pending, whole=True)
            opened = self.park(countdown.gate, timeout, functools.partial(_all_of, pending))
        finally:
            # Also when the gate was opened: a failure opens it while others are pending.
            if not opened or len(looked_at) > 1:
                self._owner.remove_waiter(looked_at, countdown)
        return opened

    def register(self, record: ObjectRecord, waiter: Any) -> None:
        """Tell *waiter* when a record is done, at once when it is; fetches a borrowed one."""
        self._register([record], waiter)
        self._session.fetch([record], whole=True)

    def unregister(self, record: ObjectRecord, waiter: Any) -> None:
        """Do not tell it any more."""
        self._owner.remove_waiter([record], waiter)

    def _register(self, pending: Iterable[ObjectRecord], waiter: Any) -> None:
        add = self._owner.add_waiter
        with self._owner.lock:
            done = [record for record in pending if not add(record, waiter)]
        for record in done:
            waiter.notify(record)

    async def wait_all_async(self, records: Sequence[ObjectRecord]) -> None:
        """Wait on the running loop until all outcomes are here, or one is a failure."""
        while pending := pending_of(records):
            waiter = self._loop_waiter()
            looked_at = one_of_each_task(pending)
            several = len(looked_at) > 1
            countdown = LoopCountdown(len(looked_at), waiter) if several else waiter
            self._register(looked_at, countdown)
            told = False
            try:
                self._session.fetch(pending, whole=True)
                await self.suspend(waiter.future, functools.partial(_all_of, pending))
                told = True
            finally:
                # Also when it was told: a failure tells it while others are pending.
                if several or not told:
                    self._owner.remove_waiter(looked_at, countdown)

    async def suspend(self, future: asyncio.Future[None], what: What | None = None) -> None:
        """Await a future, as a task that gives its CPU back while it does."""
        waiter = self._scope.before_wait(what)
        try:
            await future
        finally:
            if waiter is not None:
                self._scope.after_wait(waiter)

    def _loop_waiter(self) -> LoopWaiter:
        loop = asyncio.get_running_loop()
        return LoopWaiter(loop.create_future(), self.post_to(loop))

    def post_to(self, loop: asyncio.AbstractEventLoop) -> LoopPost:
        """The way onto an event loop."""
        post = self._posts.get(loop)
        if post is None:
            # Loops that were closed go now: nothing can be posted to them any more.
            for old in list(self._posts):
                if old.is_closed():
                    self._posts.pop(old, None)
            post = self._posts.setdefault(loop, LoopPost(loop, self._context))
        return post

    def watch(self, tally: Tally) -> None:
        """Tell *tally* of every completion from now on."""
        with self._owner.lock:
            self._owner.watchers.append(tally)

    def unwatch(self, tally: Tally) -> None:
        """Stop it."""
        with self._owner.lock:
            self._owner.watchers.remove(tally)

    def new_tally(self) -> Tally:
        """A gate that some number of completions opens."""
        return Tally()

    def new_loop_tally(self) -> LoopTally:
        """A future on the running loop that some number of completions ends."""
        return LoopTally(self.post_to(asyncio.get_running_loop()))

    def new_loop_bell(self) -> LoopWaiter:
        """A future on the running loop that the first notice ends."""
        return self._loop_waiter()

    def add_callback(
        self, record: ObjectRecord, key: object, callback: Callable[[], object], context: Context | None
    ) -> None:
        """Call *callback* once when the record is done, on the loop that is running now, if any."""
        loop = _get_running_loop()
        post = None if loop is None else self.post_to(loop)
        if context is None:
            context = copy_context()
        waiting = Callback(key, callback, context, post)
        if loop is not None:
            self._count_as_wait(record, waiting)
        self.register(record, waiting)

    def add_direct_callback(self, record: ObjectRecord, key: object, callback: Callable[[], object]) -> None:
        """Call *callback* once when the record is done, in the thread that completes it."""
        waiting = Callback(key, callback, copy_context(), None)
        self._count_as_wait(record, waiting)
        self.register(record, waiting)

    def _count_as_wait(self, record: ObjectRecord, callback: Callback) -> None:
        """A task that adds a callback on its loop, or makes a future, is going to wait for that."""
        if record.state != PENDING:
            return
        waiter = self._scope.before_wait(functools.partial(_all_of, [record]))
        if waiter is not None:
            callback.at_end = lambda: self._scope.after_wait(waiter)

    def remove_callback(self, record: ObjectRecord, key: object) -> int:
        """Forget the callbacks under *key*; return how many there were."""
        with self._owner.lock:
            waiters: list[Any] = record.waiters or []
            found = [w for w in waiters if isinstance(w, Callback) and w.key == key]
            for waiter in found:
                waiters.remove(waiter)
            record.waiters = waiters or None
        for waiter in found:
            waiter.end()
        return len(found)


def _all_of(records: Sequence[ObjectRecord]) -> tuple[list[ObjectRecord], int]:
    """What a wait for all of *records* still waits for."""
    left = [record for record in records if record.state <= 0]
    return left, len(left)


def pending_of(records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """The records whose outcome is not here; none as soon as one of them has failed."""
    pending = []
    for record in records:
        if record.state <= 0:
            pending.append(record)
        elif record.state == FAILED:
            return []
    return pending


def one_of_each_task(pending: Sequence[ObjectRecord]) -> Sequence[ObjectRecord]:
    """Records that are done when all of *pending* are: the returns of a task are done together."""
    if len(pending) < 2 or pending[0].task is None or pending[0].task is not pending[1].task:
        return pending
    return list({record.task or record: record for record in pending}.values())


def timed_out(count: int, timeout: float | None) -> GetTimeoutError:
    """The error for a wait that was too long."""
    what = "the value is" if count == 1 else f"{count} values are"
    return GetTimeoutError(f"{what} not there after {timeout:g} s; the work goes on")
