"""The lifecycle of an actor at its owner, against a model."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncray.exceptions import InternalError
from asyncray.state import actors
from asyncray.state.actors import TRANSITIONS, step
from asyncray.state.restarts import End, Restarts, decide


def test_every_state_but_the_last_has_an_end() -> None:
    ends = {state for (state, event) in TRANSITIONS if event == actors.DIED}
    assert ends == set(actors.STATE_NAMES) - {actors.DEAD}
    assert not [state for (state, _) in TRANSITIONS if state == actors.DEAD]


def test_an_impossible_event_is_a_bug_that_names_the_actor() -> None:
    with pytest.raises(InternalError, match="TOLD_TO_END in state RESTING") as caught:
        step(actors.RESTING, actors.TOLD_TO_END, "Counter")
    assert "Counter" in str(caught.value)


class Life(RuleBasedStateMachine):
    """An actor's owner, as a walk over the table; the model counts lives."""

    @initialize(left=st.integers(-1, 3))
    def begin(self, left: int) -> None:
        self.state = actors.PLACING
        self.restarts = Restarts(left)
        self.allowed = left
        self.lives = 0
        self.lost = 0

    def _step(self, event: int) -> None:
        self.state = step(self.state, event, "model")

    @precondition(lambda self: self.state == actors.PLACING)
    @rule()
    def placed(self) -> None:
        self._step(actors.PLACED)
        self.lives += 1

    @precondition(lambda self: self.state == actors.STARTING)
    @rule()
    def made(self) -> None:
        self._step(actors.MADE)

    @precondition(lambda self: self.state in (actors.STARTING, actors.ALIVE))
    @rule(lived_s=st.floats(0, 120))
    def crashed(self, lived_s: float) -> None:
        self.lost += 1
        again = decide(End.CRASHED, self.restarts, lived_s)
        if again is None:
            self._step(actors.DIED)
        else:
            self.restarts = again.restarts
            self._step(actors.LOST)

    @precondition(lambda self: self.state == actors.RESTING)
    @rule()
    def due(self) -> None:
        self._step(actors.DUE)

    @precondition(lambda self: self.state == actors.ALIVE)
    @rule()
    def unheld(self) -> None:
        self._step(actors.TOLD_TO_END)

    @precondition(lambda self: self.state != actors.DEAD)
    @rule()
    def killed(self) -> None:
        assert decide(End.KILLED, self.restarts, 0.0) is None
        self._step(actors.DIED)

    @precondition(lambda self: self.state == actors.DEAD)
    @rule(event=st.sampled_from(sorted(actors.EVENT_NAMES)))
    def nothing_happens_to_the_dead(self, event: int) -> None:
        with pytest.raises(InternalError):
            self._step(event)

    @invariant()
    def lives_as_often_as_it_may(self) -> None:
        if hasattr(self, "state") and self.allowed >= 0:
            assert self.lives <= self.allowed + 1
            assert self.restarts.left == self.allowed - min(self.lost, self.allowed)


TestLife = Life.TestCase
