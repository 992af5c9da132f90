"""Destructors: the garbage collector may run one anywhere, also in the middle of code of ours."""

from __future__ import annotations

import sys

from .interrupts import may_interrupt


def interrupts_us() -> bool:
    """Whether the caller is called by a destructor that has interrupted code of ours.

    That code may hold a lock, or be about to wake whoever would end a wait: the destructor must not wait.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_name != "__del__":
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return not may_interrupt(frame.f_back)
