"""The loop thread of a process whose main thread belongs to the user."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from ..exceptions import SessionClosedError
from .waiting import ThreadParker

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LoopThread:
    """An event loop on a daemon thread of its own, and the ways onto it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.Thread(target=self._run, name="asyncray-loop", daemon=True)
        #: Released when the thread has ended.
        self._ended = threading.Lock()
        self._ended.acquire()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._ended.release()

    def call(self, function: Callable[[], T]) -> T:
        """Run *function* on the loop and return what it returns; the calling thread waits.

        Raises:
            SessionClosedError: when the loop has ended.
        """
        done = threading.Lock()
        done.acquire()
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                outcome.append(function())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)
            done.release()

        try:
            self.loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise SessionClosedError("the session has been shut down") from error
        done.acquire()
        if failure:
            raise failure[0]
        return outcome[0]

    def try_call(self, function: Callable[[], object], timeout_s: float, *, patient: bool) -> None:
        """Run *function* on the loop, and wait for its end, which a callback of the user's may hold up.

        Args:
            function: What to run; what it raises is reported by the loop.
            timeout_s: Seconds to wait.
            patient: Whether a Ctrl-C may interrupt the wait.

        Raises:
            KeyboardInterrupt: when the wait is interrupted.
        """
        done = threading.Lock()
        done.acquire()

        def run() -> None:
            try:
                function()
            finally:
                done.release()

        self.loop.call_soon_threadsafe(run)
        _wait(done, timeout_s, patient=patient)

    def stop(self, timeout_s: float, *, patient: bool) -> None:
        """Stop the loop, wait for its thread, close the loop. Quiet when it was stopped before.

        Args:
            timeout_s: Seconds to wait for the thread, which is left alone after that.
            patient: Whether a Ctrl-C may interrupt the wait.

        Raises:
            KeyboardInterrupt: when the wait is interrupted.
        """
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        if _wait(self._ended, timeout_s, patient=patient):
            self._thread.join()
            self.loop.close()


def _wait(gate: threading.Lock, timeout_s: float, *, patient: bool) -> bool:
    return ThreadParker().park(gate, timeout_s) if patient else gate.acquire(timeout=timeout_s)
