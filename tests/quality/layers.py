"""The floors of the house, and what breaks their rules.

Rule 1: a module imports its own floor and those below, never above. An import inside a function counts too:
    it may be late, but it may not point up.
Rule 2: no cycle among the modules of a floor, not even one that is broken by a late import.
Rule 3: the pure rooms know no event loop, socket, clock, thread or random number.
Rule 4: what is built on the public names alone knows no private room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .source import Import, Package

#: From the top down. A name stands for a module or a whole folder right inside the package; "" is the
#: package's own `__init__.py`. Rooms of one floor may import each other, as long as no cycle comes of it.
FLOORS: list[set[str]] = [
    {"cli", "testing", "util"},
    {""},
    {"api", "aio", "explaining", "memory", "serialization"},
    {"groups", "mapping"},
    {"progress"},
    {"remote"},
    {"context", "scopes"},
    {"actor", "named_actors"},
    {"actor_handle"},
    {"actor_bindings", "lifecycle"},
    {"readiness"},
    {"programs"},
    # A worker is a client too; a client starts its node; the head lives inside a node.
    {"worker"},
    {"client"},
    {"node"},
    {"head"},
    {"store"},
    {"net"},
    {"state"},
    {"wire"},
    {
        "actor_options",
        "actor_shape",
        "config",
        "labels",
        "exceptions",
        "explanation",
        "generators",
        "ids",
        "init_options",
        "options",
        "parameters",
        "process",
        "refs",
        "resources",
        "runtime_env",
        "validation",
    },
]

#: Rooms that decide or translate, and do nothing else.
PURE = {"state", "wire"}

#: What the pure rooms may not import.
IMPURE = {
    "anyio",
    "asyncio",
    "concurrent",
    "datetime",
    "multiprocessing",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "uuid",
    "uvloop",
}

#: Rooms built on the public names alone, as a user's own helpers would be.
GUESTS = {"util"}

PRIVATE = {"programs", "worker", "client", "node", "head", "store", "net", "state", "wire"}


def violations(package: Package) -> Iterator[str]:
    """Yield one line for each breach of a rule."""
    known = {room for floor in FLOORS for room in floor}
    for module in package:
        if _room(package, module.name) not in known:
            yield f"{module.name} stands on no floor: give it one in tests/quality/layers.py"
    imports = list(package.imports())
    for found in imports:
        yield from _check(package, found)
    yield from _cycles(package, imports)


def _check(package: Package, found: Import) -> Iterator[str]:
    room = _room(package, found.importer)
    if not _is_inside(package, found.target):
        if room in PURE and found.target.partition(".")[0] in IMPURE:
            yield f"{found}: {room}/ is pure"
        return
    target = _room(package, found.target)
    if target == room:
        return
    if _floor(target) < _floor(room):
        yield f"{found}: up, from {_shown(room)} to {_shown(target)}"
    elif room in GUESTS and target in PRIVATE:
        yield f"{found}: {room}/ is built on the public names alone"


def _cycles(package: Package, imports: Iterable[Import]) -> Iterator[str]:
    """Yield one line for each knot: modules that reach each other by imports."""
    graph: dict[str, set[str]] = {module.name: set() for module in package}
    for found in imports:
        if found.target in graph and not _is_own_folder(package, found):
            graph[found.importer].add(found.target)
    reach = {name: _reachable(graph, name) for name in graph}
    knots = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph}
    yield from (f"cycle: {', '.join(sorted(knot))}" for knot in sorted(knots, key=sorted) if knot)


def _is_own_folder(package: Package, found: Import) -> bool:
    """Whether a module names its own folder: `from . import sibling` where the name is no module."""
    return found.target != found.importer and found.importer.startswith(f"{found.target}.")


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(graph[name])
    return seen


def _is_inside(package: Package, name: str) -> bool:
    return name == package.name or name.startswith(f"{package.name}.")


def _room(package: Package, name: str) -> str:
    """Return the module or folder right inside the package that a dotted name lies in."""
    return name.removeprefix(package.name).lstrip(".").partition(".")[0]


def _floor(room: str) -> int:
    """Return how many floors lie above the room; a room without a floor counts as the ground."""
    return next((number for number, floor in enumerate(FLOORS) if room in floor), len(FLOORS))


def _shown(room: str) -> str:
    return room or "__init__"
