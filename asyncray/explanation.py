"""What ``explain`` and ``wait_graph`` return: who waits for what, as fields and as plain sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

#: What an object is waiting for, or has come to.
State: TypeAlias = Literal[
    "done",  # its value is there
    "failed",  # its failure is
    "arguments",  # its task waits for references among its arguments
    "resources",  # for what others hold of the node
    "infeasible",  # for what the node does not have
    "starting",  # for a worker process that starts
    "queued",  # at its owner, for its turn
    "sent",  # at a worker, behind others
    "running",
    "blocked",  # running, and waiting there for references
    "paused",  # a generator that goes on when somebody has read of its stream
    "stopping",  # cancelled, and still running
    "lost",  # the process that must know has died
    "unknown",  # it could not be asked
]


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that holds some of a resource."""

    #: Of the task that it runs, or of one that it ran; empty while it is idle.
    name: str
    pid: int
    #: How much it holds, by resource.
    amounts: dict[str, float]
    #: References that its task waits for, by what they are called; empty while it runs.
    waits_for: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = f"{self.name!r} on" if self.name else "An idle worker with"
        text = f"{who} pid {self.pid} holds {_amounts(self.amounts)}"
        return f"{text}, and waits for {_listed(self.waits_for)}" if self.waits_for else text


@dataclass(frozen=True, slots=True)
class ResourceWait:
    """What a task needs of the node, and what there is."""

    #: Everything that it needs, by resource.
    wanted: dict[str, float]
    #: What is free of that.
    free: dict[str, float]
    #: What the node has of it in all.
    total: dict[str, float]
    #: Who holds what is missing.
    holders: tuple[Holder, ...] = ()
    #: Holders that are not listed.
    more_holders: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """Calls that go first."""

    #: How many, at least.
    ahead: int
    #: How many of each name, among those that were looked at.
    names: dict[str, int]

    def __str__(self) -> str:
        if self.ahead == 1:
            return "".join(map(repr, self.names))
        return _listed([f"{count} x {name!r}" for name, count in self.names.items()])


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an object is not there yet, or that it is. ``str()`` tells it in sentences, a line each."""

    #: Of the task that makes the object; of the object where nobody knows its task.
    name: str
    state: State
    #: What there is to say of the object itself, in sentences.
    sentences: tuple[str, ...]
    #: The objects that it waits for, each explained.
    waits_for: tuple[Explanation, ...] = ()
    #: How many of those it needs, where that is not all of them; None where it is.
    enough: int | None = None
    #: Objects that it waits for and that are not in `waits_for`.
    more: int = 0
    resources: ResourceWait | None = None
    queue: Queue | None = None
    #: Of the worker that runs the task, or has it in its queue.
    pid: int | None = None
    #: Id of the node that the worker is on.
    node: str | None = None
    #: Seconds that it has been running.
    running_s: float | None = None
    #: Seconds that it has been waiting for `waits_for`, where it runs.
    waiting_s: float | None = None
    #: Where its code stands, as in a traceback; only on request, and while it runs.
    stack: str | None = None
    #: The error of a failed object.
    error: BaseException | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> list[str]:
        below = f"{indent}  "
        lines = [indent + " ".join(self.sentences)]
        if self.resources is not None:
            lines += [f"{below}{holder}." for holder in self.resources.holders]
            if self.resources.more_holders:
                lines.append(f"{below}{self.resources.more_holders} more hold some of it.")
        if self.stack is not None:
            lines += [f"{below}| {line}" for line in self.stack.rstrip().splitlines()]
        for child in self.waits_for:
            lines += child._lines(below)
        if self.more:
            lines.append(f"{below}And {self.more} more.")
        return lines


@dataclass(frozen=True, slots=True)
class WaitNode:
    """Something that waits, or is waited for."""

    #: The same for the same thing in one graph.
    id: str
    #: "task"; "worker" for one that runs several calls at once. There will be other kinds.
    kind: str
    name: str
    state: State
    #: Of the worker that runs it.
    pid: int | None = None

    def __str__(self) -> str:
        where = f" (pid {self.pid})" if self.pid else ""
        return f"{self.name!r}{where}"


@dataclass(frozen=True, slots=True)
class WaitEdge:
    """One waits for another."""

    #: Ids of nodes.
    source: str
    target: str
    #: "argument"; "get" for every wait of running code; "resources"; "turn" for a call of an actor that is
    #: busy with others.
    reason: Literal["argument", "get", "resources", "turn"]
    #: The resource that the target holds.
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class WaitGraph:
    """Who waits for whom in a session. ``str()`` tells it in sentences, a line each."""

    nodes: tuple[WaitNode, ...]
    edges: tuple[WaitEdge, ...]
    #: Ids of nodes that wait for each other in a circle, so that none can go on; one circle for each knot.
    cycles: tuple[tuple[str, ...], ...] = ()
    #: What could not be asked, or was left out, in sentences.
    missing: tuple[str, ...] = ()

    def describe_cycle(self, cycle: tuple[str, ...]) -> str:
        """One of `cycles` in a sentence."""
        nodes = {node.id: node for node in self.nodes}
        steps = []
        for source, target in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            edges = [edge for edge in self.edges if (edge.source, edge.target) == (source, target)]
            steps.append(f"{nodes[source]} {_link(edges[0], str(nodes[target]))}")
        return "; ".join(steps)

    def __str__(self) -> str:
        names = {node.id: str(node) for node in self.nodes}
        lines = [f"{names[edge.source]} {_link(edge, names[edge.target])}." for edge in self.edges]
        lines = lines or ["Nothing waits for anything."]
        lines += [f"A circle: {self.describe_cycle(cycle)}." for cycle in self.cycles]
        return "\n".join([*lines, *self.missing])


def _link(edge: WaitEdge, target: str) -> str:
    if edge.reason == "resources":
        return f"waits for {edge.resource}, which {target} holds"
    if edge.reason == "turn":
        return f"waits for its turn behind {target}"
    how = "its argument" if edge.reason == "argument" else "the result of"
    return f"waits for {how} {target}"


def _amounts(amounts: dict[str, float]) -> str:
    return ", ".join(f"{name}: {amount:.15g}" for name, amount in amounts.items())


def _listed(names: tuple[str, ...] | list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
