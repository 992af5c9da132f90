"""The life of an actor, as its owner sees it.

    PLACING --(placed)--> STARTING --(made)--> ALIVE --(told to end)--> ENDING
       ^                     |                   |                         |
       +--(due)-- RESTING <--+----(lost)---------+                         |
                     |                                                     |
                     +-------------------(dead)-----> DEAD <---------------+   (from every state)

Rule 1: the state changes only by :func:`step`, along the table below; anything else is a bug of ours.
Rule 2: whether a lost actor comes again is decided by state.restarts.
Rule 3: no I/O, no clock, no lock: the owner calls this under its own.
"""

from __future__ import annotations

from typing import Final

from ..exceptions import InternalError

# States and events are plain ints, as those of tasks.
#: It waits for a worker, or for the arguments of its constructor.
PLACING: Final = 0
#: A worker has been sent the constructor.
STARTING: Final = 1
ALIVE: Final = 2
#: Nobody needs it any more: it finishes what was called for, and ends.
ENDING: Final = 3
#: It was lost, and waits before it starts again.
RESTING: Final = 4
DEAD: Final = 5

PLACED: Final = 10
MADE: Final = 11
TOLD_TO_END: Final = 12
LOST: Final = 13
DUE: Final = 14
DIED: Final = 15

STATE_NAMES: Final = {
    PLACING: "PLACING",
    STARTING: "STARTING",
    ALIVE: "ALIVE",
    ENDING: "ENDING",
    RESTING: "RESTING",
    DEAD: "DEAD",
}
EVENT_NAMES: Final = {
    PLACED: "PLACED",
    MADE: "MADE",
    TOLD_TO_END: "TOLD_TO_END",
    LOST: "LOST",
    DUE: "DUE",
    DIED: "DIED",
}

#: (state, event) -> state. A missing key is a bug.
TRANSITIONS: Final[dict[tuple[int, int], int]] = {
    (PLACING, PLACED): STARTING,
    (STARTING, MADE): ALIVE,
    (ALIVE, TOLD_TO_END): ENDING,
    (STARTING, LOST): RESTING,
    (ALIVE, LOST): RESTING,
    (RESTING, DUE): PLACING,
    (PLACING, DIED): DEAD,
    (STARTING, DIED): DEAD,
    (ALIVE, DIED): DEAD,
    (ENDING, DIED): DEAD,
    (RESTING, DIED): DEAD,
}


def step(state: int, event: int, name: str) -> int:
    """The state after an event.

    Raises:
        InternalError: when the table has no such transition.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InternalError(
            f"an actor cannot be {EVENT_NAMES.get(event, event)} in state {STATE_NAMES.get(state, state)}",
            [f"actor {name}"],
        ) from None
