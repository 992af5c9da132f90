"""Waiting for outcomes: on a thread, on a loop, by callback."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any

from ..exceptions import GetTimeoutError
from ..state.objects import FAILED, ObjectRecord
from .waiting import Bell, Callback, Countdown, LoopCountdown, LoopPost, LoopWaiter, Parker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextvars import Context

    from .session import Session


class Waits:
    """How the threads and coroutines of one process wait for records."""

    def __init__(self, session: Session, parker: Parker) -> None:
        self._session = session
        self._owner = session.owner
        self._scope = session.scope
        self._clock = session.clock
        self._parker = parker
        self._posts: dict[asyncio.AbstractEventLoop, LoopPost] = {}

    def check_may_block(self, remedy: str) -> None:
        """Raise unless the calling thread may wait.

        Raises:
            RuntimeError: on a running event loop, or inside a destructor that interrupted asyncray itself.
        """
        if _get_running_loop() is not None:
            raise RuntimeError(f"this would block the running event loop; use {remedy} instead")
        if self._owner.lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("a destructor that interrupted asyncray cannot wait for results")

    def park(self, gate: Any, timeout: float | None) -> bool:
        """Wait for a gate, as a task that gives its CPU back while it does."""
        if timeout is not None and timeout <= 0:
            return bool(gate.acquire(blocking=False))
        waits = self._scope.before_wait()
        try:
            return self._parker.park(gate, timeout)
        finally:
            if waits:
                self._scope.after_wait()

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
            if left is not None and left <= 0 and timeout:
                raise timed_out(len(pending), timeout)
            if timeout != 0:
                self.check_may_block(remedy)
            self._wait_round(pending, timeout if timeout == 0 else left)

    def _wait_round(self, pending: list[ObjectRecord], timeout: float | None) -> None:
        countdown = Countdown(len(pending))
        self._register(pending, countdown)
        self._session.fetch(pending, whole=True)
        opened = False
        try:
            opened = self.park(countdown.gate, timeout)
        finally:
            if not opened:
                for record in pending:
                    self._owner.remove_waiter(record, countdown)
        if not opened:
            raise timed_out(len(pending), timeout)

    def register(self, record: ObjectRecord, waiter: Any) -> None:
        """Tell *waiter* when a record is done, at once when it is; fetches a borrowed one."""
        self._register([record], waiter)
        self._session.fetch([record], whole=True)

    def unregister(self, record: ObjectRecord, waiter: Any) -> None:
        """Do not tell it any more."""
        self._owner.remove_waiter(record, waiter)

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
            countdown = LoopCountdown(len(pending), waiter)
            self._register(pending, countdown)
            self._session.fetch(pending, whole=True)
            waits = self._scope.before_wait()
            try:
                await waiter.future
            except BaseException:
                for record in pending:
                    self._owner.remove_waiter(record, countdown)
                raise
            finally:
                if waits:
                    self._scope.after_wait()

    def _loop_waiter(self) -> LoopWaiter:
        loop = asyncio.get_running_loop()
        return LoopWaiter(loop.create_future(), self.post_to(loop))

    def post_to(self, loop: asyncio.AbstractEventLoop) -> LoopPost:
        """The way onto an event loop."""
        post = self._posts.get(loop)
        if post is None:
            # Loops that were closed go now: nothing can be posted to them any more.
            for old in [old for old in self._posts if old.is_closed()]:
                self._posts.pop(old, None)
            post = self._posts[loop] = LoopPost(loop)
        return post

    def watch(self, bell: Any) -> None:
        """Ring *bell* at every completion from now on."""
        with self._owner.lock:
            self._owner.watchers.append(bell)

    def unwatch(self, bell: Any) -> None:
        """Stop it."""
        with self._owner.lock:
            if bell in self._owner.watchers:
                self._owner.watchers.remove(bell)

    def new_bell(self) -> Bell:
        """A gate that the first completion opens."""
        return Bell()

    def new_loop_bell(self) -> LoopWaiter:
        """A future on the running loop that the first completion ends."""
        return self._loop_waiter()

    def add_callback(
        self, record: ObjectRecord, key: object, callback: Callable[[], object], context: Context | None
    ) -> None:
        """Call *callback* once when the record is done, on the loop that is running now, if any."""
        loop = _get_running_loop()
        post = None if loop is None else self.post_to(loop)
        self.register(record, Callback(key, callback, context, post))

    def remove_callback(self, record: ObjectRecord, key: object) -> int:
        """Forget the callbacks under *key*; return how many there were."""
        with self._owner.lock:
            waiters: list[Any] = record.waiters or []
            found = [w for w in waiters if isinstance(w, Callback) and w.key == key]
            for waiter in found:
                waiters.remove(waiter)
        return len(found)


def pending_of(records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """The records whose outcome is not here; none as soon as one of them has failed."""
    pending = []
    for record in records:
        if record.state <= 0:
            pending.append(record)
        elif record.state == FAILED:
            return []
    return pending


def timed_out(count: int, timeout: float | None) -> GetTimeoutError:
    """The error for a wait that was too long."""
    what = "the value is" if count == 1 else f"{count} values are"
    return GetTimeoutError(f"{what} not there after {timeout:g} s; the work goes on")
