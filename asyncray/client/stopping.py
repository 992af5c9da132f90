"""Stopping what runs elsewhere: a cancelled task's worker is told until it has answered, or is ended.

A synchronous task has its worker for itself; one that ignores its KeyboardInterrupt is ended by force alone,
as in Ray. Coroutines share a worker, and would share it with an ever growing number of those that do not end:
one that has not ended `cancel_grace_s` after its cancel was sent ends with its worker, without force, too.
Nothing in the worker decides that, because the coroutine may block the worker's loop.

Rule: who shares a worker that is ended for another's sake loses none of its retries (Leases._guilty); and who
      may not run twice is waited for. Nothing new is sent to such a worker meanwhile (Lease.deaf).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..state.tasks import DONE
from ..wire import messages as m

if TYPE_CHECKING:
    from ..state.pipeline import Lease
    from ..state.tasks import Task
    from .session import Session

#: Seconds, at least, between two attempts to cancel the same task.
_INSIST_S: Final = 0.1


def stop_at_worker(session: Session, task: Task, *, force: bool, recursive: bool) -> None:
    """Tell the worker that has *task* to stop it, until it has answered. On the loop, without the lock."""
    lease = _lease_of(task)
    if lease is None or lease.link is None:
        return
    if force and lease.group.concurrent and not lease.group.actor:
        lease.deaf.add(task.number)
    session.peers.send_to(lease.link.connection.peer, [m.CANCEL, task.number, force, recursive])
    grace_s = max(session.config.cancel_grace_s, _INSIST_S)
    session.loop.call_later(grace_s, partial(_insist, session, task, force=force, recursive=recursive))


def _lease_of(task: Task) -> Lease | None:
    lease = task.lease
    return lease if lease is not None and lease.in_flight.get(task.number) is task else None


def _insist(session: Session, task: Task, *, force: bool, recursive: bool) -> None:
    """The worker may not have answered: the cancel came before its task, or nothing there can hear it."""
    lease = _lease_of(task)
    if lease is None:
        return
    # An actor is more than one call: it is never ended for one.
    if (force or lease.group.concurrent) and not lease.group.actor:
        sharing = list(lease.in_flight.values())
        if lease.group.concurrent:
            lease.deaf.add(task.number)
        else:
            # One that runs before it, and hears nothing either.
            sharing = sharing[: sharing.index(task)]
        if all(other.retries or other.state == DONE for other in sharing):
            session.control.send([m.KILL, lease.number])
    stop_at_worker(session, task, force=force, recursive=recursive)


def refuse_force(record: Any) -> None:
    """Refuse to kill the worker of an actor for one of its calls, as far as this process knows of it.

    Raises:
        ValueError: when a call of an actor makes the record's object.
    """
    task: Task | None = record.task
    if task is not None and task.descriptor.group.actor:
        raise ValueError(
            "force=True would end the worker, and this is a call of an actor: cancel it without, or kill the "
            "actor"
        )
