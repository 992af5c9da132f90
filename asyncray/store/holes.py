"""Holes: parts of a file that take no room any more, and read as zeros."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2


def punch_hole(fd: int, at: int, size: int) -> None:
    """Give back the whole pages, or blocks, that lie in a part of a file; also under its mappings.

    Raises:
        OSError: when this kind of file has no holes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, at, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
