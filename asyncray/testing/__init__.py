"""Tools for testing programs that run on asyncray: virtual time, and whole clusters in one process."""

from .clock import DeadlockError as DeadlockError
from .clock import VirtualLoop as VirtualLoop
from .cluster import SimulatedCluster as SimulatedCluster
from .cluster import simulate as simulate
from .threads import sleep as sleep
from .trace import Event as Event
from .trace import Trace as Trace

__all__ = ["DeadlockError", "Event", "SimulatedCluster", "Trace", "VirtualLoop", "simulate", "sleep"]
