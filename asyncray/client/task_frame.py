"""Tasks on their way to a worker, in one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..wire.frames import Buffer


class TaskFrame:
    """Tasks that are sent together."""

    __slots__ = ("buffers", "rows", "size_bytes")

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self.buffers: list[Buffer] = []
        #: About how much the values in it take.
        self.size_bytes = 0
