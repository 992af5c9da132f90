"""What an owner says of its objects when somebody asks why they are not done. Plain values: they travel."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..state.objects import FAILED, PENDING, READY
from ..state.tasks import DONE, QUEUED, WAITING, is_in_flight

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..state.objects import ObjectRecord
    from ..state.tasks import Task
    from .session import Session

#: Addresses in one answer about one thing.
MOST_ADDRESSES: Final = 100
#: Calls before another one that are looked at: more would hold up the owner's lock.
_MOST_AHEAD: Final = 10_000
#: Names of calls before another one.
_MOST_NAMES: Final = 5
#: Objects in one survey.
_MOST_SURVEYED: Final = 1000


def objects(session: Session, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """What *session* knows of some of the objects that it owns; a row each."""
    with session.owner.lock:
        owned = session.owner.objects.owned
        return [_fact(session, number, owned.get(number)) for number in numbers]


def unfinished(session: Session) -> tuple[list[dict[str, Any]], bool]:
    """The same for all unfinished ones; and whether there are more than were looked at."""
    with session.owner.lock:
        every = list(session.owner.objects.owned.values())  # a copy: see ObjectTable.held_by_others
        pending = [r for r in every if r.state == PENDING and r.task is not None]
        # One for each task: several returns tell the same.
        firsts = [record for record in pending if record.task.number == record.number]  # type: ignore[union-attr]
        chosen = firsts[:_MOST_SURVEYED]
        return [_fact(session, record.number, record) for record in chosen], len(chosen) < len(firsts)


def addresses(session: Session, records: Sequence[ObjectRecord]) -> list[list[Any]]:
    """Where the first of some objects live."""
    return [list(session.address(record)) for record in records[:MOST_ADDRESSES]]


def _fact(session: Session, number: int, record: ObjectRecord | None) -> dict[str, Any]:
    fact: dict[str, Any] = {"number": number, "state": "gone", "name": "", "task": None}
    if record is None:
        return fact
    task = record.task
    if task is None or (task.state == DONE and not is_in_flight(task)):
        fact["state"] = {READY: "done", FAILED: "failed"}.get(record.state, "gone")
        return fact
    fact.update(name=task.descriptor.name, task=task.number, attempt=task.attempt)
    if task.state == WAITING:
        fact.update(state="waiting", **_waiting(session, task))
    elif task.state == QUEUED:
        group = task.descriptor.group
        queue = (other for other in group.queue if other.state != DONE)
        fact.update(state="queued", **_ahead(queue, task))
        fact["class"] = group.number
    else:
        lease = task.lease
        fact.update(state="stopping" if task.state == DONE else "sent", worker=None)
        if lease is not None:
            before = () if lease.group.concurrent else lease.in_flight.values()
            fact.update(_ahead(iter(before), task))
            if lease.link is not None:
                peer = lease.link.connection.peer
                fact["worker"] = [peer.process_id, peer.address, peer.pid]
    return fact


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
