"""A task's life goes along the table and nowhere else; retries are counted by one rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.exceptions import InternalError
from asyncray.state.tasks import (
    ARGUMENTS_READY,
    ASSIGNED,
    CANCELLED,
    DONE,
    EVENT_NAMES,
    FINISHED,
    QUEUED,
    RECALLED,
    RETRIED,
    SENT,
    STATE_NAMES,
    TRANSITIONS,
    WAITING,
    Descriptor,
    Task,
    Verdict,
    after_error,
    after_worker_death,
    step,
)

#: The life of a task as the design has it, written down a second time.
LIFE = {
    (WAITING, ARGUMENTS_READY): QUEUED,
    (WAITING, FINISHED): DONE,
    (WAITING, CANCELLED): DONE,
    (QUEUED, ASSIGNED): SENT,
    (QUEUED, FINISHED): DONE,
    (QUEUED, CANCELLED): DONE,
    (SENT, RECALLED): QUEUED,
    (SENT, RETRIED): QUEUED,
    (SENT, FINISHED): DONE,
    (SENT, CANCELLED): DONE,
}
ALL = list(itertools.product(STATE_NAMES, EVENT_NAMES))


def task_in(state: int, max_retries: int = 3) -> Task:
    descriptor = Descriptor(1, "work", b"id", b"blob")
    descriptor.max_retries = max_retries
    task = Task(7, descriptor, None)
    task.state = state
    return task


def test_the_table_is_the_life_of_a_task() -> None:
    assert TRANSITIONS == LIFE


@pytest.mark.parametrize(("state", "event"), LIFE)
def test_each_transition_of_the_table_is_taken(state: int, event: int) -> None:
    task = task_in(state)
    step(task, event)
    assert task.state == LIFE[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in ALL if pair not in LIFE])
def test_each_missing_transition_is_a_bug_that_tells_its_story(state: int, event: int) -> None:
    task = task_in(state)
    with pytest.raises(InternalError) as found:
        step(task, event)
    expected = f"a task cannot be {EVENT_NAMES[event]} in state {STATE_NAMES[state]}"
    assert found.value.message == expected
    assert found.value.story == task.story()
    assert found.value.story[0] == "task 7 (work)"
    assert "work" in str(found.value)
    assert task.state == state


def test_an_unknown_event_is_a_bug_too() -> None:
    with pytest.raises(InternalError, match="a task cannot be 99 in state QUEUED"):
        step(task_in(QUEUED), 99)


def test_what_is_done_stays_done() -> None:
    assert not [state for state, _ in TRANSITIONS if state == DONE]


@given(st.lists(st.sampled_from(sorted(EVENT_NAMES)), max_size=30))
def test_no_story_leads_out_of_the_table(events: list[int]) -> None:
    task = task_in(WAITING)
    for event in events:
        before = task.state
        if (before, event) in LIFE:
            step(task, event)
            assert task.state == LIFE[before, event]
        else:
            with pytest.raises(InternalError):
                step(task, event)
            assert task.state == before


def test_a_new_task_is_queued_and_has_the_retries_of_its_function() -> None:
    task = Task(1, task_in(QUEUED, max_retries=5).descriptor, None)
    assert (task.state, task.retries, task.attempt, task.cancelled) == (QUEUED, 5, 0, False)


# ---- verdicts ----


@pytest.mark.parametrize(
    ("retries", "verdict", "left"),
    [(0, Verdict.FAIL, 0), (1, Verdict.RETRY, 0), (3, Verdict.RETRY, 2), (-1, Verdict.RETRY, -1)],
)
def test_the_death_of_a_worker_costs_a_retry(retries: int, verdict: Verdict, left: int) -> None:
    task = task_in(SENT, retries)
    assert after_worker_death(task) is verdict
    assert task.retries == left


@pytest.mark.parametrize(
    ("retries", "retriable", "verdict", "left"),
    [
        (0, True, Verdict.FAIL, 0),
        (1, True, Verdict.RETRY, 0),
        (3, True, Verdict.RETRY, 2),
        (-1, True, Verdict.RETRY, -1),
        (0, False, Verdict.FAIL, 0),
        (1, False, Verdict.FAIL, 1),
        (3, False, Verdict.FAIL, 3),
        (-1, False, Verdict.FAIL, -1),
    ],
)
def test_an_error_is_retried_only_when_it_is_named(
    retries: int, retriable: bool, verdict: Verdict, left: int
) -> None:
    task = task_in(SENT, retries)
    assert after_error(task, retriable=retriable) is verdict
    assert task.retries == left


@given(st.integers(0, 50))
def test_a_task_runs_again_as_often_as_it_may_and_no_more(retries: int) -> None:
    task = task_in(SENT, retries)
    runs = 1
    while after_worker_death(task) is Verdict.RETRY:
        runs += 1
    assert runs == retries + 1
