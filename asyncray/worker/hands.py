"""Threads that run an actor's methods, where those are not coroutines and several run at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.waiting import Parker


class Hands:
    """Threads for as many jobs as there are at a time; one that has none waits for the next.

    Args:
        start_thread: Runs a function in a new thread that nobody waits for.
        parker: How a thread waits.
    """

    def __init__(self, start_thread: Callable[[Callable[[], None]], Any], parker: Parker) -> None:
        self._start_thread = start_thread
        self._parker = parker
        self._idle: list[_Hand] = []

    def do(self, job: Callable[[], None]) -> None:
        """Run a job, which must not raise, in a thread."""
        try:
            hand = self._idle.pop()
        except IndexError:
            hand = _Hand(job)
            self._start_thread(lambda: self._work(hand))
        else:
            hand.job = job
            hand.gate.release()

    def _work(self, hand: _Hand) -> None:
        while True:
            job, hand.job = hand.job, None
            if job is not None:
                job()
            del job
            self._idle.append(hand)
            self._parker.park(hand.gate, None)


class _Hand:
    """One thread: what it is to do, and the gate at which it waits for that."""

    __slots__ = ("gate", "job")

    def __init__(self, job: Callable[[], None]) -> None:
        self.job: Callable[[], None] | None = job
        self.gate = threading.Lock()
        self.gate.acquire()
