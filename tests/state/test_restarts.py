"""Whether an actor starts again, and when: the decision as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.state.restarts import (
    CALM_S,
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    Again,
    End,
    Restarts,
    decide,
)

ENDS = st.sampled_from(End)
MENDABLE = (End.CRASHED, End.RESTARTED)


@pytest.mark.parametrize(
    ("end", "left", "quick", "lived_s", "expected"),
    [
        (End.CRASHED, 0, 0, 1.0, None),
        (End.CRASHED, 1, 0, 1.0, Again(0.0, Restarts(0, 1))),
        (End.CRASHED, -1, 0, 1.0, Again(0.0, Restarts(-1, 1))),
        (End.CRASHED, 3, 1, 0.0, Again(FIRST_DELAY_S, Restarts(2, 2))),
        (End.CRASHED, 3, 2, 0.0, Again(2 * FIRST_DELAY_S, Restarts(2, 3))),
        (End.CRASHED, 3, 2, CALM_S, Again(0.0, Restarts(2, 1))),
        (End.CRASHED, -1, 10_000, 0.0, Again(LONGEST_DELAY_S, Restarts(-1, 10_001))),
        (End.RESTARTED, 0, 0, 1.0, None),
        (End.RESTARTED, 2, 0, 1.0, Again(0.0, Restarts(1, 1))),
        (End.KILLED, -1, 0, 1.0, None),
        (End.LEFT, -1, 0, 1.0, None),
        (End.UNHELD, -1, 0, 1.0, None),
        (End.NOT_MADE, -1, 0, 0.0, None),
        (End.NO_PLACE, -1, 0, 0.0, None),
    ],
)
def test_the_decision(end: End, left: int, quick: int, lived_s: float, expected: Again | None) -> None:
    assert decide(end, Restarts(left, quick), lived_s) == expected


@given(ENDS, st.integers(-1, 5), st.integers(0, 100), st.floats(0, 1e6))
def test_only_crashes_are_mended_and_only_while_restarts_are_left(
    end: End, left: int, quick: int, lived_s: float
) -> None:
    again = decide(end, Restarts(left, quick), lived_s)
    assert (again is not None) == (end in MENDABLE and left != 0)


@given(st.integers(1, 50))
def test_an_actor_restarts_as_often_as_it_may_and_no_more(left: int) -> None:
    restarts, count, delays = Restarts(left), 0, []
    while (again := decide(End.CRASHED, restarts, 0.0)) is not None:
        restarts, count = again.restarts, count + 1
        delays.append(again.delay_s)
    assert count == left
    assert delays == sorted(delays)
    assert delays[0] == 0
    assert delays[-1] <= LONGEST_DELAY_S
