"""Answers between processes: what is wrong is refused, and what is let through can be told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.exceptions import ProtocolError
from asyncray.state.accounts import Accounts
from asyncray.state.circles import circles
from asyncray.state.inquiry import NODE, Exploration, Question, Silent
from asyncray.state.wait_graph import graph_of, vertices_of
from asyncray.wire.answers import check_answer, check_calls

PROCESSES = [(b"a" * 16, "A"), (b"b" * 16, "B")]
NUMBERS = st.integers(0, 3)
NAMES = st.sampled_from(["f", "g"])
ADDRESSES = st.lists(st.tuples(st.sampled_from(PROCESSES), NUMBERS).map(lambda a: [*a[0], a[1]]), max_size=3)
WORKERS = st.sampled_from(PROCESSES).map(lambda place: [*place, 7])
COUNTS = st.dictionaries(NAMES, st.integers(0, 3), max_size=2)
LIGHT = st.sampled_from([[b"a" * 16, 1], [b"b" * 16, 1]])
#: What may be said of calls of actors.
QUEUED = {"actor": st.sampled_from(["made", "restarting", "asked", "?"])}
SENT = {"turns": NUMBERS, "light": LIGHT}
AHEAD = {"ahead": NUMBERS, "names": COUNTS, "cut": st.booleans()}


def objects(number: int) -> st.SearchStrategy[dict[str, Any]]:
    """Everything that may be said of an object."""
    ended = {"number": st.just(number), "name": NAMES, "task": st.none()}
    common = {"number": st.just(number), "name": NAMES, "task": NUMBERS, "attempt": NUMBERS}
    waiting = {"missing": NUMBERS, "arguments": NUMBERS, "for": ADDRESSES}
    return st.one_of(
        st.fixed_dictionaries({**ended, "state": st.sampled_from(["done", "failed", "gone"])}),
        st.fixed_dictionaries({**common, "state": st.just("waiting"), **waiting}),
        st.fixed_dictionaries(
            {**common, "state": st.just("queued"), "class": NUMBERS, **AHEAD}, optional=QUEUED
        ),
        st.fixed_dictionaries(
            {**common, "state": st.just("sent"), "worker": WORKERS, **AHEAD}, optional=SENT
        ),
        st.fixed_dictionaries({**common, "state": st.just("stopping"), "worker": WORKERS}),
    )


WAITS = st.fixed_dictionaries(
    {
        "number": NUMBERS,
        "for_s": st.floats(0, 9),
        "count": NUMBERS,
        "need": st.integers(-1, 4),
        "for": ADDRESSES,
    }
)
CALLS = st.fixed_dictionaries(
    {
        "owner": st.sampled_from([place[0] for place in PROCESSES]),
        "number": NUMBERS,
        "name": NAMES,
        "pid": NUMBERS,
        "for_s": st.floats(0, 9),
        "waits": st.lists(WAITS, max_size=2),
        "stack": st.none() | st.just('  File "x", line 1, in f\n'),
        "light": st.none() | LIGHT,
        "unread": st.none() | st.integers(0, 2000),
    }
)
REPORTS = st.fixed_dictionaries({"calls": st.lists(CALLS, max_size=3), "complete": st.booleans()})
UNITS = st.dictionaries(st.sampled_from(["CPU", "slot"]), st.integers(-20_000, 20_000), max_size=2)
NODES = st.fixed_dictionaries(
    {
        "total": UNITS,
        "free": UNITS,
        "full": st.booleans(),
        "holders": st.lists(st.tuples(WORKERS, UNITS).map(lambda t: [t[0][0], 1, "f", t[1]]), max_size=3),
        "demands": st.lists(st.tuples(WORKERS, NUMBERS, UNITS).map(lambda t: [t[0][0], t[1], "g", 2, t[2]])),
        "starting": st.lists(st.tuples(WORKERS, NUMBERS).map(lambda t: [t[0][0], t[1], True]), max_size=2),
        "processes": st.just([[*place, 7] for place in PROCESSES]),
    }
)


def answer_to(data: st.DataObject, question: Question) -> Any:
    """What some process may say."""
    if data.draw(st.integers(0, 9)) == 0:
        return Silent("has died")
    if question.place == NODE:
        return data.draw(NODES)
    if question.what == "objects":
        return check_answer("objects", [data.draw(objects(number)) for number in question.argument])
    report = data.draw(REPORTS)
    if question.what == "calls":
        check_calls(question.argument)
        return check_answer("calls", report)
    rows = [data.draw(objects(number)) for number in range(data.draw(NUMBERS))]
    return check_answer("survey", {**report, "objects": rows, "more": data.draw(st.booleans())})


@given(st.data(), st.booleans())
def test_whatever_is_answered_there_is_an_account_of_it(data: st.DataObject, everything: bool) -> None:
    exploration = Exploration(stack=True)
    root = (*PROCESSES[0], 0)
    rounds = exploration.of_everything(objects=True) if everything else exploration.of([root])
    answers: list[Any] = []
    questions = next(rounds)
    for _ in range(100):
        answers = [answer_to(data, question) for question in questions]
        try:
            questions = rounds.send(answers)
        except StopIteration as end:
            findings = end.value
            break
    else:
        raise AssertionError("it asks without end")
    vertices = vertices_of(findings)
    assert str(graph_of(findings, vertices, circles(vertices), {}))
    assert str(Accounts(findings, "node").of((root[0], 0)))


GOOD = {"number": 1, "state": "waiting", "name": "f", "task": 1, "attempt": 0, "missing": 1, "arguments": 1}
ADDRESS = [b"a", "A", 1]
CALL = {
    "owner": b"a",
    "number": 1,
    "name": "f",
    "pid": 1,
    "for_s": 0.5,
    "waits": [],
    "stack": None,
    "light": None,
    "unread": None,
}


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("objects", {}),
        ("objects", [1]),
        ("objects", [GOOD]),
        ("objects", [{**GOOD, "for": [[1, 2, 3]]}]),
        ("objects", [{**GOOD, "for": [], "task": None}]),
        ("objects", [{"number": 1, "state": "strange", "name": "", "task": None}]),
        ("objects", [{"number": 1, "state": "done", "name": "", "task": 3}]),
        ("objects", [{**GOOD, "state": "stopping", "worker": [1]}]),
        ("calls", []),
        ("calls", {"calls": []}),
        ("calls", {"calls": [{**CALL, "owner": 1}], "complete": True}),
        ("calls", {"calls": [{**CALL, "waits": [1]}], "complete": True}),
        ("survey", {"calls": [], "complete": True}),
        ("survey", {"calls": [], "complete": True, "objects": [None], "more": False}),
    ],
)
def test_what_is_no_answer_is_refused(what: str, answer: Any) -> None:
    with pytest.raises(ProtocolError):
        check_answer(what, answer)


@pytest.mark.parametrize(
    "argument", [None, [], [None, 1], [[1], True], [[[b"a"]], True], [[["a", 1]], False]]
)
def test_what_is_no_question_for_calls_is_refused(argument: Any) -> None:
    with pytest.raises(ProtocolError):
        check_calls(argument)


def test_a_question_for_calls_names_them_or_means_all() -> None:
    assert check_calls([None, True]) == (None, True)
    assert check_calls([[[b"a", 1]], False]) == ({(b"a", 1)}, False)
