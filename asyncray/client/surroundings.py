"""What a session is handed: what differs between a driver, a worker and a simulated process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..config import Config
    from ..net.connection import Connection, Network
    from ..runtime_env import RuntimeEnv
    from ..store.arena import Arena
    from ..wire.handshake import Identity
    from .waiting import Parker, What


@dataclass(slots=True)
class Surroundings:
    """What a session is handed."""

    config: Config
    loop: asyncio.AbstractEventLoop
    network: Network
    #: The connection to this process's node.
    control: Connection
    identity: Identity
    parker: Parker
    #: Seconds that only go forward: the one clock of everything here.
    clock: Callable[[], float]
    #: Wakes the loop; callable from a destructor, in any thread. It leads to References.on_wake.
    wake: Callable[[], None]
    #: What calls made here inherit.
    environment: RuntimeEnv
    namespace: str = ""
    #: The shared memory for large values; None: they live in their owners' own.
    arena: Arena | None = None
    #: Where objects are put when memory is short; "": the usual place for files; None: nowhere.
    spill_directory: str | None = None


class TaskScope:
    """What a worker knows of the task that makes calls; the session of a driver has none."""

    #: Whether user code runs as coroutines on the session's own loop.
    concurrent = False
    #: Seconds that only go forward; the session's.
    clock: Callable[[], float]

    def running(self) -> Any:
        """The running call; None in a driver."""
        return None

    def current_task(self) -> int | None:
        """Number of the running task at its owner."""
        return None

    def before_wait(self, what: What | None = None) -> Any:
        """The running task is about to wait; returns what to hand to after_wait, or None for nothing.

        Args:
            what: Says what for, when it is asked; None for what no task makes.
        """
        return None

    def after_wait(self, waiter: Any) -> None:
        """It goes on, unless it has several waits under way."""
