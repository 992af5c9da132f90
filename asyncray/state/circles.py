"""Who can never go on: those that wait for each other, and those that wait for them.

What waits has requirements: so much of what its targets give when they go on. All of them for the arguments
of a task; one of them for a `wait` for the first; as many units as are missing for a resource whose holders
are the targets. Whatever is not known goes on.

Rule 1: pure; all that is decided here follows from the vertices.
Rule 2: the vertices are no picture of one moment. What the same vertex says twice was so in between, too: see
        :func:`settled`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must happen before a vertex goes on."""

    reason: str
    #: What each target gives when it goes on. Targets that are no vertices go on.
    targets: Mapping[Hashable, int]
    #: How much is needed of that.
    need: int
    #: Tells this wait from a later one that looks the same.
    number: int = 0
    #: What the targets hold.
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class Vertex:
    """Something that waits or is waited for."""

    kind: str
    name: str
    state: str
    pid: int | None = None
    requirements: tuple[Requirement, ...] = ()
    #: Whether one of the requirements is enough.
    any_of: bool = False


def stuck(vertices: Mapping[Hashable, Vertex]) -> set[Hashable]:
    """The vertices that can never go on, whatever the others do."""
    waiting: dict[Hashable, list[tuple[Hashable, int, int]]] = {}
    #: What each requirement still needs, and how many requirements each vertex does.
    needs: dict[tuple[Hashable, int], int] = {}
    unmet: dict[Hashable, int] = {}
    going: deque[Hashable] = deque()
    for key, vertex in vertices.items():
        open_ones = 0
        for index, requirement in enumerate(vertex.requirements):
            given = sum(weight for to, weight in requirement.targets.items() if to not in vertices)
            needs[key, index] = requirement.need - given
            open_ones += needs[key, index] > 0
            for target, weight in requirement.targets.items():
                waiting.setdefault(target, []).append((key, index, weight))
        met = len(vertex.requirements) - open_ones
        unmet[key] = 0 if vertex.any_of and met else min(open_ones, 1) if vertex.any_of else open_ones
        if not unmet[key]:
            going.append(key)
    while going:
        for key, index, weight in waiting.get(going.popleft(), ()):
            before = needs[key, index]
            needs[key, index] = before - weight
            if before > 0 >= needs[key, index] and unmet[key]:
                unmet[key] -= 1
                if not unmet[key]:
                    going.append(key)
    return {key for key, left in unmet.items() if left}


def circles(vertices: Mapping[Hashable, Vertex]) -> list[list[Hashable]]:
    """A shortest circle of each knot of vertices that can never go on, in the order of the vertices."""
    return [way for way, _ in knots(vertices)]


def knots(vertices: Mapping[Hashable, Vertex]) -> list[tuple[list[Hashable], set[Hashable]]]:
    """The knots of vertices that can never go on: a shortest circle of each, and all that are in the knot."""
    lost = stuck(vertices)
    after = _waited_for({key: _targets(vertices[key], lost) for key in vertices if key in lost})
    before = _reversed(after)
    found: list[tuple[list[Hashable], set[Hashable]]] = []
    seen: set[Hashable] = set()
    for key in after:
        if key in seen:
            continue
        # Everything that can be reached from it, and that it can be reached from.
        knot = _reachable(after, key) & _reachable(before, key)
        seen |= knot | {key}
        if key in knot:
            found.append((_circle(after, key), knot))
    return found


def settled(before: Mapping[Hashable, Vertex], after: Mapping[Hashable, Vertex]) -> dict[Hashable, Vertex]:
    """The vertices of the second look, without the waits that were not there at the first."""
    return {key: _settled(before.get(key), vertex) for key, vertex in after.items()}


def _settled(before: Vertex | None, after: Vertex) -> Vertex:
    known = () if before is None else before.requirements
    kept = tuple(requirement for requirement in after.requirements if requirement in known)
    if after.any_of and not len(kept) == len(known) == len(after.requirements):
        kept = ()  # with fewer ways to go on it would seem to be stuck
    return replace(after, requirements=kept)


def _targets(vertex: Vertex, among: set[Hashable]) -> list[Hashable]:
    every = (target for requirement in vertex.requirements for target in requirement.targets)
    return [target for target in dict.fromkeys(every) if target in among]


def _waited_for(after: dict[Hashable, list[Hashable]]) -> dict[Hashable, list[Hashable]]:
    """Leave out those that nobody waits for, those that only they wait for, and so on: no circle has them."""
    waiters = dict.fromkeys(after, 0)
    for targets in after.values():
        for target in targets:
            waiters[target] += 1
    todo = [key for key, count in waiters.items() if not count]
    while todo:
        key = todo.pop()
        del waiters[key]
        for target in after[key]:
            waiters[target] -= 1
            if not waiters[target]:
                todo.append(target)
    return {key: after[key] for key in after if key in waiters}


def _reversed(after: Mapping[Hashable, Iterable[Hashable]]) -> dict[Hashable, list[Hashable]]:
    before: dict[Hashable, list[Hashable]] = {key: [] for key in after}
    for key, targets in after.items():
        for target in targets:
            before[target].append(key)
    return before


def _reachable(after: Mapping[Hashable, Iterable[Hashable]], start: Hashable) -> set[Hashable]:
    """What can be reached from *start* by one step or more."""
    found: set[Hashable] = set()
    todo = list(after[start])
    while todo:
        key = todo.pop()
        if key not in found:
            found.add(key)
            todo.extend(after[key])
    return found


def _circle(after: Mapping[Hashable, Iterable[Hashable]], start: Hashable) -> list[Hashable]:
    """The shortest way from *start* back to it; the end is left out."""
    came: dict[Hashable, Hashable] = {}
    todo = deque([start])
    while start not in came:
        key = todo.popleft()
        for target in after[key]:
            if target not in came:
                came[target] = key
                todo.append(target)
    way = [came[start]]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]
