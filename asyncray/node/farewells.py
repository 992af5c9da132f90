"""The end of a session, as far as workers own actors that want to clean up: they are asked to end those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..wire.frames import Message


class Farewells:
    """Asks who owns such actors, and answers the driver when all have answered, or died.

    Args:
        send: Sends a message to a process.
    """

    def __init__(self, send: Callable[[bytes, Message], None]) -> None:
        self._send = send
        #: Who owns actors that clean up, or has owned some.
        self._owners: set[bytes] = set()
        self._waiting: set[bytes] = set()
        self._answers: list[Callable[[], None]] = []

    def announced(self, process_id: bytes) -> None:
        """A process owns such actors."""
        self._owners.add(process_id)

    def begin(self, answer: Callable[[], None]) -> None:
        """The session ends: *answer* when all that want to have cleaned up."""
        self._answers.append(answer)
        for process_id in sorted(self._owners - self._waiting):
            self._waiting.add(process_id)
            self._send(process_id, [m.WIND_UP])
        self._check()

    def done(self, process_id: bytes) -> None:
        """A process has nothing left to clean up, or is dead."""
        self._waiting.discard(process_id)
        self._check()

    def gone(self, process_id: bytes) -> None:
        """A process is dead."""
        self._owners.discard(process_id)
        self.done(process_id)

    def _check(self) -> None:
        if not self._waiting:
            answers, self._answers = self._answers, []
            for answer in answers:
                answer()
