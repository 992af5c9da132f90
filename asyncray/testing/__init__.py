"""Tools for testing programs that run on asyncray: virtual time."""

from .clock import DeadlockError as DeadlockError
from .clock import VirtualLoop as VirtualLoop

__all__ = ["DeadlockError", "VirtualLoop"]
