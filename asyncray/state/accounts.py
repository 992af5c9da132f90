"""What an exploration has found about one object, as an `Explanation`: fields and sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..explanation import Explanation, Holder, Queue, ResourceWait
from ..resources import UNITS, describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .inquiry import Findings, Key

#: Objects that are explained below one that waits for them; of the others there is a number.
WIDTH: Final = 10
#: How deep explanations stand inside each other.
DEPTH: Final = 20
#: Explanations in one tree.
MOST: Final = 200
#: Holders of a resource that are listed.
_HOLDERS: Final = 8


class Accounts:
    """Gives one account.

    Args:
        findings: What was found.
        node: Id of the node.
    """

    def __init__(self, findings: Findings, node: str) -> None:
        self._findings = findings
        self._node = node
        self._told: set[Key] = set()

    def of(self, key: Key, path: tuple[Key, ...] = ()) -> Explanation:
        """Explain an object; *path* leads from the root to it."""
        fact = self._findings.objects.get(key)
        if fact is None:
            return self._unknown(key)
        name = fact["name"]
        task = self._findings.task_of(key) or key
        if task in path:
            text = f"{name!r}, which is told of above: they wait in a circle."
            return Explanation(name, "blocked", (text,))
        if task in self._told:
            return Explanation(name, _PLAIN.get(fact["state"], "queued"), (f"{name!r} is told of above.",))
        self._told.add(task)
        explanation = self._account(key, fact, path, task)
        if fact.get("again"):
            again = f"The value of {name!r} was there and was lost: it is made again."
            return replace(explanation, sentences=(again, *explanation.sentences))
        return explanation

    def _account(self, key: Key, fact: Mapping[str, Any], path: tuple[Key, ...], task: Key) -> Explanation:
        call = self._findings.call_of(key)
        if fact["state"] == "stopping":
            return self._stopping(fact, call)
        if call is not None:
            return self._running(fact, call, (*path, task))
        tell = {"waiting": self._waiting, "queued": self._queued, "sent": self._sent}.get(fact["state"])
        return self._ended(key, fact) if tell is None else tell(key, fact, (*path, task))

    # --- ends ---------------------------------------------------------------------------------------------

    def _unknown(self, key: Key) -> Explanation:
        name = _object(key)
        why = self._findings.silent.get(key[0], "was not asked any more")
        if why == DIED:
            text = f"The process that owned {name} has died, and its value with it."
            return Explanation(name, "lost", (text,))
        return Explanation(name, "unknown", (f"The process that owns {name} {why}.",))

    def _ended(self, key: Key, fact: Mapping[str, Any]) -> Explanation:
        name = _object(key)
        if fact["state"] == "gone":
            text = f"{_first(name)} is gone: its owner knew of nobody who held it."
            return Explanation(name, "lost", (text,))
        if fact["state"] == "failed":
            return Explanation(name, "failed", (f"{_first(name)} is done: it failed.",))
        return Explanation(name, "done", (f"{_first(name)} is done: its value is there.",))

    # --- at the owner -------------------------------------------------------------------------------------

    def _waiting(self, key: Key, fact: Mapping[str, Any], path: tuple[Key, ...]) -> Explanation:
        name, missing, every = fact["name"], fact["missing"], fact["arguments"]
        children = self._children(fact["for"], path)
        what = "its argument" if every == 1 else f"its {every} arguments"
        what = what if missing == every else f"{missing} of {what}"
        return Explanation(
            name,
            "arguments",
            (f"{name!r} waits for {what}:",),
            children,
            more=missing - len(children),
        )

    def _queued(self, key: Key, fact: Mapping[str, Any], path: tuple[Key, ...]) -> Explanation:
        name = fact["name"]
        queue = Queue(fact["ahead"], dict(fact["names"])) if fact["ahead"] else None
        findings = self._findings
        behind = () if queue is None else (f"Before it in its queue: {queue}{_at_least(fact)}.",)
        if findings.node is None and "actor" not in fact:
            why = findings.silent.get(b"", "was not asked")
            text = f"{name!r} is queued; the node {why}."
            return Explanation(name, "unknown", (text, *behind), queue=queue)
        demand = findings.demand_of(key)
        if demand is None:
            waits = _FOR_ACTORS.get(fact.get("actor", ""), "is queued, and goes to a worker in its turn")
            text = f"{name!r} {waits}."
            return Explanation(name, "queued", (text, *behind), queue=queue)
        wait = self._resources(demand)
        if impossible := self._impossible(demand):
            has = ", ".join(f"{n}: {wait.total[n]:.15g}" for n in impossible)
            wait = replace(wait, holders=(), more_holders=0)
            text = f"{name!r} can never run: it needs {describe(demand[4])}, and the node has {has}."
            return Explanation(name, "infeasible", (text,), resources=wait, queue=queue)
        if lacking := findings.lacking(demand):
            free = ", ".join(f"{n}: {wait.free[n]:.15g} of {wait.total[n]:.15g}" for n in lacking)
            text = f"{name!r} waits for resources: it needs {describe(demand[4])}, and free are {free}."
            return Explanation(
                name, "resources", (text, *self._before(demand), *behind), resources=wait, queue=queue
            )
        text, state = self._lending(name, demand)
        return Explanation(name, state, (text, *behind), resources=wait, queue=queue)

    def _lending(self, name: str, demand: list[Any]) -> tuple[str, Any]:
        node = self._findings.node or {}
        for owner, number, special in node["starting"]:
            if [owner, number] == demand[:2]:
                purpose = " with its runtime environment" if special else ""
                return f"{name!r} waits for a worker process{purpose} to start.", "starting"
        if node["full"]:
            return f"{name!r} waits for a worker: the node may start no further ones.", "starting"
        return f"{name!r} waits for the node to lend it a worker.", "resources"

    def _before(self, demand: list[Any]) -> tuple[str, ...]:
        """How many other calls the node serves first, of those that want some of the same."""
        node = self._findings.node or {}
        first = 0
        for other in node["demands"]:
            if other[:2] == demand[:2]:
                break
            if set(other[4]) & set(demand[4]) and not self._impossible(other):
                first += other[3]
        if not first:
            return ()
        return (f"The node serves {first} other call{'s' if first > 1 else ''} first.",)

    def _impossible(self, demand: list[Any]) -> list[str]:
        """The resources of which a demand wants more than the node has."""
        total = (self._findings.node or {})["total"]
        return [name for name, units in demand[4].items() if units > total.get(name, 0)]

    def _resources(self, demand: list[Any]) -> ResourceWait:
        node = self._findings.node or {}
        lacking = set(self._findings.lacking(demand))
        rows = self._findings.holders_of(lacking)
        return ResourceWait(
            _floats(demand[4]),
            # Less than nothing is free where tasks that had waited went on.
            _floats({name: max(0, node["free"].get(name, 0)) for name in demand[4]}),
            _floats({name: node["total"].get(name, 0) for name in demand[4]}),
            tuple(self._holder(row, lacking) for row in rows[:_HOLDERS]),
            max(0, len(rows) - _HOLDERS),
        )

    def _holder(self, row: list[Any], wanted: set[str]) -> Holder:
        worker, _, name, units = row
        findings = self._findings
        processes = (findings.node or {})["processes"]
        pid = next((pid for process_id, _, pid in processes if process_id == worker), 0)
        calls = [findings.calls[key] for key in findings.running.get(worker, [])]
        waits = [address for call in calls for wait in call["waits"] for address in wait["for"]]
        keys: list[Key] = [(process_id, number) for process_id, _, number in waits]
        names = dict.fromkeys(findings.name_of(key) or _object(key) for key in keys[:WIDTH])
        if worker in findings.running:
            name = calls[0]["name"] if calls else ""
        return Holder(
            name,
            pid,
            _floats({n: amount for n, amount in units.items() if n in wanted}),
            tuple(repr(n) for n in names),
        )

    # --- at a worker --------------------------------------------------------------------------------------

    def _sent(self, key: Key, fact: Mapping[str, Any], path: tuple[Key, ...]) -> Explanation:
        name = fact["name"]
        worker, _, pid = fact["worker"]
        queue = Queue(fact["ahead"], dict(fact["names"])) if fact["ahead"] else None
        why = self._findings.silent.get(worker)
        place = "" if queue is None else f", behind {queue}{_at_least(fact)}"
        there = f"the worker with pid {pid}"
        sentences = [f"{name!r} is queued at {there}{place}."]
        if why == DIED:
            text = f"{name!r} was sent to {there}, which has died: it fails or runs again in a moment."
            return Explanation(name, "lost", (text,), queue=queue, pid=pid, node=self._node)
        if why is not None:
            sentences = [f"{name!r} was sent to {there}{place}; the worker {why}."]
            return Explanation(name, "unknown", tuple(sentences), queue=queue, pid=pid, node=self._node)
        calls = [self._findings.calls[task] for task in self._findings.before(worker, fact)]  # type: ignore[arg-type]
        if calls:
            ran = _seconds(calls[0]["for_s"])
            sentences.append(f"{calls[0]['name']!r} has been running there for {ran}.")
        elif queue is None:
            sentences = [f"{name!r} was sent to {there}, which is about to begin it, or has just ended it."]
        return Explanation(name, "sent", tuple(sentences), queue=queue, pid=pid, node=self._node)

    def _running(
        self, fact: Mapping[str, Any], call: Mapping[str, Any], path: tuple[Key, ...]
    ) -> Explanation:
        name, pid = fact["name"], call["pid"]
        text = f"{name!r} has been running for {_seconds(call['for_s'])} on pid {pid}"
        attempt = (f"This is attempt {fact['attempt'] + 1}.",) if fact["attempt"] else ()
        waits = call["waits"]
        common: dict[str, Any] = {
            "pid": pid,
            "node": self._node,
            "running_s": call["for_s"],
            "stack": call.get("stack"),
        }
        if call["unread"] is not None:
            items = "1 item is" if call["unread"] == 1 else f"{call['unread']} items are"
            since = max((wait["for_s"] for wait in waits), default=0.0)
            pause = f"{text}. Its stream is paused: {items} unread."
            return Explanation(name, "paused", (*attempt, pause), waiting_s=since, **common)
        if not waits:
            return Explanation(name, "running", (f"{text}.", *attempt), **common)
        addresses = [tuple(address) for wait in waits for address in wait["for"]]
        # The same may be waited for twice.
        known = list(dict.fromkeys(addresses))
        count = sum(wait["count"] for wait in waits) - len(addresses) + len(known)
        children = self._children(known, path)
        longest = max(wait["for_s"] for wait in waits)
        enough = waits[0]["need"] if len(waits) == 1 and waits[0]["need"] < count else None
        of = "" if enough is None else f"{enough} of "
        what = f" for {of}{count} reference{'s' if count > 1 else ''}:" if count else "."
        text = f"{text}, and has been waiting there for {_seconds(longest)}{what}"
        sentences = (*attempt, text)
        return Explanation(
            name,
            "blocked",
            sentences,
            children,
            enough=enough,
            more=count - len(children),
            waiting_s=longest,
            **common,
        )

    def _stopping(self, fact: Mapping[str, Any], call: Mapping[str, Any] | None) -> Explanation:
        name = fact["name"]
        worker, _, pid = fact["worker"]
        if call is None:
            why = self._findings.silent.get(worker)
            told = "has not said that it stopped it" if why is None else why
            text = f"{name!r} was cancelled; the worker with pid {pid} {told}."
            return Explanation(name, "stopping", (text,), pid=pid, node=self._node)
        ran = _seconds(call["for_s"])
        text = f"{name!r} was cancelled, and still runs on pid {pid}, for {ran} by now."
        return Explanation(
            name,
            "stopping",
            (text,),
            pid=pid,
            node=self._node,
            running_s=call["for_s"],
            stack=call.get("stack"),
        )

    # --- below --------------------------------------------------------------------------------------------

    def _children(self, addresses: Sequence[Any], path: tuple[Key, ...]) -> tuple[Explanation, ...]:
        if len(path) >= DEPTH:
            return ()
        chosen = list(dict.fromkeys((process_id, number) for process_id, _, number in addresses))[:WIDTH]
        children = []
        for key in chosen:
            if len(self._told) >= MOST:
                break
            children.append(self.of(key, path))
        return tuple(children)


#: What is noted of a process that has died.
DIED: Final = "has died"
#: What a call waits for whose actor is not there.
_FOR_ACTORS: Final = {
    "made": "waits for its actor, which is being made",
    "restarting": "waits for its actor, which is being restarted",
    "asked": "waits for its actor, which is not there: its owner is to say when it is",
}
#: The states that an owner tells, as users see them.
_PLAIN: Final[dict[str, Any]] = {"waiting": "arguments", "queued": "queued", "sent": "sent", "done": "done"}


def _object(key: Key) -> str:
    return f"the object {key[0][:4].hex()}:{key[1]}"


def _first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _at_least(fact: Mapping[str, Any]) -> str:
    return " and more" if fact.get("cut") else ""


def _floats(units: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / UNITS for name, amount in units.items()}
