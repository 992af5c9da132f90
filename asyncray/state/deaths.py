"""In which order deaths are told: a worker's own comes after those of all that worked for it.

A worker that dies leaves orphans, the workers that run what it has called for; they are ended, and may leave
orphans of their own. Who called the dead worker's task hears of the death when all of these have ended: what
it does then (run the task again, or leave a group that nothing may outlive) never meets work of the first
attempt.

Rule: what was announced is told exactly once, because every orphan ends: it is killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Deaths:
    """The deaths that wait for others. Workers go by their numbers."""

    def __init__(self) -> None:
        #: The dead whose orphans have not all ended: those, and what is to happen then.
        self._waiting: dict[int, tuple[set[int], Callable[[], None]]] = {}

    def died(self, worker: int, orphans: Iterable[int], tell: Callable[[], None]) -> None:
        """A worker is dead; *tell* once that may be told, which may be now."""
        left = set(orphans)
        if left:
            self._waiting[worker] = (left, tell)
            return
        tell()
        self.ended(worker)

    def ended(self, orphan: int) -> None:
        """A worker runs nothing of its dead owner any more: it is dead itself, with all of its own."""
        for worker, (left, tell) in list(self._waiting.items()):
            left.discard(orphan)
            if not left and self._waiting.pop(worker, None) is not None:
                tell()
                self.ended(worker)

    def __len__(self) -> int:
        return len(self._waiting)
