"""Tasks on their way to a worker, in one frame.

A task's row says where its arguments are: small values and the places of stored ones go along, others are
asked for by their addresses. The owner's lock is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..refs import intern
from ..state.objects import READY
from ..wire.stored import Stored
from ..wire.values import Encoded, to_wire, wire_bytes
from .arguments import NUMBERS, arguments_to_wire, with_numbers
from .spilling import Spilled

if TYPE_CHECKING:
    from ..refs import ObjectRef, RefAddress
    from ..state.tasks import Task
    from ..wire.frames import Buffer
    from .session import Session

#: Bytes of a number in a frame, at most.
_NUMBER_BYTES: Final = 16


class TaskFrame:
    """Tasks that are sent together."""

    __slots__ = ("_session", "buffers", "rows", "size_bytes")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rows: list[list[Any]] = []
        self.buffers: list[Buffer] = []
        #: About how much the values in it take.
        self.size_bytes = 0

    def add(self, task: Task) -> None:
        """One more."""
        arguments, dependencies = task.arguments, task.dependencies
        if type(arguments) in (bytes, Encoded):
            self.size_bytes += wire_bytes(arguments)
        if dependencies is not None and type(arguments) is list:
            arguments, dependencies = with_numbers(arguments, dependencies)
            self.size_bytes += _NUMBER_BYTES * len(arguments)
        field = arguments_to_wire(arguments, self.buffers)
        extras = task.extras
        if task.terms is not None:
            extras = task.terms.extras(extras, self._session.clock())
            self.size_bytes += task.terms.size_bytes
        if task.stream is not None:
            extras = task.stream.extras(extras)
        descriptor = task.descriptor
        row = [task.number, descriptor.number, field, None, extras]
        if dependencies is not None:
            group: Any = descriptor.group
            named = group.actor and group.names_arguments(task)
            row[3] = [[place, self._dependency(ref, named=named)] for place, ref in dependencies]
        self.rows.append(row)

    def _dependency(self, ref: ObjectRef[Any], *, named: bool) -> Any:
        """A small value goes along, or where a stored one lies; others, or both if *named*, are asked for."""
        record: Any = ref._record
        config = self._session.config
        if record.state == READY and type(record.value) in NUMBERS:
            self.size_bytes += _NUMBER_BYTES
            return record.value
        if record.state == READY and type(record.value) is not Spilled:
            if type(record.value) is Stored:
                if named:
                    return [self._address(ref)]
                self.size_bytes += wire_bytes(record.value)
                return [self._address(ref), to_wire(record.value, self.buffers)]
            size = wire_bytes(record.value)
            if size <= config.inline_limit_bytes and self.size_bytes <= config.batch_bytes:
                self.size_bytes += size
                return to_wire(record.value, self.buffers)
        return [self._address(ref)]

    def _address(self, ref: ObjectRef[Any]) -> RefAddress:
        if ref._record.weak is None:
            # It comes back when an actor calls itself, and must be this very reference then.
            intern(ref)
        return self._session.references.address(ref._record)
