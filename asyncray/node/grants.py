"""Who has which part of the store: the node grants extents, and takes them back from the dead.

When a process dies, what it wrote may still be read: by owners of its results, by readers of its objects.
Nothing about readers was said while it lived, so the node asks all the others now (a round); what nobody
claims goes back at once, the rest when the last claim is given up. An extent whose maker lives and whose
value's owner has died is named by the maker (an orphan), and then asked for in the same way. The first death
is asked about at once, those that follow it together: where hundreds die, nobody is asked hundreds of times.

When there is no room for a need, all are asked for what they keep free; then to put objects on disk, again
and again as long as that makes room; then the need waits a while for somebody to free something.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..state.extents import Extents, Usage
from ..wire import messages as m
from .idle_memory import IdleMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..config import Config
    from ..wire.frames import Message

#: Share of the store that is made free beyond what is needed, so that objects are put on disk in batches.
_BATCH_SHARE: Final = 20
#: Seconds after a round about the dead in which further deaths gather for the next.
_GATHER_S: Final = 0.1
#: What a round asks for.
_CLAIMS: Final = m.GONE
_FREE: Final = m.RECLAIM
_SPILL: Final = m.SPILL


class _Need:
    """Extents that a process waits for."""

    __slots__ = ("count", "number", "patient", "process_id", "size")

    def __init__(self, process_id: bytes, number: int, size: int, count: int) -> None:
        self.process_id = process_id
        self.number = number
        self.size = size
        self.count = count
        #: Whether it may wait for others to free something.
        self.patient = True


class _Round:
    """A question to all processes."""

    __slots__ = ("ahead", "asks", "dead", "freed", "starts", "waiting")

    def __init__(self, asks: int, dead: Sequence[bytes], starts: set[int], waiting: set[bytes]) -> None:
        self.asks = asks
        #: Whether nobody waits for the room yet.
        self.ahead = False
        #: Who died, and the extents that were asked about.
        self.dead = dead
        self.starts = starts
        #: Who has not answered.
        self.waiting = waiting
        #: Bytes of room that were made.
        self.freed = 0


class Grants:
    """The node's books of its store.

    Args:
        capacity: Bytes of the store; 0 where there is none.
        config: The session's.
        send: Sends a message to a process.
        processes: The ids of those that are there.
        later: Calls something after so many seconds.
        give_back: Gives the memory of a part of the store back to the system; None: it stays with the store.
    """

    def __init__(
        self,
        capacity: int,
        config: Config,
        send: Callable[[bytes, Message], None],
        processes: Callable[[], Iterable[bytes]],
        later: Callable[[float, Callable[[], None]], object],
        give_back: Callable[[int, int], None] | None = None,
    ) -> None:
        self.extents = Extents(capacity)
        self._idle = give_back and IdleMemory(self.extents, give_back, later, config.store_idle_s)
        self._patience_s = config.store_patience_s
        self._high_bytes = int(capacity * config.spill_threshold)
        self._batch_bytes = capacity // _BATCH_SHARE
        self._send = send
        self._processes = processes
        self._later = later
        #: Who has each extent to write to, where that lives.
        self._holders: dict[int, bytes] = {}
        #: Who still uses what a dead process wrote.
        self._claims: dict[int, set[bytes]] = {}
        self._needs: deque[_Need] = deque()
        self._rounds: dict[int, _Round] = {}
        #: Who died since the last round about the dead, and the extents that they had.
        self._dead: list[bytes] = []
        self._left: set[int] = set()
        self._gathers = False
        self._turns = itertools.count(1)
        #: What is tried next for the needs that wait: steps of :meth:`_try_more`.
        self._step = 0
        #: Extents taken when objects were put on disk ahead the last time, in bytes.
        self._spilled_at = 0
        #: What is wrong with the disk; empty while nothing is.
        self._disk = ""

    def told(self) -> dict[str, int | float]:
        """How the store is used, by name; for people."""
        usage = self.usage()
        told: dict[str, int | float] = dataclasses.asdict(usage)
        return {**told, "free": usage.free, "fragmentation": usage.fragmentation}

    def usage(self) -> Usage:
        """How the store is used."""
        return self.extents.usage()

    # --- granting -----------------------------------------------------------------------------------------

    def need(self, process_id: bytes, number: int, size: int, count: int) -> None:
        """A process wants up to *count* extents for *size* bytes; it gets one at least, or hears why not."""
        self._needs.append(_Need(process_id, number, size, count))
        self._serve()

    def _serve(self) -> None:
        """Grant what can be granted, in the order of asking; try to make room for the rest."""
        while self._needs:
            need = self._needs[0]
            granted = self._take(need)
            if not granted and self._try_more(need):
                return
            self._needs.popleft()
            self._step = 0
            if granted:
                self._send(need.process_id, [m.EXTENTS, need.number, granted])
            else:
                self._refuse(need)
        self._spill_ahead()

    def _take(self, need: _Need) -> list[list[int]]:
        granted: list[list[int]] = []
        for _ in range(need.count):
            extent = self.extents.take(need.size) if 0 < need.size <= self.extents.capacity else None
            if extent is None:
                break
            self._holders[extent[0]] = need.process_id
            granted.append(list(extent))
        return granted

    def _try_more(self, need: _Need) -> bool:
        """Try the next way to make room; False when there is none left."""
        if not 0 < need.size <= self.extents.capacity:
            return False
        if self._rounds:
            return True
        self._step += 1
        if self._step == 1:
            self._begin(_FREE)
        elif self._step == 2:
            self._begin(_SPILL, wanted=need.size + self._batch_bytes)
        elif not need.patient:
            return False
        elif self._step == 3:
            self._later(self._patience_s, lambda: self._lose_patience(need))
        # Beyond that it waits for the timer.
        return True

    def _lose_patience(self, need: _Need) -> None:
        """Try all ways once more: what was read a moment ago may not be read any more."""
        if need in self._needs:
            need.patient = False
            self._step = 0
            self._serve()

    def _refuse(self, need: _Need) -> None:
        usage = self.usage()
        sizes = [need.size, usage.capacity, usage.taken, usage.largest_free]
        self._send(need.process_id, [m.FULL, need.number, *sizes, self._disk])

    def _spill_ahead(self) -> None:
        """Put objects on disk before a need must wait for that; first see what processes keep for nothing."""
        taken = self.extents.taken_bytes
        self._spilled_at = min(self._spilled_at, taken)
        above = taken - self._high_bytes
        if above > 0 and not self._rounds and taken - self._spilled_at > self._batch_bytes // 2:
            self._spilled_at = taken
            self._begin(_FREE).ahead = True

    def give(self, process_id: bytes, starts: Iterable[int]) -> None:
        """A process has no use for these any more. What is not its own to give is left out."""
        for start in starts:
            claims = self._claims.get(start)
            if claims is not None:
                claims.discard(process_id)
                self._free_if_unclaimed(start)
            elif self._holders.get(start) == process_id:
                self._free(start)
        if self._needs:
            self._serve()

    def _free(self, start: int) -> None:
        self._holders.pop(start, None)
        self._claims.pop(start, None)
        self.extents.give(start)
        if self._idle is not None:
            self._idle.stir()

    def _free_if_unclaimed(self, start: int) -> None:
        asked = any(start in found.starts for found in self._rounds.values())
        if not asked and start not in self._left and not self._claims.get(start):
            self._free(start)

    # --- rounds -------------------------------------------------------------------------------------------

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
        # Also when it had nothing: others may have written values that it owned, or be about to.
        if self.extents.capacity:
            self._dead.append(process_id)
            self._left |= starts
            if not self._gathers:
                self._gathered()

    def _gathered(self) -> None:
        """Ask about those who have died in the meantime, if any have."""
        self._gathers = bool(self._dead)
        if self._dead:
            dead, starts = self._dead, self._left
            self._dead, self._left = [], set()
            self._begin(_CLAIMS, dead, starts)
            self._later(_GATHER_S, self._gathered)

    def _begin(
        self, asks: int, dead: Sequence[bytes] = (), starts: Iterable[int] = (), *, wanted: int = 0
    ) -> _Round:
        turn = next(self._turns)
        waiting = list(self._processes())
        begun = self._rounds[turn] = _Round(asks, dead, set(starts), set(waiting))
        further: dict[int, list[Any]] = {
            _CLAIMS: [list(dead), sorted(starts)],
            _FREE: [],
            _SPILL: [wanted],
        }
        for other in waiting:
            self._send(other, [asks, turn, *further[asks]])
        if not waiting:
            self._finish(turn)
        return begun

    def settled(self, process_id: bytes, turn: int, used: list[int], orphans: list[int]) -> None:
        """A process has answered: what it still uses, and what it wrote for the dead one."""
        found = self._rounds.get(turn)
        if found is None or process_id not in found.waiting:
            return
        for start in used:
            if start in found.starts and start in self._claims:
                self._claims[start].add(process_id)
        mine = {start for start in orphans if self._holders.get(start) == process_id}
        if mine and found.dead:
            for start in mine:
                del self._holders[start]
                self._claims[start] = set()
            self._begin(_CLAIMS, found.dead, mine)
        self._heard(turn, process_id)

    def spilled(self, process_id: bytes, turn: int, freed: int, problem: str) -> None:
        """A process has put objects on disk, or has none to put there, or cannot."""
        found = self._rounds.get(turn)
        if found is None or process_id not in found.waiting:
            return
        self._disk = problem or (self._disk if not freed else "")
        found.freed += max(0, freed)
        self._heard(turn, process_id)

    def _heard(self, turn: int, process_id: bytes) -> None:
        found = self._rounds.get(turn)
        if found is not None:
            found.waiting.discard(process_id)
            if not found.waiting:
                self._finish(turn)

    def _finish(self, turn: int) -> None:
        found = self._rounds.pop(turn)
        for start in found.starts:
            self._free_if_unclaimed(start)
        if found.asks == _SPILL and found.freed and self._step == 2:
            # What was freed may be with those who had written it; and more may be put on disk.
            self._step = 0
            if self._needs:
                self._needs[0].patient = True
        above = self.extents.taken_bytes - self._high_bytes
        if found.ahead and above > 0:
            self._begin(_SPILL, wanted=above + self._batch_bytes)
        self._serve()
