"""The machine that a node runs on, real or simulated: its clock, its memory, its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from ..net.connection import Connection
    from ..state.staff import PoolKey, Worker
    from .logs import LogHub
    from .memory import MemoryUse


#: The kind of a worker's end that says: the machine has no room for its process.
UNFORKED: Final = "unforked"


class WorkerProcess:
    """One worker's process and connection."""

    def __init__(self, worker: Worker, connection: Connection) -> None:
        self.worker = worker
        self.connection = connection
        #: 0 until it is known.
        self.pid = 0
        #: Where it listens; empty until it has registered.
        self.address = ""
        #: Why the node killed it: (kind, explanation). None when it did not.
        self.killed_for: tuple[str, str] | None = None

    def running(self) -> int:
        """Number of the call that it runs, or has run and not reported; 0 for none, -1 when nobody knows."""
        return -1


class WorkerPool(Protocol):
    """The spawner: starts workers and tells of their ends."""

    #: Called with what the user should know.
    warnings: Callable[[str], None]

    @property
    def processes(self) -> Mapping[int, WorkerProcess]:
        """The living ones, by worker number."""

    def start(self, key: PoolKey) -> Worker:
        """Start a worker for a pool; it registers when it is ready."""

    def kill(self, process: WorkerProcess, kind: str, text: str) -> None:
        """End a worker now; the reason is what its owner hears."""

    async def stop(self) -> None:
        """End every worker."""


#: Told of each new worker's process, before it says anything.
OnConnected = Callable[[WorkerProcess], None]
#: Told once of each worker that ended, of what kind its end was, and how.
OnDied = Callable[[WorkerProcess, str, str], None]
#: Makes the spawner of a node, given where the workers' output goes.
MakePool = Callable[["LogHub", OnConnected, OnDied], WorkerPool]
#: What some processes, or all, use of so many bytes: see memory.use_of.
UseOf = Callable[["Iterable[int] | None", int], "MemoryUse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a node is handed."""

    #: Seconds that only go forward.
    clock: Callable[[], float]
    make_pool: MakePool
    #: All its memory, or what the node may use of it.
    total_bytes: int
    #: How many workers may exist for other reasons than memory, and what those are.
    most_workers: tuple[int, str] = (1_000_000, "as many as are allowed")
    #: As memory.use_of; None where nobody watches the memory.
    memory_use: UseOf | None
    #: Gives a part of the object store's memory, by beginning and length, back to the system; None: cannot.
    give_back: Callable[[int, int], None] | None = None
