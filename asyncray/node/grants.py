"""Who has which part of the store: the node grants extents, and takes them back from the dead.

When a process dies, what it wrote may still be read: by owners of its results, by readers of its objects.
Nothing about readers was said while it lived, so the node asks all the others now (a round); what nobody
claims goes back at once, the rest when the last claim is given up. An extent whose maker lives and whose
value's owner has died is named by the maker (an orphan), and then asked for in the same way.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from ..state.extents import Extents, Usage
from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..wire.frames import Message


class _Need:
    """Extents that a process waits for."""

    __slots__ = ("count", "number", "process_id", "size")

    def __init__(self, process_id: bytes, number: int, size: int, count: int) -> None:
        self.process_id = process_id
        self.number = number
        self.size = size
        self.count = count


class _Round:
    """A question to all processes."""

    __slots__ = ("process_id", "starts", "waiting")

    def __init__(self, process_id: bytes | None, starts: set[int], waiting: set[bytes]) -> None:
        #: Who died; None where the processes were asked for what is free.
        self.process_id = process_id
        #: The extents that were asked about.
        self.starts = starts
        #: Who has not answered.
        self.waiting = waiting


class Grants:
    """The node's books of its store.

    Args:
        capacity: Bytes of the store; 0 where there is none.
        send: Sends a message to a process.
        processes: The ids of those that are there.
    """

    def __init__(
        self,
        capacity: int,
        send: Callable[[bytes, Message], None],
        processes: Callable[[], Iterable[bytes]],
    ) -> None:
        self.extents = Extents(capacity)
        self._send = send
        self._processes = processes
        #: Who has each extent to write to, where that lives.
        self._holders: dict[int, bytes] = {}
        #: Who still uses what a dead process wrote.
        self._claims: dict[int, set[bytes]] = {}
        self._needs: deque[_Need] = deque()
        self._rounds: dict[int, _Round] = {}
        self._turns = itertools.count(1)
        #: Whether the processes have been asked for what is free, for the needs that wait.
        self._reclaimed = False

    def told(self) -> dict[str, int | float]:
        """How the store is used, by name; for people."""
        usage = self.usage()
        told: dict[str, int | float] = dataclasses.asdict(usage)
        return {**told, "free": usage.free, "fragmentation": usage.fragmentation}

    def usage(self) -> Usage:
        """How the store is used."""
        return self.extents.usage()

    # --- granting -------------------------------------------------------------------------------------------

    def need(self, process_id: bytes, number: int, size: int, count: int) -> None:
        """A process wants up to *count* extents for *size* bytes; it gets one at least, or hears why not."""
        self._needs.append(_Need(process_id, number, size, count))
        self._serve()

    def _serve(self) -> None:
        while self._needs:
            need = self._needs[0]
            granted = self._take(need)
            if not granted and self._may_come():
                return
            self._needs.popleft()
            if granted:
                self._send(need.process_id, [m.EXTENTS, need.number, granted])
            else:
                usage = self.usage()
                sizes = [need.size, usage.capacity, usage.taken, usage.largest_free, ""]
                self._send(need.process_id, [m.FULL, need.number, *sizes])

    def _take(self, need: _Need) -> list[list[int]]:
        granted: list[list[int]] = []
        for _ in range(need.count):
            extent = self.extents.take(need.size) if 0 < need.size <= self.extents.capacity else None
            if extent is None:
                break
            self._holders[extent[0]] = need.process_id
            granted.append(list(extent))
        return granted

    def _may_come(self) -> bool:
        """Whether extents may still come back: asks the processes for what they keep free, once."""
        if not self._rounds and not self._reclaimed:
            self._reclaimed = True
            self._begin(None, set())
        return bool(self._rounds)

    def give(self, process_id: bytes, starts: Iterable[int]) -> None:
        """A process has no use for these any more. What is not its own to give is left out."""
        for start in starts:
            claims = self._claims.get(start)
            if claims is not None:
                claims.discard(process_id)
                self._free_if_unclaimed(start)
            elif self._holders.get(start) == process_id:
                self._free(start)
        self._serve()

    def _free(self, start: int) -> None:
        self._holders.pop(start, None)
        self._claims.pop(start, None)
        self.extents.give(start)

    def _free_if_unclaimed(self, start: int) -> None:
        asked = any(start in found.starts for found in self._rounds.values())
        if not asked and not self._claims.get(start):
            self._free(start)

    # --- deaths ---------------------------------------------------------------------------------------------

    def gone(self, process_id: bytes) -> None:
        """A process has died."""
        self._needs = deque(need for need in self._needs if need.process_id != process_id)
        starts = {start for start, holder in self._holders.items() if holder == process_id}
        starts |= {start for start, claims in self._claims.items() if process_id in claims}
        for start in starts:
            self._holders.pop(start, None)
            self._claims.setdefault(start, set()).discard(process_id)
        for turn in list(self._rounds):
            self._heard(turn, process_id)
        # Also when it had nothing: others may have written values that it owned.
        if self.extents.taken:
            self._begin(process_id, starts)

    def _begin(self, process_id: bytes | None, starts: set[int]) -> None:
        turn = next(self._turns)
        waiting = list(self._processes())
        self._rounds[turn] = _Round(process_id, starts, set(waiting))
        question: list[Any] = [m.RECLAIM, turn]
        if process_id is not None:
            question = [m.GONE, turn, process_id, sorted(starts)]
        for other in waiting:
            self._send(other, question)
        if not waiting:
            self._finish(turn)

    def settled(self, process_id: bytes, turn: int, used: list[int], orphans: list[int]) -> None:
        """A process has answered: what it still uses, and what it wrote for the dead one."""
        found = self._rounds.get(turn)
        if found is None or process_id not in found.waiting:
            return
        for start in used:
            if start in found.starts and start in self._claims:
                self._claims[start].add(process_id)
        mine = {start for start in orphans if self._holders.get(start) == process_id}
        if mine and found.process_id is not None:
            for start in mine:
                del self._holders[start]
                self._claims[start] = set()
            self._begin(found.process_id, mine)
        self._heard(turn, process_id)

    def _heard(self, turn: int, process_id: bytes) -> None:
        found = self._rounds[turn]
        found.waiting.discard(process_id)
        if not found.waiting:
            self._finish(turn)

    def _finish(self, turn: int) -> None:
        found = self._rounds.pop(turn)
        for start in found.starts:
            self._free_if_unclaimed(start)
        self._serve()
        if not self._needs:
            self._reclaimed = False
