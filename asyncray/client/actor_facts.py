"""What is said of an actor's call when somebody asks why it is not done. The owner's lock is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..state.actors import PLACING, RESTING
from ..state.tasks import QUEUED
from .host_calls import HostCalls

if TYPE_CHECKING:
    from ..state.tasks import Task
    from .session import Session


def missing(session: Session, task: Task) -> str | None:
    """Why an actor's call that is queued has no way to the actor; None where it has one.

    Returns:
        "made": it is being made; "restarting"; "asked": its owner, another process, has not said yet.
    """
    group: Any = task.descriptor.group
    if not group.actor or task.state != QUEUED:
        return None
    if isinstance(group, HostCalls):
        return _light(session, task)
    if group.lease is not None and group.lease.link is not None:
        return None
    if group.address[0] == session.identity.process_id:
        actor = session.actors.owned.get(group.address[2])
        return None if actor is None else _by_state(actor)
    return "restarting" if group.incarnation else "asked"


def _light(session: Session, task: Task) -> str | None:
    owner, number = light_actor(session, task)
    if owner != session.identity.process_id:
        return "asked" if session.lights.strangers.asks_about((owner, number)) else None
    actor = session.lights.owned.get(number)
    return None if actor is None else _by_state(actor)


def _by_state(actor: Any) -> str | None:
    if actor.state not in (PLACING, RESTING):
        return None
    return "restarting" if actor.incarnation else "made"


def light_actor(session: Session, task: Task) -> tuple[bytes, int]:
    """Which light actor a call is for: its owner's process id, and the number of its life there."""
    assert task.extras is not None
    told = task.extras["light"]
    return (session.identity.process_id, told) if type(told) is int else (told[0], told[1])


def turns(session: Session, task: Task) -> int:
    """How many calls the actor of a call runs at a time; 0 where that is not known.

    Of groups, it would have to be known in which one each call runs.
    """
    group: Any = task.descriptor.group
    shape = group.shape
    if isinstance(group, HostCalls):
        shape = session.lights.shape_of(task.descriptor)
    return 0 if shape is None or shape.groups else shape.max_concurrency
