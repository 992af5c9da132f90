"""Whatever several processes do with references at once: each leads to its value, and nothing is left."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import asyncray as ray
from asyncray.exceptions import TaskCancelledError
from tests.cluster.tables import (
    BearerError,
    Tables,
    get,
    own,
    own_async,
    remote,
    same,
    same_async,
    session,
    stash,
    stash_async,
    worth,
)

LIMIT_S = 20
#: Above the inline limit of 100 KiB, and so large that copies would show.
SIZES = [10, 200 * 1024, 3_000_000]


# ---- everything at once ----

Tree = int | list["Tree"]


class Holding(RuleBasedStateMachine):
    """References that go through processes in every way; each must lead to its value while it is held.

    What an object is worth is a tree: a number, or a list of what the references inside are worth.
    """

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables
        self.held: list[tuple[Any, Tree]] = []
        #: What workers keep: pid, key and the worth of each reference in it.
        self.kept: list[tuple[int, str, list[Tree]]] = []
        self.count = itertools.count()

    # Positions are drawn, and not references: what Hypothesis draws it holds.

    def one(self, data: st.DataObject) -> tuple[Any, Tree]:
        return self.held[data.draw(st.integers(0, len(self.held) - 1))]

    def some(self, data: st.DataObject) -> list[tuple[Any, Tree]]:
        return [self.one(data) for _ in range(data.draw(st.integers(0, 3)))] if self.held else []

    @rule()
    def put_a_number(self) -> None:
        number = next(self.count)
        self.held.append((ray.put(number), number))

    @rule(data=st.data())
    def put_references(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        self.held.append((ray.put([ref for ref, _ in chosen]), [tree for _, tree in chosen]))

    @rule(data=st.data(), hops=st.integers(0, 2), function=st.sampled_from([same, same_async]))
    def send_references_through_workers(self, data: st.DataObject, hops: int, function: Any) -> None:
        chosen = self.some(data)
        back = get(hop.remote(function, [ref for ref, _ in chosen], hops))
        assert all(a is b for a, (b, _) in zip(back, chosen, strict=True))

    @rule(data=st.data(), function=st.sampled_from([own, own_async]), size=st.sampled_from([0, 200_000]))
    def let_a_worker_own(self, data: st.DataObject, function: Any, size: int) -> None:
        chosen = self.some(data)
        made = function.remote([*(ref for ref, _ in chosen), *([bytes(size)] if size else [])])
        tree = [tree for _, tree in chosen]
        if data.draw(st.booleans()):
            self.held.append((made, [tree]))
        else:
            self.held.append((get(made)[0], tree))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), function=st.sampled_from([same, same_async]))
    def resolve(self, data: st.DataObject, function: Any) -> None:
        ref, tree = self.one(data)
        self.held.append((function.remote(ref), tree))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def look_inside(self, data: st.DataObject) -> None:
        ref, tree = self.one(data)
        value = get(ref)
        if isinstance(tree, list):
            found = [part for part in value if isinstance(part, ray.ObjectRef)]
            assert len(found) == len(tree)
            self.held.extend(zip(found, tree, strict=True))

    @rule(data=st.data(), function=st.sampled_from([stash, stash_async]), direct=st.booleans())
    def keep_in_a_worker(self, data: st.DataObject, function: Any, direct: bool) -> None:
        chosen, key = self.some(data), str(next(self.count))
        refs: Any = [ref for ref, _ in chosen]
        pid = get(function.remote(key, ray.put(refs) if direct else refs))
        self.kept.append((pid, key, [tree for _, tree in chosen]))

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), take=st.booleans())
    def read_in_a_worker(self, data: st.DataObject, take: bool) -> None:
        chosen = data.draw(st.sampled_from(self.kept))
        pid, key, trees = chosen
        if pid in self.tables.pids():
            assert [self.tables.worth_in(pid, key, i) for i in range(len(trees))] == trees
            if take:
                self.tables.forget_in(pid, key)
        if take:
            self.kept.remove(chosen)

    @rule(data=st.data())
    def fail_with_references(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        with pytest.raises(BearerError) as caught:
            get(fail_with.remote([ref for ref, _ in chosen]))
        self.held.extend((ref, tree) for ref, (_, tree) in zip(caught.value.refs, chosen, strict=True))
        caught.value.__traceback__ = None

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Whether it had ended by then is a matter of chance."""
        chosen = self.some(data)
        made = own.remote([ref for ref, _ in chosen])
        ray.cancel(made)
        try:
            assert worth(made) == [[tree for _, tree in chosen]]
        except TaskCancelledError:
            return

    @rule(data=st.data())
    def forget_a_result(self, data: st.DataObject) -> None:
        own.remote([ref for ref, _ in self.some(data)])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def check(self, data: st.DataObject) -> None:
        ref, tree = self.one(data)
        assert worth(ref) == tree
        assert get(remote(worth).remote([ref])) == [tree]

    def teardown(self) -> None:
        assert [worth(ref) for ref, _ in self.held] == [tree for _, tree in self.held]
        self.held.clear()
        self.tables.clear_attics()
        gc.collect()
        self.tables.settle()
        session().owner.objects.validate()


@remote
def hop(function: Any, refs: list[Any], hops: int) -> Any:
    """Pass references on through more workers, and back."""
    return ray.get(hop.remote(function, refs, hops - 1) if hops else function.remote(refs))


@remote
def fail_with(refs: list[Any]) -> None:
    raise BearerError(refs)


def test_every_reference_leads_to_its_value_and_nothing_is_left_behind(tables: Tables) -> None:
    run_state_machine_as_test(
        lambda: Holding(tables),  # type: ignore[arg-type]
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
            # What a failing example has left behind would fail every attempt to shrink it.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
