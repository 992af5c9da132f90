"""Who can never go on, and the circles among them: against a slow and simple check of the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from asyncray.state.circles import Requirement, Vertex, circles, settled, stuck

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

NAMES = "abcdef"


def vertex(*requirements: Requirement, any_of: bool = False) -> Vertex:
    return Vertex("task", "name", "blocked", None, requirements, any_of=any_of)


def all_of(*targets: str) -> Requirement:
    return Requirement("get", dict.fromkeys(targets, 1), len(targets))


def one_of(*targets: str) -> Requirement:
    return Requirement("get", dict.fromkeys(targets, 1), 1)


@st.composite
def graphs(draw: st.DrawFn) -> dict[Hashable, Vertex]:
    """Some vertices, whose targets may be unknown."""
    requirement = st.builds(
        Requirement,
        st.just("get"),
        st.dictionaries(st.sampled_from(NAMES + "?!"), st.integers(1, 3), max_size=4),
        st.integers(-1, 7),
    )
    vertices = st.builds(
        Vertex,
        st.just("task"),
        st.just("name"),
        st.just("blocked"),
        st.none(),
        st.lists(requirement, max_size=3).map(tuple),
        any_of=st.booleans(),
    )
    return draw(st.dictionaries(st.sampled_from(NAMES), vertices, max_size=6))


def goes_on(vertex: Vertex, gone: set[Any], known: Mapping[Hashable, Vertex]) -> bool:
    """Whether a vertex goes on when those that are gone have."""
    if not vertex.requirements:
        return True
    met = [
        sum(weight for to, weight in r.targets.items() if to in gone or to not in known) >= r.need
        for r in vertex.requirements
    ]
    return any(met) if vertex.any_of else all(met)


def slowly_stuck(vertices: Mapping[Hashable, Vertex]) -> set[Hashable]:
    gone: set[Hashable] = set()
    while more := {key for key, v in vertices.items() if key not in gone and goes_on(v, gone, vertices)}:
        gone |= more
    return set(vertices) - gone


@given(graphs())
def test_those_that_can_never_go_on_are_found(vertices: dict[Hashable, Vertex]) -> None:
    assert stuck(vertices) == slowly_stuck(vertices)


@given(graphs())
def test_each_circle_is_one_of_vertices_that_can_never_go_on(vertices: dict[Hashable, Vertex]) -> None:
    lost = stuck(vertices)
    seen: set[Hashable] = set()
    for circle in circles(vertices):
        assert len(set(circle)) == len(circle)
        assert lost.issuperset(circle)
        assert seen.isdisjoint(circle), "two circles of one knot"
        seen.update(circle)
        for source, target in zip(circle, [*circle[1:], circle[0]], strict=True):
            assert any(target in requirement.targets for requirement in vertices[source].requirements)


@given(graphs())
def test_there_is_a_circle_wherever_the_stuck_wait_only_for_the_stuck(
    vertices: dict[Hashable, Vertex],
) -> None:
    lost = stuck(vertices)

    def waits(key: Hashable) -> bool:
        return any(target in lost for r in vertices[key].requirements for target in r.targets)

    if lost and all(waits(key) for key in lost):
        assert circles(vertices)


@given(graphs(), graphs())
def test_what_was_seen_once_is_not_believed(
    first: dict[Hashable, Vertex], second: dict[Hashable, Vertex]
) -> None:
    both = settled(first, second)
    assert both.keys() == second.keys()
    for key, seen in both.items():
        known = first[key].requirements if key in first else ()
        assert all(requirement in known for requirement in seen.requirements)
    assert stuck(both) <= stuck(second)
    assert settled(first, first) == first


def test_two_that_wait_for_each_other_are_a_circle() -> None:
    assert circles({"a": vertex(all_of("b")), "b": vertex(all_of("a"))}) == [["a", "b"]]


def test_one_that_waits_for_itself_is_a_circle() -> None:
    assert circles({"a": vertex(all_of("a"))}) == [["a"]]


def test_the_shortest_circle_is_told_and_those_that_wait_for_it_are_not() -> None:
    graph: dict[Hashable, Vertex] = {
        "outside": vertex(all_of("a")),
        "a": vertex(all_of("b", "c")),
        "b": vertex(all_of("c")),
        "c": vertex(all_of("a")),
    }
    assert stuck(graph) == {"outside", "a", "b", "c"}
    assert circles(graph) == [["a", "c"]]


def test_a_wait_for_the_first_of_several_is_lost_with_the_last_of_them() -> None:
    graph: dict[Hashable, Vertex] = {"a": vertex(one_of("b", "c")), "b": vertex(all_of("a")), "c": vertex()}
    assert stuck(graph) == set()
    graph["c"] = vertex(all_of("a"))
    assert stuck(graph) == {"a", "b", "c"}


def test_a_coroutine_goes_on_when_one_of_its_waits_does() -> None:
    graph: dict[Hashable, Vertex] = {"a": vertex(all_of("a"), all_of("b"), any_of=True), "b": vertex()}
    assert stuck(graph) == set()
    graph["b"] = vertex(all_of("a"))
    assert stuck(graph) == {"a", "b"}


def test_a_resource_comes_back_as_soon_as_enough_of_its_holders_go_on() -> None:
    wants = Requirement("resources", {"held": 10, "goes on": 20}, 20, resource="slot")
    graph: dict[Hashable, Vertex] = {
        "child": vertex(wants),
        "held": vertex(all_of("child")),
        "goes on": vertex(),
    }
    assert stuck(graph) == set()
    graph["child"] = vertex(Requirement("resources", {"held": 10, "goes on": 20}, 25, resource="slot"))
    assert stuck(graph) == {"child", "held"}


def test_what_nobody_has_is_no_circle() -> None:
    graph: dict[Hashable, Vertex] = {"a": vertex(Requirement("resources", {}, 1, resource="magic"))}
    assert stuck(graph) == {"a"}
    assert circles(graph) == []


def test_a_large_graph_is_no_trouble() -> None:
    count = 20_000
    graph: dict[Hashable, Vertex] = {
        n: vertex(Requirement("get", {(n + 1) % count: 1}, 1)) for n in range(count)
    }
    (circle,) = circles(graph)
    assert len(circle) == count
    del graph[0]
    assert stuck(graph) == set()
