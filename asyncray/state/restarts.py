"""Whether an actor whose process has ended starts again, and when.

Rule 1: :func:`decide` is the only place that decides it: a pure function of how the actor ended, how many
        restarts it has left, how many in a row were of no use, and how long it has lived.
Rule 2: an actor that keeps failing restarts ever more rarely: a crash loop must not eat the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class End(Enum):
    """Why an actor is not there any more."""

    #: Its process died, by itself or by somebody's hand.
    CRASHED = "crashed"
    #: `kill(actor, no_restart=False)`: to be made anew.
    RESTARTED = "restarted"
    #: `kill(actor)`.
    KILLED = "killed"
    #: It left by its own wish: exit_actor, __ray_terminate__.
    LEFT = "left"
    #: Nobody holds a handle of it any more.
    UNHELD = "unheld"
    #: Its constructor raised, or one of the constructor's arguments has failed.
    NOT_MADE = "not made"
    #: The node will never have a place for it.
    NO_PLACE = "no place"


#: Ends after which there is a next life, as long as restarts are left.
_MENDABLE: Final = frozenset({End.CRASHED, End.RESTARTED})

#: Seconds of life after which an actor is taken to be well: the next restart is as quick as the first.
CALM_S: Final = 60.0
#: Seconds before the second restart in a row; each further one waits twice as long.
FIRST_DELAY_S: Final = 0.1
#: Seconds that no restart waits longer than.
LONGEST_DELAY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """What is known of an actor's earlier lives."""

    #: Restarts that are left; -1 is without end.
    left: int
    #: Restarts in a row after lives shorter than CALM_S.
    quick: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """The actor starts again."""

    #: Seconds from now.
    delay_s: float
    restarts: Restarts


def decide(end: End, restarts: Restarts, lived_s: float) -> Again | None:
    """What becomes of an actor; None: it is dead for good.

    Args:
        end: How it ended.
        restarts: What is left of its restarts.
        lived_s: Seconds since its constructor returned; 0 when it never did.
    """
    if end not in _MENDABLE or restarts.left == 0:
        return None
    before = 0 if lived_s >= CALM_S else restarts.quick
    left = restarts.left - 1 if restarts.left > 0 else -1
    return Again(_delay_s(before), Restarts(left, before + 1))


def _delay_s(quick: int) -> float:
    """Seconds before a restart that *quick* others went before: none before the first."""
    if not quick:
        return 0.0
    # Beyond 16 doublings it is the longest anyway, and the power of a large number is no number.
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(quick - 1, 16))
