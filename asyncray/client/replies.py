"""What a peer is told about an object that it has asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ObjectFreedError, RaySystemError
from ..state.objects import FAILED, FREED, PENDING, ObjectRecord
from ..wire import messages as m
from ..wire.values import to_wire, wire_bytes
from .errors import encode_error
from .spilling import Spilled

if TYPE_CHECKING:
    from ..wire.frames import Buffer


class Answer:
    """One object that a peer asked for."""

    __slots__ = ("limit", "number", "record")

    def __init__(self, record: ObjectRecord | int, limit: int) -> None:
        self.limit = limit
        self.number = record if isinstance(record, int) else record.number
        #: None iff the object is gone.
        self.record = None if isinstance(record, int) else record


def row_of(answer: Answer, value: Any, buffers: list[Buffer], most: int) -> list[Any] | None:
    """The row of VALUES for an answer.

    Args:
        answer: What was asked for.
        value: What its record held a moment ago. Where another thread has freed the object since, the state
            tells that this is no value any more.
        buffers: Takes the large parts.
        most: Bytes of the largest value that can be sent.

    Returns:
        None where another thread has found in the meantime that the value is lost: it is being made again.
    """
    record = answer.record
    if record is not None and record.state == PENDING:
        return None
    if record is None or record.state == FREED:
        error = ObjectFreedError(
            "the object was freed before its value was asked for: its owner knew of nobody who held it"
        )
        return [answer.number, m.ERROR, encode_error(error)]
    if record.state == FAILED:
        return [answer.number, m.ERROR, to_wire(value, buffers)]
    size = wire_bytes(value)
    if answer.limit and (size > answer.limit or type(value) is Spilled):
        return [answer.number, m.ELSEWHERE, None]
    if size > most:
        problem = RaySystemError(f"the value is {size} bytes; at most {most} can be sent to another process")
        return [answer.number, m.ERROR, encode_error(problem)]
    return [answer.number, m.OK, to_wire(value, buffers)]
