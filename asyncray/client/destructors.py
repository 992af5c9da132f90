"""Destructors, and handlers of signals: both may run anywhere, also in the middle of code of ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .interrupts import PACKAGE, is_guarded, may_interrupt, signal_handlers

if TYPE_CHECKING:
    from types import CodeType


def interrupts_us() -> bool:
    """Whether the caller is called by a destructor or a signal's handler that has interrupted code of ours.

    That code may hold a lock, or be about to wake whoever would end a wait: they must not wait.
    """
    frame = sys._getframe(1)
    #: Code of the user's that has been called by what is looked at next.
    users: list[CodeType] = []
    # Each blocking wait comes by here: nothing is called for a frame that need not be.
    while (code := frame.f_code).co_name != "__del__":
        if not code.co_filename.startswith(PACKAGE):
            users.append(code)
        elif users:
            # Seldom: mostly nothing of ours stands below the user's code, or what is there to run it.
            if is_guarded(frame) and not signal_handlers().isdisjoint(users):
                return True
            users.clear()
        below = frame.f_back
        if below is None:
            return False
        frame = below
    return not may_interrupt(frame.f_back)
