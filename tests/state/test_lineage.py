"""A task is remembered while one of its returns, or of those made from them, is in scope, and no longer."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncray.state.lineage import DISABLED, EVICTED, USED_UP, Lineage, Spec

SIZE = 10
ROOM = 12 * SIZE


def spec(number: int, *parents: Spec, retries: int = 3, size: int = SIZE) -> Spec:
    return Spec(
        f"task {number}", [number], f"call {number}", parents=parents, size_bytes=size, retries=retries
    )


def test_a_task_is_forgotten_with_its_last_return() -> None:
    lineage = Lineage(ROOM)
    two = Spec("two", [1, 2], "call", size_bytes=SIZE, retries=3)
    assert lineage.keep(two, [1, 2]) == []
    assert lineage.let_go(1) == []
    assert lineage.let_go(1) == []
    assert len(lineage) == 1
    assert lineage.let_go(2) == ["call"]
    assert (len(lineage), lineage.size_bytes, lineage.specs) == (0, 0, {})


def test_an_argument_is_remembered_as_long_as_what_was_made_from_it() -> None:
    lineage = Lineage(ROOM)
    first = spec(1)
    second = spec(2, first)
    third = spec(3, second, first)
    for number, each in enumerate((first, second, third), 1):
        lineage.keep(each, [number])
    assert lineage.let_go(1) == lineage.let_go(2) == []
    # An argument that is made again is in scope once more.
    lineage.hold(1, first)
    assert sorted(lineage.let_go(3)) == ["call 2", "call 3"]
    assert lineage.let_go(1) == ["call 1"]


def test_a_chain_may_be_long() -> None:
    lineage = Lineage(10**9)
    last = spec(0)
    lineage.keep(last, [0])
    for number in range(1, 50_000):
        following = spec(number, last)
        lineage.keep(following, [number])
        assert lineage.let_go(number - 1) == []
        last = following
    assert len(lineage.let_go(49_999)) == 50_000


def test_runs_are_counted() -> None:
    lineage = Lineage(ROOM)
    one = spec(1, retries=2)
    without_end = spec(2, retries=-1)
    lineage.keep(one, [1])
    lineage.keep(without_end, [2])
    assert [lineage.begin(one) for _ in range(4)] == [0, 0, USED_UP, USED_UP]
    assert [lineage.begin(without_end) for _ in range(4)] == [0, 0, 0, 0]
    assert (one.attempt, without_end.attempt) == (2, 4)


def test_a_task_that_may_not_run_again_takes_no_room() -> None:
    lineage = Lineage(ROOM)
    never = Spec("never", [1], None, reason=DISABLED)
    lineage.keep(never, [1])
    assert (len(lineage), lineage.size_bytes) == (0, 0)
    assert lineage.begin(never) == DISABLED
    lineage.let_go(1)
    assert lineage.specs == {}


def test_the_oldest_are_forgotten_for_the_newest() -> None:
    lineage = Lineage(3 * SIZE)
    oldest, old, new = spec(1), spec(2), spec(3)
    for number, each in enumerate((oldest, old, new), 1):
        assert lineage.keep(each, [number]) == []
    large = spec(4, oldest, size=2 * SIZE)
    assert lineage.keep(large, [4]) == ["call 1", "call 2"]
    assert lineage.begin(oldest) == lineage.begin(old) == EVICTED
    assert lineage.begin(new) == lineage.begin(large) == 0
    assert lineage.keep(spec(5, size=99), [5]) == ["call 3", "call 4", "call 5"]
    lineage.validate()


class Machine(RuleBasedStateMachine):
    """Tasks that end, objects that are dropped, revived and made again, against a model that looks at all."""

    def __init__(self) -> None:
        super().__init__()
        self.lineage = Lineage(ROOM)
        self.numbers = 0
        #: By number: the specs ever made, with their parents as they were.
        self.all: dict[int, tuple[Spec, list[Spec]]] = {}
        self.in_scope: dict[int, Spec] = {}
        #: In the order in which they were kept.
        self.order: list[Spec] = []
        self.evicted: set[Spec] = set()

    def needed(self) -> set[Spec]:
        """The specs that must be kept, were there room."""
        found = {spec for spec in self.in_scope.values() if spec in self.order}
        todo = list(found)
        parents = dict(self.all.values())
        while todo:
            for parent in parents[todo.pop()]:
                if parent in self.order and parent not in found:
                    found.add(parent)
                    todo.append(parent)
        return found

    def forget(self) -> None:
        self.order = [spec for spec in self.order if spec in self.needed()]

    def known(self) -> list[Spec]:
        return [spec for spec, _ in self.all.values()]

    @rule(data=st.data(), returns=st.integers(1, 3), size=st.integers(1, 4), retries=st.integers(-1, 2))
    def keep(self, data: Any, returns: int, size: int, retries: int) -> None:
        # Arguments are in scope when their task ends; what is known of them may be forgotten already.
        possible = list(dict.fromkeys(self.in_scope.values()))
        parents = data.draw(st.lists(st.sampled_from(possible), max_size=3, unique=True)) if possible else []
        numbers = [self.numbers + index for index in range(returns)]
        self.numbers += returns
        may_run = retries != 0
        made = Spec(
            f"task {numbers[0]}",
            numbers,
            object() if may_run else None,
            parents=parents if may_run else (),
            size_bytes=size * SIZE if may_run else 0,
            retries=retries,
            reason=0 if may_run else DISABLED,
        )
        stored = numbers[: data.draw(st.integers(1, returns))]
        self.all[numbers[0]] = made, parents if may_run else []
        for number in stored:
            self.in_scope[number] = made
        if may_run:
            self.order.append(made)
        before = len(self.lineage)
        garbage = self.lineage.keep(made, stored)
        while sum(spec.size_bytes for spec in self.order) > ROOM:
            self.evicted.add(self.order.pop(0))
            self.forget()
        assert len(garbage) == before + may_run - len(self.order)

    @precondition(lambda self: self.in_scope)
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_scope)))
        del self.in_scope[number]
        before = len(self.lineage)
        garbage = self.lineage.let_go(number)
        self.forget()
        assert len(garbage) == before - len(self.order)

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def revive(self, data: Any) -> None:
        spec = data.draw(st.sampled_from(self.order))
        gone = [number for number in spec.returns if number not in self.in_scope]
        if gone:
            self.in_scope[gone[0]] = spec
            self.lineage.hold(gone[0], spec)

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def run(self, data: Any) -> None:
        spec = data.draw(st.sampled_from(self.known()))
        left = spec.retries
        reason = self.lineage.begin(spec)
        if spec in self.order:
            assert reason == (USED_UP if not left else 0)
            assert spec.retries == (left if left <= 0 else left - 1)
        elif spec in self.evicted:
            assert reason == EVICTED

    @invariant()
    def keeps_what_is_needed_and_nothing_else(self) -> None:
        self.lineage.validate()
        assert self.lineage.specs == self.in_scope
        assert list(self.lineage._kept) == self.order
        assert len(self.lineage) == len(self.order)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40)
