"""The loop thread of a process whose main thread belongs to the user."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from ..exceptions import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LoopThread:
    """An event loop on a daemon thread of its own, and the ways onto it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.Thread(target=self._run, name="asyncray-loop", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def is_current(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return threading.current_thread() is self._thread

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

    def stop(self) -> None:
        """Stop the loop, wait for its thread, close the loop. Quiet when it was stopped before."""
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
