"""Values that were put where nobody could wait for room in the store, and are moved there as soon as it is.

Rule 1: a value that is moved stays the same for all: who has the old form keeps it, who looks again finds the
        new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import RayError
from ..state.objects import READY, ObjectRecord
from ..wire.values import Draft, Encoded

if TYPE_CHECKING:
    import asyncio

    from .session import Session


class Moving:
    """The values of one process that are on their way into the store.

    Args:
        session: The session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, record: ObjectRecord) -> None:
        """Move the value of an owned object. On the loop."""
        task = self._session.loop.create_task(self._move(record), name="a value moves into the store")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _move(self, record: ObjectRecord) -> None:
        payload = record.value
        if record.state != READY or type(payload) not in (bytes, Encoded):
            return
        try:
            stored = await self._session.store.keep_async(_drafted(payload))
        except RayError:
            return  # no room: it stays where it is
        with self._session.owner.lock:
            if record.value is payload and record.state == READY:
                record.value = stored

    def close(self) -> None:
        """The session has ended."""
        for task in self._tasks:
            task.cancel()


def _drafted(payload: Any) -> Draft:
    drafted = Draft()
    if type(payload) is bytes:
        drafted.parts.append(payload)
        return drafted
    drafted.parts.append(payload.data)
    drafted.buffers = [memoryview(buffer) for buffer in payload.buffers]
    drafted.refs = list(payload.refs)
    return drafted
