"""Which line of the program made each object; remembered only where somebody has asked for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..state.objects import ObjectTable

#: Objects that are gone and still noted, at most, besides as many as there are.
_SLACK: Final = 1000
_PACKAGE: Final = __name__.partition(".")[0] + "."


class CallSites:
    """The lines that made the objects of a table."""

    def __init__(self, objects: ObjectTable) -> None:
        self._objects = objects
        self._lines: dict[int, str] = {}

    def note(self, number: int) -> None:
        """An object was made just now."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            frame = frame.f_back
        self._lines[number] = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        if len(self._lines) > 2 * len(self._objects.owned) + _SLACK:
            self._lines = {n: line for n, line in list(self._lines.items()) if n in self._objects.owned}

    def of(self, number: int) -> str:
        """The line that made an object; the first return of a call stands for all of them."""
        return self._lines.get(number, "")
