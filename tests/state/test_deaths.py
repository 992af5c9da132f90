"""A death is told after those of all that worked for the dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncray.state.deaths import Deaths


def test_a_death_without_orphans_is_told_at_once() -> None:
    told: list[int] = []
    Deaths().died(1, [], lambda: told.append(1))
    assert told == [1]


def test_a_death_with_orphans_is_told_when_they_have_ended() -> None:
    deaths, told = Deaths(), []
    deaths.died(1, [2, 3], lambda: told.append(1))
    deaths.died(2, [], lambda: told.append(2))
    assert told == [2]
    deaths.died(4, [], lambda: told.append(4))
    deaths.died(3, [], lambda: told.append(3))
    assert told == [2, 4, 3, 1]
    assert not len(deaths)


@given(parents=st.lists(st.integers(0, 30), max_size=12), order=st.randoms())
def test_every_death_is_told_once_and_after_those_below_it(parents: list[int], order: object) -> None:
    """A tree of workers: each, but the first, works for an earlier one; they die in any order."""
    works_for = {worker: parent % worker for worker, parent in enumerate(parents, 1)}
    dying = [0, *works_for]
    order.shuffle(dying)  # type: ignore[attr-defined]
    deaths, told = Deaths(), []
    alive = set(dying)
    for worker in dying:
        alive.discard(worker)
        orphans = [child for child, parent in works_for.items() if parent == worker and child in alive]
        deaths.died(worker, orphans, lambda worker=worker: told.append(worker))  # type: ignore[misc]
    assert sorted(told) == sorted(dying)
    assert not len(deaths)
    for child, parent in works_for.items():
        if dying.index(parent) < dying.index(child):
            assert told.index(child) < told.index(parent)
