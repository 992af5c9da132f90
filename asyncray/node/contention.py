"""Contention: which owners are told that others wait for what they hold.

An owner that keeps idle leases gives them back when it hears that somebody waits; where priorities are used,
it hears for which of its leases something better waits. Each is told of changes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..state.ranking import MARGIN
from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.connection import Connection
    from ..state.scheduler import Scheduler


class Contention:
    """What each owner was told of others.

    Args:
        scheduler: Knows who waits and who holds.
        owners: Their connections, by process id.
        ageing_s: Seconds of waiting that weigh as much as one level of priority.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        owners: dict[bytes, Connection],
        ageing_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._owners = owners
        self._ageing_s = ageing_s
        self._clock = clock
        #: Whether each owner was told that somebody waits.
        self._told_waiting: dict[bytes, bool] = {}
        #: Who waited when holders of leases were told of it the last time.
        self._waiting: set[bytes] = set()
        #: The ranks that owners were told, by owner and class.
        self._told_outbids: dict[tuple[bytes, int], float] = {}

    def gone(self, owner: bytes) -> None:
        """An owner is dead."""
        self._told_waiting.pop(owner, None)
        for key in [key for key in self._told_outbids if key[0] == owner]:
            del self._told_outbids[key]

    def tell(self, granted: set[bytes]) -> None:
        """Tell each owner that holds leases whether somebody else waits for what the idle ones hold.

        Args:
            granted: The owners that have got leases just now.
        """
        waiting, held = self._scheduler.who_waits(), self._scheduler.held
        concerned = granted if waiting == self._waiting else held.keys()
        self._waiting = waiting
        for process_id in concerned:
            others = bool(waiting - {process_id})
            if process_id in self._owners and self._told_waiting.get(process_id, False) != others:
                self._told_waiting[process_id] = others
                self._owners[process_id].send([m.WANTED, others])
        if self._scheduler.ranked:
            self._tell_ranks()

    def _tell_ranks(self) -> None:
        """Tell owners for which of their leases something better waits."""
        outbids, told, now = self._scheduler.outbids(), self._told_outbids, self._clock()
        for key in [key for key in told if key not in outbids]:
            del told[key]
            self._owners[key[0]].send([m.OUTBID, key[1], None])
        for key, rank in outbids.items():
            if key not in told or abs(told[key] - rank) >= MARGIN * self._ageing_s:
                told[key] = rank
                self._owners[key[0]].send([m.OUTBID, key[1], now - rank])
