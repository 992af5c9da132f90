"""This process's calls of all light actors of one host: one queue, one connection, one frame for many.

To the owner's tables a host is a scheduling class with one lease that is never given back, as a process
actor is (client.actor_calls). Which actor a call is for, it says itself (`extras`). A light actor keeps its
host for all its lives, so its calls need not be moved.

Rule: everything here needs the lock of this process's tables.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..actor_shape import ActorShape
from ..exceptions import ProtocolError
from ..state.pipeline import Lease, SchedulingClass
from ..state.tasks import ASSIGNED, DONE, Task, step
from .actor_calls import choose_naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..refs import RefAddress
    from ..state.tasks import Descriptor
    from .lights import Lights
    from .owned_light import OwnedLight
    from .waiting import LoopWaiter

#: Calls that are sent and not answered, at most.
_DEPTH: Final = 100_000


class HostCalls(SchedulingClass):
    """The queue and the connection of one process's calls of one host's actors."""

    __slots__ = (
        "_lights", "_owner", "asked", "environment", "heard", "index", "lease", "naming", "process_id",
        "restarting", "told", "used",
    )  # fmt: skip

    actor = True
    #: Stands for the shapes of all its actors, for who asks how many calls run at a time: it is not known.
    shape = ActorShape("host of light actors", {}, True, 0, {})

    def __init__(self, lights: Lights, environment: bytes, index: int) -> None:
        super().__init__(-1, (environment, index), [], 0.0, _DEPTH)
        self.concurrent = True
        self._lights = lights
        self._owner = lights.owner
        self.environment = environment
        self.index = index
        #: The way to the host; None while there is none.
        self.lease: Lease | None = None
        #: Numbers of calls under way that name their arguments instead of saying where they lie.
        self.naming: set[int] = set()
        #: Process id of the host; empty while there is none.
        self.process_id = b""
        #: Whether the node has been asked where it is.
        self.asked = False
        #: Actors of this process that are in it.
        self.used = 0
        #: How often the host was told to end actors at once, and has said that it heard of it.
        self.told = self.heard = 0
        #: Actors that were ended to start again: how often the host must have been heard before, and how many
        #: seconds after that.
        self.restarting: deque[tuple[int, list[tuple[OwnedLight, float]]]] = deque()

    @property
    def lights(self) -> Lights:
        """What this process knows of light actors."""
        return self._lights

    def assign(self, *, fresh_only: bool = False) -> list[tuple[Lease, list[Task]]]:
        lease = self.lease
        if lease is None or lease.link is None:
            if self.queue and not self.asked:
                self._lights.want(self)
            return []
        tasks = self._take_all(lease)
        return [(lease, tasks)] if tasks else []

    def _take_all(self, lease: Lease) -> list[Task]:
        taken: list[Task] = []
        queue, in_flight, lights = self.queue, lease.in_flight, self._lights
        room = self.max_depth - len(in_flight)
        while queue and len(taken) < room:
            task = queue.popleft()
            if task.state == DONE:  # cancelled, or an argument of it failed
                continue
            if not lights.admits(task):
                continue
            if task.dependencies is not None:
                choose_naming(self.naming, lights.session, task, in_flight)
            step(task, ASSIGNED)
            task.lease = lease
            in_flight[task.number] = task
            taken.append(task)
        self.dead = 0
        return taken

    def put_first(self, tasks: Iterable[Task]) -> None:
        """Queue calls that have waited elsewhere, in the order made, before those that were made since."""
        for task in sorted(tasks, key=_number, reverse=True):
            if task.state == DONE:
                task.release()
            else:
                self.queue.appendleft(task)

    def names_arguments(self, task: Task) -> bool:
        """Whether a call that was sent, or is being sent, lets the actor ask for its arguments."""
        return task.number in self.naming

    def answered(self) -> None:
        """The host says that it has heard what was to end at once.

        Raises:
            ProtocolError: when it was told of nothing since it said so.
        """
        if self.heard >= self.told:
            raise ProtocolError("a host answers what it was not told")
        self.heard += 1

    def has_idle_lease(self) -> bool:
        lease = self.lease
        if lease is None or lease.in_flight:
            return False
        # A constructor can wait for company: who makes one actor often makes many, and nobody waits for it.
        return not (self.queue and self.queue[-1].descriptor.blob)

    def demand(self) -> int:
        """No leases are of use."""
        return 0


def _number(task: Task) -> int:
    return task.number


class LightMethods:
    """The methods of one class in one host; all handles of such actors share them."""

    __slots__ = ("__weakref__", "bound", "descriptors", "group", "shape")

    light = True
    told: Final[Mapping[str, Any]] = {"light": True}

    def __init__(self, group: HostCalls, shape: ActorShape) -> None:
        self.group = group
        self.shape = shape
        #: Methods as the worker is told of them, by what tells them apart.
        self.descriptors: dict[object, Descriptor] = {}
        #: The same, as handles keep them.
        self.bound: dict[object, Descriptor] = {}

    def of(self, address: RefAddress) -> Room:
        """How many calls of one actor are under way."""
        return self.group.lights.room_of(address)


class Room:
    """Counts the calls of one actor that this process has under way, where that is bounded."""

    __slots__ = ("__weakref__", "_count", "failure", "room")

    def __init__(self) -> None:
        self._count = 0
        #: Never set: calls of a dead actor end by themselves.
        self.failure = None
        #: Who waits until there are fewer.
        self.room: list[LoopWaiter] = []

    def pending(self) -> int:
        """Calls that are under way."""
        return self._count

    def begin(self, task: Task) -> None:
        """A call is made."""
        self._count += 1
        task.enclosures = [*(task.enclosures or ()), self]

    def ended(self, task: Task) -> None:
        """It has really ended."""
        self._count -= 1
        waiters, self.room = self.room, []
        for waiter in waiters:
            waiter.notify(None)
