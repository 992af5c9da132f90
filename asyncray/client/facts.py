"""What an owner says of its objects when somebody asks why they are not done. Plain values: they travel."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..state.objects import FAILED, PENDING, READY
from ..state.tasks import DONE, QUEUED, WAITING, is_in_flight
from . import actor_facts
from .host_calls import HostCalls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..state.objects import ObjectRecord
    from ..state.tasks import Task
    from .session import Session

#: Addresses in one answer about one thing.
MOST_ADDRESSES: Final = 100
#: Calls before another one that are looked at: more would hold up the owner's lock.
_MOST_AHEAD: Final = 1000
#: Objects in one answer of which it is told what is before them: each costs a look at the queue.
_MOST_PLACED: Final = 20
#: Names of calls before another one.
_MOST_NAMES: Final = 5
#: What is said of objects whose tasks have ended, by their state.
_ENDS: Final = {READY: "done", FAILED: "failed"}
#: Objects in one survey.
_MOST_SURVEYED: Final = 1000


def objects(session: Session, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """What *session* knows of some of the objects that it owns; a row each."""
    with session.owner.lock:
        owned = session.owner.objects.owned
        rows = enumerate(numbers)
        return [_fact(session, n, owned.get(n), placed=at < _MOST_PLACED) for at, n in rows]


def unfinished(session: Session) -> tuple[list[dict[str, Any]], bool]:
    """The same for what all unfinished tasks make; and whether there are more than were looked at."""
    # Copies: see ObjectTable.held_by_others.
    every = list(session.owner.objects.owned.values())
    tasks: list[Any] = list(islice((r.task for r in every if _is_first_return(r)), _MOST_SURVEYED + 1))
    tasks += list(session.owner.unreturned.values())
    with session.owner.lock:
        rows = [_task_fact(session, task.number, task, placed=False) for task in tasks[:_MOST_SURVEYED]]
    return rows, len(tasks) > _MOST_SURVEYED


def _is_first_return(record: ObjectRecord) -> bool:
    """Whether a task is under way for a record; of the several returns of one, that is said of the first."""
    task = record.task
    if record.state != PENDING or task is None:
        return False
    # A task that runs again makes what was lost, and has no number among the others. Of a generator that
    # does, the end has none either.
    return next((each for each in task.records if each.number), record) is record


def addresses(session: Session, records: Sequence[ObjectRecord]) -> list[list[Any]]:
    """Where the first of some objects live."""
    return [list(session.references.address(record)) for record in records[:MOST_ADDRESSES]]


def _fact(session: Session, number: int, record: ObjectRecord | None, *, placed: bool) -> dict[str, Any]:
    if record is not None and record.task is not None:
        return _task_fact(session, number, record.task, placed=placed, outcome=record.state)
    state = PENDING if record is None else record.state
    return {"number": number, "state": _ENDS.get(state, "gone"), "name": "", "task": None}


def _task_fact(
    session: Session, number: int, task: Task, *, placed: bool, outcome: int = FAILED
) -> dict[str, Any]:
    if task.state == DONE and not is_in_flight(task):
        return {"number": number, "state": _ENDS.get(outcome, "gone"), "name": "", "task": None}
    name = task.descriptor.name
    fact: dict[str, Any] = {"number": number, "name": name, "task": task.number, "attempt": task.attempt}
    if task in session.owner.remaking.running:
        fact["again"] = True
    if task.state == WAITING:
        fact.update(state="waiting", **_waiting(session, task))
    elif (why := actor_facts.missing(session, task)) is not None or (lease := _way_of(task)) is None:
        group = task.descriptor.group
        queue = (other for other in group.queue if other.state != DONE) if placed else ()
        fact.update(state="queued", **_ahead(queue, task))
        fact["class"] = group.number
        if why is not None:
            fact.update(kind="actor", actor=why)
    else:
        before = () if lease.group.concurrent or not placed else lease.in_flight.values()
        peer = lease.link.connection.peer
        worker = [peer.process_id, peer.address, peer.pid]
        fact.update(state="stopping" if task.state == DONE else "sent", worker=worker, **_ahead(before, task))
        if lease.group.actor:
            fact.update(kind="actor", turns=actor_facts.turns(session, task))
            if isinstance(lease.group, HostCalls):
                fact["light"] = list(actor_facts.light_actor(session, task))
    return fact


def _way_of(task: Task) -> Any:
    """The lease by which a task was sent, or a call of an actor will be; None where that is open."""
    if task.state != QUEUED:
        return task.lease
    group: Any = task.descriptor.group
    lease = group.lease if group.actor else None
    return None if lease is None or lease.link is None else lease


def _waiting(session: Session, task: Task) -> dict[str, Any]:
    refs = [ref for _, ref in task.dependencies or ()]
    records: list[Any] = list(dict.fromkeys(ref._record for ref in refs))
    missing = [record for record in records if record.state == PENDING]
    return {"missing": len(missing), "arguments": len(records), "for": addresses(session, missing)}


def _ahead(queue: Iterable[Task], task: Task) -> dict[str, Any]:
    """Which tasks stand before another one."""
    names: dict[str, int] = {}
    ahead = 0
    cut = True
    for other in islice(queue, _MOST_AHEAD):
        if other is task:
            cut = False
            break
        ahead += 1
        name = other.descriptor.name
        if name in names or len(names) < _MOST_NAMES:
            names[name] = names.get(name, 0) + 1
    else:
        cut = ahead == _MOST_AHEAD
    return {"ahead": ahead, "names": names, "cut": cut or sum(names.values()) < ahead}
