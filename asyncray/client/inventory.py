"""What one process says about its objects, for memory_summary.

A row: the object's id, bytes (-1: not known yet), where it is, references in its owner's process, process ids
of its borrowers, the line that made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..state.objects import FAILED, PENDING
from ..wire.stored import Stored
from ..wire.values import size_bytes
from .spilling import Spilled

if TYPE_CHECKING:
    from ..state.objects import ObjectRecord
    from .session import Session

#: Rows of one process, the largest objects first; what lies beyond is counted.
MOST_ROWS: Final = 10_000


def inventory(session: Session) -> list[Any]:
    """The number of objects that a process owns, then the rows."""
    owner = session.owner
    with owner.lock:
        records = list(owner.objects.owned.values())
        sized = [(*_size_and_place(record), record) for record in records]
        sized.sort(key=lambda row: row[0], reverse=True)
        return [len(sized), *(_row(session, *row) for row in sized[:MOST_ROWS])]


def _size_and_place(record: ObjectRecord) -> tuple[int, str]:
    value = record.value
    if record.state == PENDING:
        return -1, "pending"
    if record.state == FAILED:
        return size_bytes(value), "failed"
    if type(value) is Spilled:
        return value.size, "disk"
    return size_bytes(value), "store" if type(value) is Stored else "owner"


def _row(session: Session, size: int, place: str, record: ObjectRecord) -> list[Any]:
    sites = session.owner.sites
    number = record.number if record.task is None else record.task.number
    line = "" if sites is None else sites.of(record.number) or sites.of(number)
    borrowers = sorted(record.borrowers or ())
    return [session.references.binary(record), size, place, record.local, borrowers, line]
