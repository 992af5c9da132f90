"""A small stand-in for the session that owns references."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from asyncray.process import Process, enter, leave
from asyncray.refs import ObjectRef
from asyncray.state.objects import ObjectRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncray.refs import RefAddress


class FakeOwner:
    """Owns references by number, and makes again those that are unpickled."""

    def __init__(self, process_id: bytes = b"p" * 16, address: str = "unix:@fake") -> None:
        self.process_id = process_id
        self.address = address
        self.dropped: deque[Any] = deque()
        self.drain_due = False
        self.references = self
        self.sent: list[int] = []
        self.restored: list[RefAddress] = []

    def ref(self, number: int) -> ObjectRef[Any]:
        """A reference to object *number*."""
        return ObjectRef(ObjectRecord(cast(Any, self), number))

    def address_of(self, ref: ObjectRef[Any]) -> RefAddress:
        """Where the object lives; notes that the reference was sent."""
        self.sent.append(ref._record.number)
        return self.process_id, self.address, ref._record.number

    def restore_ref(self, address: RefAddress) -> ObjectRef[Any]:
        """The reference at *address*; notes that it was asked for."""
        self.restored.append(address)
        return self.ref(address[2])

    def check_open(self) -> None:
        """It never ends."""

    def on_dropped(self) -> None:
        """Nobody waits for it."""

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this the session of the running code."""
        process = Process()
        process.session = cast(Any, self)
        token = enter(process)
        try:
            yield
        finally:
            leave(token)
