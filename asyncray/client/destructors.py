"""Destructors, and handlers of signals: both may run anywhere, also in the middle of code of ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .interrupts import is_guarded, is_ours, may_interrupt, signal_handlers

if TYPE_CHECKING:
    from types import CodeType


def interrupts_us() -> bool:
    """Whether the caller is called by a destructor or a signal's handler that has interrupted code of ours.

    That code may hold a lock, or be about to wake whoever would end a wait: they must not wait.
    """
    frame = sys._getframe(1)
    #: Code of the user's that has been called by what is looked at next.
    users: set[CodeType] = set()
    while frame.f_code.co_name != "__del__":
        if not is_ours(frame):
            users.add(frame.f_code)
        elif users:
            # Seldom: mostly nothing of ours stands below the user's code, or what is there to run it.
            if is_guarded(frame) and not users.isdisjoint(signal_handlers()):
                return True
            users.clear()
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return not may_interrupt(frame.f_back)
