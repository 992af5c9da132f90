"""Gives memory of the store that nobody has had for a while back to the system, bit by bit."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..state.extents import Extents

_log = logging.getLogger("asyncray.node")
#: Bytes that go back at once: some milliseconds in which the node does nothing else.
_PIECE_BYTES: Final = 32 << 20
#: Seconds between two pieces.
_PAUSE_S: Final = 0.02


class IdleMemory:
    """Looks after the free part of the store, while there may be something in it that nobody will use soon.

    Args:
        extents: The store's.
        give_back: Gives the memory of a part of the store back: its beginning and length.
        later: Calls something after so many seconds.
        idle_s: Seconds that memory lies unused at least.
    """

    def __init__(
        self,
        extents: Extents,
        give_back: Callable[[int, int], None],
        later: Callable[[float, Callable[[], None]], object],
        idle_s: float,
    ) -> None:
        self._extents = extents
        self._give_back = give_back
        self._later = later
        self._idle_s = idle_s
        self._watching = False
        self._giving = False

    def stir(self) -> None:
        """An extent was given back."""
        if not self._watching:
            self._watching = True
            self._later(self._idle_s, self._look)

    def _look(self) -> None:
        self._watching = False
        if self._extents.turn():
            self.stir()
        if not self._giving:
            self._giving = True
            self._give()

    def _give(self) -> None:
        piece = self._extents.idle.next_due(_PIECE_BYTES)
        if piece is None:
            self._giving = False
            return
        try:
            self._give_back(*piece)
        except OSError as error:
            # It stays with the store. So does `giving`: the next piece would fail as well.
            _log.warning("unused memory of the object store cannot be given back: %s", error)
            return
        self._extents.idle.bared(*piece)
        self._later(_PAUSE_S, self._give)
