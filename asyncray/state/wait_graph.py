"""The wait graph: what an exploration has found, as vertices, and as the public `WaitGraph`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..explanation import WaitEdge, WaitGraph, WaitNode
from .circles import Requirement, Vertex

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from .inquiry import Findings, Key

#: What an owner says of an object, and what it waits for then.
_STATES: Final = {"waiting": "arguments", "queued": "queued", "sent": "sent", "stopping": "stopping"}
#: The second half of the key of a worker that runs several calls: no task has the number.
_WORKER: Final = -1


def vertices_of(findings: Findings) -> dict[Hashable, Vertex]:
    """Every unfinished task that was found, and what it waits for."""
    vertices: dict[Hashable, Vertex] = {}
    for key, fact in findings.objects.items():
        task = findings.task_of(key)
        if task is None or fact["state"] not in _STATES or task in vertices:
            continue
        call = findings.calls.get(task)
        if call is not None:
            vertices[task] = _running(findings, call)
        else:
            vertices[task] = _not_running(findings, key, fact)
    for task, call in findings.calls.items():
        if task not in vertices:
            vertices[task] = _running(findings, call)
    for worker, keys in findings.running.items():
        if len(keys) > 1:
            vertices[worker, _WORKER] = _shared(findings, keys)
    return vertices


def _running(findings: Findings, call: dict[str, Any]) -> Vertex:
    waits = [wait for wait in call["waits"] if wait["need"]]
    requirements = []
    for wait in waits:
        targets = _tasks(findings, wait["for"])
        # What was left out of the list is taken to come.
        need = wait["need"] - (wait["count"] - len(wait["for"])) - (len(wait["for"]) - sum(targets.values()))
        requirements.append(Requirement("get", targets, need, wait["number"]))
    # Whoever waits for what nobody knows is taken to go on.
    known = len(waits) == len(call["waits"])
    state = "blocked" if call["waits"] else "running"
    needed = tuple(requirements) if known else ()
    return Vertex(call.get("kind", "task"), call["name"], state, call["pid"], needed, any_of=True)


def _not_running(findings: Findings, key: Key, fact: dict[str, Any]) -> Vertex:
    state = _STATES[fact["state"]]
    requirements: tuple[Requirement, ...] = ()
    if state == "arguments":
        targets = _tasks(findings, fact["for"])
        requirements = (Requirement("argument", targets, sum(targets.values()), fact["attempt"]),)
    elif state == "queued":
        demand = findings.demand_of(key)
        if demand is not None:
            names = findings.lacking(demand)
            requirements = tuple(_for_resource(findings, name, demand[4][name]) for name in names)
            state = "resources" if names else state
    worker = fact.get("worker")
    if state == "sent" and fact.get("turns"):
        # It begins when a call that runs there ends, if there are as many as the actor takes.
        running = findings.before(worker[0], fact)  # type: ignore[index]
        if len(running) >= fact["turns"]:
            requirements = (Requirement("turn", dict.fromkeys(running, 1), 1, fact["attempt"]),)
    pid = worker[2] if worker else None
    return Vertex(fact.get("kind", "task"), fact["name"], state, pid, requirements)


def _tasks(findings: Findings, addresses: Iterable[Any]) -> dict[Hashable, int]:
    """The unfinished tasks that make some objects, and how many of the objects each makes."""
    targets: dict[Hashable, int] = {}
    for process_id, _, number in addresses:
        task = findings.task_of((process_id, number))
        if task is not None:
            targets[task] = targets.get(task, 0) + 1
    return targets


def _for_resource(findings: Findings, name: str, wanted: int) -> Requirement:
    """A resource of which less is free than is wanted: its holders must give so much back."""
    node = findings.node or {}
    need = wanted - node["free"].get(name, 0)
    targets: dict[Hashable, int] = {}
    for worker, _, _, units in findings.holders_of([name]):
        keys = findings.running.get(worker, [])
        if not keys:
            need -= units[name]  # nobody knows what it does: it may end
            continue
        holder: Hashable = keys[0] if len(keys) == 1 else (worker, _WORKER)
        targets[holder] = targets.get(holder, 0) + units[name]
    if wanted > node["total"].get(name, 0):
        # No holder can help; without targets it is no part of a circle either.
        return Requirement("resources", {}, wanted, resource=name)
    return Requirement("resources", targets, need, resource=name)


def _shared(findings: Findings, keys: list[Key]) -> Vertex:
    """A worker with several calls: it gives back what it holds when all of them have ended."""
    first = findings.calls[keys[0]]
    needed = Requirement("resources", dict.fromkeys(keys, 1), len(keys))
    return Vertex("worker", f"{len(keys)} coroutines", "running", first["pid"], (needed,))


def graph_of(
    findings: Findings,
    vertices: Mapping[Hashable, Vertex],
    found: Iterable[list[Hashable]],
    names: Mapping[bytes, str],
) -> WaitGraph:
    """The graph as users see it.

    Args:
        findings: Where the vertices come from.
        vertices: All of them.
        found: Circles among them.
        names: What processes are called, by process id.
    """
    ids = {key: _id(key) for key in vertices}
    nodes = [WaitNode(ids[k], v.kind, v.name, v.state, v.pid) for k, v in vertices.items()]  # type: ignore[arg-type]
    edges: dict[WaitEdge, None] = {}
    for key, vertex in vertices.items():
        for requirement in vertex.requirements:
            for target in requirement.targets:
                if target in ids:
                    reason: Any = requirement.reason
                    edges[WaitEdge(ids[key], ids[target], reason, requirement.resource)] = None
    missing = [f"{names.get(process, 'A process')} {why}." for process, why in findings.silent.items()]
    if findings.left_out:
        missing.append("There is more than is shown here.")
    cycles = tuple(tuple(ids[key] for key in _from_a_running(vertices, circle)) for circle in found)
    return WaitGraph(tuple(nodes), tuple(edges), cycles, tuple(missing))


def _from_a_running(vertices: Mapping[Hashable, Vertex], circle: list[Hashable]) -> list[Hashable]:
    """The same circle, told from a task that runs, if one does: its name says most."""
    start = next((i for i, key in enumerate(circle) if vertices[key].state == "blocked"), 0)
    return circle[start:] + circle[:start]


def _id(key: Any) -> str:
    process_id, number = key
    return f"{process_id.hex()}:{'worker' if number == _WORKER else number}"
