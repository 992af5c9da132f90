"""Questions to the node, and its answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError, RaySystemError
from ..wire import messages as m
from .waiting import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session


class Questions:
    """What a process has asked its node and not heard yet."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: dict[int, Callable[[Any], None]] = {}
        self._numbers = itertools.count(1)

    def answered(self, number: int, answer: Any) -> None:
        """The node has answered. On the loop.

        Raises:
            ProtocolError: when nobody asked, or that is no answer.
        """
        callback = self._asked.pop(number, None)
        if callback is None:
            raise ProtocolError("the node answered a question that nobody asked")
        try:
            callback(answer)
        except ProtocolError:
            # The connection ends with that: who asked hears of it.
            self._asked[number] = callback
            raise

    def fail(self, error: Exception) -> None:
        """Nothing will be answered any more."""
        asked, self._asked = self._asked, {}
        for callback in asked.values():
            callback(error)

    def ask(self, question: str, argument: Any, answer: Callable[[Any], None]) -> None:
        """Ask the node; *answer* gets what it says, or the exception that ended the session.

        Raises:
            RaySystemError: when the session has ended.
        """
        number = next(self._numbers)
        self._session.check_alive()
        self._asked[number] = answer
        self._session.control.send([m.ASK, number, question, argument])

    def blocking(self, question: str, argument: Any = None, remedy: str = "") -> Any:
        """Ask the node and wait for its answer; *remedy* is what a coroutine does instead."""
        self._session.waits.check_may_block(remedy or f"`await asyncray.aio.{question}()`")
        bell = Bell()
        said: list[Any] = []

        def answer(value: Any) -> None:
            said.append(value)
            bell.notify(None)

        self.ask(question, argument, answer)
        self._session.waits.park(bell.gate, None)
        return _unless_error(said[0])

    async def awaited(self, question: str, argument: Any = None) -> Any:
        """Ask the node and await its answer."""
        waiter = self._session.waits.new_loop_bell()
        said: list[Any] = []

        def answer(value: Any) -> None:
            said.append(value)
            waiter.notify(None)

        self.ask(question, argument, answer)
        await waiter.future
        return _unless_error(said[0])


def _unless_error(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    if isinstance(value, dict) and "error" in value:
        raise RaySystemError(str(value["error"]))
    return value
