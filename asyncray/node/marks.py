"""What a worker was running when it died: a number in memory that outlives the worker.

The worker notes the number of the call that it runs, or has run and not reported yet; zero otherwise. The
node reads that after the worker's death. A message could not tell: who is killed sends none, and the owner
would have to guess which of the calls it had sent was the one that may have to pay with a retry.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

_CELL: Final = struct.Struct("q")


class Mark:
    """The node's side of one worker's number."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("asyncray-mark", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, _CELL.size)

    def read(self) -> int:
        """The number now."""
        (number,) = _CELL.unpack(os.pread(self.fd, _CELL.size, 0))
        return int(number)

    def close(self) -> None:
        """Let go of the memory; the worker's side stays."""
        os.close(self.fd)


def cell(fd: int) -> memoryview:
    """The worker's side: a place for one int. The descriptor may be closed afterwards."""
    return memoryview(mmap.mmap(fd, _CELL.size)).cast("B").cast("q")
