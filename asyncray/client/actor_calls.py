"""This process's calls of one actor: in order, straight to the actor's worker.

To the owner's tables an actor is a scheduling class with one lease that is never given back, so that calls
take the way of tasks: records, arguments, results, cancels. What differs is here: calls keep their order,
none is handed to another worker, and what was under way when the actor was lost may have been done.

Rule 1: the owner of the actor says where it is and when it is dead (client.actors); a closed connection
        alone only leads to asking.
Rule 2: everything here needs the lock of this process's tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from ..exceptions import ActorUnavailableError
from ..state.objects import FAILED
from ..state.pipeline import Lease, SchedulingClass
from ..state.tasks import ASSIGNED, DONE, RETRIED, WAITING, Task, Verdict, after_worker_death, step
from .stored_ahead import StoredAhead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..actor_shape import ActorShape
    from ..refs import RefAddress
    from ..state.tasks import Descriptor
    from .owner import Owner
    from .session import Session
    from .waiting import LoopWaiter

#: Calls that are sent and not answered, at most. Behind it they wait here, where a cancel costs nothing.
_DEPTH: Final = 100_000
#: Number of the lease that a caller makes for itself: the node has not granted it.
CALLERS_OWN: Final = -1


class ActorCalls(SchedulingClass):
    """The queue and the connection of one process's calls of one actor."""

    __slots__ = (
        "__weakref__", "_ahead", "_owner", "address", "asked", "descriptors", "doomed", "failure",
        "incarnation", "lease", "naming", "ordered", "room", "shape",
    )  # fmt: skip

    actor = True
    #: Whether it stands for light actors; see client.host_calls.
    light = False
    #: What a worker must know of all methods.
    told: Mapping[str, Any] = {}

    def __init__(self, owner: Owner, address: RefAddress, shape: ActorShape) -> None:
        super().__init__(-1, address, [], 0.0, _DEPTH)
        # Nothing is recalled from an actor, and its depth does not depend on how long its calls take.
        self.concurrent = True
        self._owner = owner
        #: Where the actor's life is: the owner's process id and address, and the number there.
        self.address = address
        self.shape = shape
        #: Whether calls start in the order made, also where one still waits for its arguments.
        self.ordered = shape.ordered
        #: What holds calls back that would only keep the store full; where several run at a time, each may
        #: be what another one waits for.
        self._ahead = StoredAhead() if shape.mode == "sync" else None
        #: Numbers of calls under way that name their arguments instead of saying where they lie.
        self.naming: set[int] = set()
        #: The way to the actor; None while it is not known, or there is none.
        self.lease: Lease | None = None
        #: Which of its lives that leads to.
        self.incarnation = 0
        #: The pickled error of every call from now on; None while the actor is not dead.
        self.failure: Any = None
        #: Whether its owner has been asked where it is, and will tell of every change.
        self.asked = False
        #: Whether this process has killed it, and waits for its owner to say so: nothing is sent any more.
        self.doomed = False
        #: Who waits until fewer calls are under way.
        self.room: list[LoopWaiter] = []
        #: Methods as the worker is told of them, by what tells them apart; they hold the actor's reference.
        self.descriptors: WeakValueDictionary[object, Descriptor] = WeakValueDictionary()

    # --- what the owner's tables ask of a scheduling class -------------------------------------------------

    def assign(self, *, fresh_only: bool = False) -> list[tuple[Lease, list[Task]]]:
        if self.room:  # this pass follows whatever ends calls
            self._tell_of_room()
        if self.failure is not None:
            self._fail_queued()
            return []
        lease = self.lease
        if not self.queue or lease is None or lease.link is None or self.doomed or not lease.accepts():
            return []
        tasks = self._take_ready(lease)
        return [(lease, tasks)] if tasks else []

    def has_idle_lease(self) -> bool:
        lease = self.lease
        return lease is not None and not lease.in_flight

    def demand(self) -> int:
        """No leases are of use: the actor has its worker, or will."""
        return 0

    def _take_ready(self, lease: Lease) -> list[Task]:
        taken: list[Task] = []
        queue, in_flight = self.queue, lease.in_flight
        room = self.max_depth - len(in_flight)
        ahead = self._ahead
        while queue and len(taken) < room:
            task = queue[0]
            if task.state == WAITING:  # those behind it keep their places
                break
            queue.popleft()
            if task.state == DONE:  # cancelled, or an argument of it failed
                continue
            if task.dependencies is not None and ahead is not None and not ahead.admit(task, in_flight):
                queue.appendleft(task)
                break
            if task.dependencies is not None and ahead is None:
                choose_naming(self.naming, self._owner.session, task, in_flight)
            step(task, ASSIGNED)
            task.lease = lease
            in_flight[task.number] = task
            taken.append(task)
        self.dead = 0
        return taken

    @property
    def group(self) -> ActorCalls:
        """The scheduling class of its methods: itself."""
        return self

    def of(self, address: RefAddress) -> ActorCalls:
        """What counts the calls of the actor there: itself."""
        return self

    def names_arguments(self, task: Task) -> bool:
        """Whether a call that was sent, or is being sent, lets the actor ask for its arguments."""
        return task.number in self.naming

    def pending(self) -> int:
        """Calls that are under way, or wait."""
        return len(self.queue) + (len(self.lease.in_flight) if self.lease is not None else 0)

    def _tell_of_room(self) -> None:
        waiters, self.room = self.room, []
        for waiter in waiters:
            waiter.notify(None)

    # --- what becomes of the actor -------------------------------------------------------------------------

    def connected(self, lease: Lease, incarnation: int) -> None:
        """There is a way to the actor."""
        self.lease = lease
        self.incarnation = incarnation

    def lost(self, explanation: str, *, begun: bool) -> None:
        """The way to the actor has ended; the actor may come again.

        Args:
            explanation: What happened to it.
            begun: Whether calls that were sent may have been begun.
        """
        lease, self.lease = self.lease, None
        if lease is None:
            return
        tasks = list(lease.in_flight.values())
        lease.in_flight.clear()
        self._tell_of_room()
        again = []
        for task in tasks:
            if task.state == DONE:
                task.release()
            elif not begun:
                again.append(task)
            elif after_worker_death(task) is Verdict.RETRY:
                task.attempt += 1
                again.append(task)
            else:
                text = f"the actor was lost, and {task.descriptor.name!r} may have run or not"
                self._owner.fail(task, ActorUnavailableError(f"{text}: {explanation}"))
        self.take_back(again, RETRIED)

    def died(self, failure: Any) -> None:
        """The actor is dead for good: every call fails, now and later.

        Args:
            failure: The pickled error.
        """
        self.failure = failure
        self._tell_of_room()
        lease, self.lease = self.lease, None
        if lease is not None:
            tasks = list(lease.in_flight.values())
            lease.in_flight.clear()
            for task in tasks:
                self._fail(task)
        self._fail_queued()

    def _fail_queued(self) -> None:
        tasks, self.dead = list(self.queue), 0
        self.queue.clear()
        for task in tasks:
            self._fail(task)

    def _fail(self, task: Task) -> None:
        if task.state == DONE:
            task.release()
        else:
            self._owner.finish(task, FAILED, [self.failure] * len(task.records))


def choose_naming(naming: set[int], session: Session, task: Task, in_flight: dict[int, Task]) -> None:
    """A call of an actor that runs several at a time is sent with the places of its arguments, or names them.

    Args:
        naming: Numbers of those calls under way that name theirs.
        session: The caller's.
        task: The call; it has dependencies.
        in_flight: Those that went the same way, and have not ended.
    """
    naming.discard(task.number)
    if not session.actors.places_sent.admit(task, in_flight, session.store.capacity):
        if len(naming) > 2 * len(in_flight):
            naming.intersection_update(in_flight)
        naming.add(task.number)


class Creations(SchedulingClass):
    """Constructors that wait for a worker; the lease that comes is the actor's for good."""

    __slots__ = ("_placed",)

    def __init__(self, number: int, key: Any, description: list[Any], placed: Any) -> None:
        super().__init__(number, key, description, 0.0, 1)
        #: Called with each constructor and the lease that it is sent to.
        self._placed = placed

    def assign(self, *, fresh_only: bool = False) -> list[tuple[Lease, list[Task]]]:
        assigned = super().assign(fresh_only=fresh_only)
        for lease, tasks in assigned:
            del self.leases[lease.number]
            for task in tasks:
                self._placed(task, lease)
        return assigned
