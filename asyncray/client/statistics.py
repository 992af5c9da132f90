"""How much one process keeps, in numbers: what a leak shows in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..state.objects import PENDING

if TYPE_CHECKING:
    from .session import Session


class Statistics(NamedTuple):
    """Counts of what one session holds at a moment. All zero when nobody holds anything."""

    #: Objects that live here.
    objects_owned: int
    #: Objects of other processes that something here refers to.
    objects_borrowed: int
    #: Registrations of other processes as holders of objects of this one.
    borrowers: int
    #: Registrations of this process that have not been answered.
    registering: int
    #: Results that were reported and whose references their owner has not registered yet.
    results_pinned: int
    #: References that were pickled where nobody counts them.
    out_of_band: int
    #: Calls that have not ended.
    tasks: int
    #: Remote functions that can still be called from here.
    functions: int
    #: References that were destroyed and are not accounted for yet.
    dropped: int
    #: Places of the object store with values that something here uses.
    stored: int
    #: Tasks that can be run again for their results.
    lineage: int


def statistics_of(session: Session) -> Statistics:
    """Count what *session* holds. From any thread."""
    owner = session.owner
    with owner.lock:
        owned = list(owner.objects.owned.values())
        # Several returns of one call share its task.
        tasks = {record.task for record in owned if record.task is not None and record.state == PENDING}
        return Statistics(
            objects_owned=len(owned),
            objects_borrowed=len(owner.objects.borrowed),
            borrowers=sum(len(record.borrowers or ()) for record in owned),
            registering=session.peers.borrowing.registering(),
            results_pinned=session.peers.borrowing.pins(),
            out_of_band=session.references.pinned(),
            tasks=len(tasks),
            functions=len(session.descriptors),
            dropped=len(owner.dropped) + session.store.unaccounted,
            stored=session.store.held,
            lineage=len(owner.objects.lineage),
        )
