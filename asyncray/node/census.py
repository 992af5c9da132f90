"""Which objects there are in the session: a question to every process, and their answers together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..wire.frames import Message


class _Count:
    """One question."""

    __slots__ = ("answers", "asker", "number", "waiting")

    def __init__(self, asker: bytes, number: int, waiting: set[bytes]) -> None:
        self.asker = asker
        self.number = number
        self.waiting = waiting
        self.answers: list[tuple[bytes, list[Any]]] = []


class Census:
    """Asks all processes for their objects.

    Args:
        send: Sends a message to a process.
        processes: The ids of those that are there.
        pids: Their process ids for people.
        store: How the store is used.
    """

    def __init__(
        self,
        send: Callable[[bytes, Message], None],
        processes: Callable[[], Iterable[bytes]],
        pids: Callable[[], dict[bytes, int]],
        store: Callable[[], dict[str, Any]],
    ) -> None:
        self._send = send
        self._processes = processes
        self._pids = pids
        self._store = store
        self._turns = itertools.count(1)
        self._counts: dict[int, _Count] = {}

    def ask(self, asker: bytes, number: int) -> None:
        """A process wants to know; it gets an ANSWER when all have told."""
        turn = next(self._turns)
        processes = list(self._processes())
        self._counts[turn] = _Count(asker, number, set(processes))
        for process_id in processes:
            self._send(process_id, [m.TELL, turn])

    def told(self, process_id: bytes, turn: int, rows: list[Any]) -> None:
        """A process has told."""
        count = self._counts.get(turn)
        if count is not None and process_id in count.waiting:
            count.answers.append((process_id, rows))
            self._heard(turn, process_id)

    def gone(self, process_id: bytes) -> None:
        """A process has died: it tells nothing, and wants to know nothing."""
        for turn, count in list(self._counts.items()):
            if count.asker == process_id:
                del self._counts[turn]
            else:
                self._heard(turn, process_id)

    def _heard(self, turn: int, process_id: bytes) -> None:
        count = self._counts[turn]
        count.waiting.discard(process_id)
        if count.waiting:
            return
        del self._counts[turn]
        pids = self._pids()
        answers = [[pids.get(whose, 0), rows] for whose, rows in count.answers]
        names = [[whose, pid] for whose, pid in pids.items()]
        told = {"processes": answers, "pids": names, "store": self._store()}
        self._send(count.asker, [m.ANSWER, count.number, told])
