"""How a worker ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Ending:
    """The ways out of a worker, as its process or its simulation provides them."""

    #: Leave the loop, so that the process ends in order.
    leave: Callable[[], None]
    #: End here and now, whatever runs.
    at_once: Callable[[], None]
    #: End a child that a task has forked, and that came back from the task with an exception or without.
    leave_fork: Callable[[BaseException | None], None] = lambda error: None
