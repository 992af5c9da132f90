"""An actor at its owner: the process that made it, and that decides about all its lives.

Each life begins with the constructor, a task of its own that goes to a leased worker; the lease is the
actor's until it ends. The object that handles refer to (the actor's life) is pending as long as the actor
may live, and fails with what ended it. So handles are counted, lent and returned as references are.

Rule 1: what may happen when is the table of state.actors; whether it starts again is decided by
        state.restarts. This file hears of events and does what follows.
Rule 2: methods need the lock of the owner's tables unless they say otherwise.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import (
    ActorDiedError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
)
from ..state.actors import (
    ALIVE,
    DEAD,
    DIED,
    DUE,
    ENDING,
    LOST,
    MADE,
    PLACED,
    PLACING,
    RESTING,
    TOLD_TO_END,
    step,
)
from ..state.objects import FAILED, READY, ObjectRecord
from ..state.restarts import End, Restarts, decide
from ..state.tasks import CANCELLED, DONE, QUEUED, Task
from .errors import decode_error, encode_error
from .plans import Plan, not_made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..state.pipeline import Lease
    from ..wire.handshake import Identity
    from .actor_calls import ActorCalls
    from .actors import Actors

#: Seconds that an actor without handles has to finish what was called for, and to end.
_END_S: Final = 30.0


class OwnedActor:
    """One actor that this process has made."""

    __slots__ = (
        "_actors", "_ending", "_made_at", "_plan", "_task", "calls", "incarnation", "lease", "life",
        "restarts", "state", "unheld", "watchers", "where",
    )  # fmt: skip

    def __init__(self, actors: Actors, life: ObjectRecord, plan: Plan, calls: ActorCalls) -> None:
        self._actors = actors
        self._plan: Plan | None = plan
        self.life = life
        #: This process's own calls of it.
        self.calls = calls
        self.state = PLACING
        #: Which life this is, from 1; 0 before the first.
        self.incarnation = 0
        self.restarts = Restarts(plan.max_restarts)
        #: Its worker's lease; None while there is none.
        self.lease: Lease | None = None
        #: Where its worker is; None while there is none.
        self.where: Identity | None = None
        #: Processes that have asked where it is, to be told of every change.
        self.watchers: dict[bytes, Identity] = {}
        #: Whether nobody holds a handle of it any more.
        self.unheld = False
        #: Why its worker is going to end, where that is known before it does.
        self._ending = End.CRASHED
        #: The constructor under way.
        self._task: Task | None = None
        self._made_at = 0.0

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return self.calls.shape.name

    @property
    def plan(self) -> Plan | None:
        """What it is made of; None when it will not be made again."""
        return self._plan

    # --- a life --------------------------------------------------------------------------------------------

    def place(self) -> Sequence[Any]:
        """Have the constructor run as soon as there is a worker; returns the links to flush."""
        plan, owner = self._plan, self._actors.owner
        assert plan is not None
        extras = {"actor": {**plan.extras, "life": self.incarnation}}
        task = self._task = plan.constructor(self.life.owner, owner.new_number(), self, extras)
        # Who asks why a call is queued hears what its actor waits for.
        self.calls.number = plan.descriptor.group.number
        self._actors.creating[task.number] = self
        return owner.enter(task)

    def placed(self, lease: Lease) -> None:
        """A worker gets the constructor; it is the actor's from now on."""
        self.state = step(self.state, PLACED, self.name)
        self.incarnation += 1
        self.lease = lease
        self.where = lease.link.connection.peer
        lease.group = self.calls
        # What was called for goes right behind the constructor.
        self.calls.connected(lease, self.incarnation)
        self._actors.session.pump_later(self.calls)

    def notify(self, record: ObjectRecord) -> None:
        """The constructor has ended. Without the lock."""
        actors = self._actors
        with actors.owner.lock:
            actors.creating.pop(record.number, None)
            task, self._task = self._task, None
            if task is None or task.number != record.number or self.state == DEAD:
                return
            if record.state == READY:
                self._made()
            else:
                self._not_made(record.value)

    def _made(self) -> None:
        self.state = step(self.state, MADE, self.name)
        self._made_at = self._actors.session.clock()
        if not self.restarts.left and self._plan is not None:
            # There is no other life to keep the arguments for.
            self._plan.arguments, self._plan.dependencies = None, None
        self._actors.announce(self)
        if self.unheld:
            self.end()

    def _not_made(self, payload: Any) -> None:
        error = decode_error(payload)
        if isinstance(error, RuntimeEnvSetupError):
            self.die(End.NO_PLACE, encode_error(error))
        elif isinstance(error, TaskUnschedulableError):
            told = str(error).replace("the task", "the actor", 1)
            self.die(End.NO_PLACE, encode_error(ActorUnschedulableError(told)))
        else:
            self.die(End.NOT_MADE, not_made(self.name, error, payload))

    # --- the end of a life ---------------------------------------------------------------------------------

    def lost(self, kind: str, explanation: str) -> None:
        """Its worker has died."""
        self.lease = self.where = None
        if self.state == DEAD:
            return
        if self.state == ENDING:
            self.die(End.UNHELD, self._death("nobody held a handle of it any more"))
            return
        task, self._task = self._task, None
        begun = self.state == ALIVE
        if task is not None:
            self._drop(task)
        lived_s = self._actors.session.clock() - self._made_at if begun else 0.0
        again = decide(self._ending, self.restarts, lived_s)
        if again is None or self.unheld:
            self.die(self._ending, self._death(explanation, kind))
            return
        self._ending = End.CRASHED
        self.restarts = again.restarts
        self.state = step(self.state, LOST, self.name)
        self.calls.lost(explanation, begun=begun)
        self._actors.announce(self)
        self._actors.after(again.delay_s, self)

    def due(self) -> Sequence[Any]:
        """The wait before the next life is over."""
        if self.state != RESTING:
            return ()
        self.state = step(self.state, DUE, self.name)
        return self.place()

    def left(self, reason: str) -> None:
        """It has ended by its own wish; its process follows."""
        if self.state != DEAD:
            end = End.UNHELD if self.state == ENDING else End.LEFT
            self.die(end, self._death(reason))

    def kill(self, *, no_restart: bool) -> None:
        """End it now."""
        if self.state == DEAD:
            return
        if no_restart:
            self.die(End.KILLED, self._death("it was killed by kill()"))
        elif self.lease is not None:
            self._ending = End.RESTARTED
            self._actors.end_worker(self.lease)

    def end(self) -> None:
        """Nobody holds a handle of it any more: it finishes what was called for, and ends."""
        if self._plan is not None and self._plan.detached:
            return
        self.unheld = True
        if self.state in (PLACING, RESTING):
            self.die(End.UNHELD, self._death("nobody held a handle of it any more"))
        elif self.finish():
            # By its number: an actor that has ended is not kept by its timer.
            self._actors.session.call_later(_END_S, partial(self._actors.insist, self.life.number))

    def finish(self) -> bool:
        """Ask it to end when it has done what was called for; whether it is going to."""
        if self.state == ALIVE:
            self.state = step(self.state, TOLD_TO_END, self.name)
            self._actors.ask_to_end(self)
        return self.state == ENDING

    def insist(self) -> None:
        """It has had its time."""
        if self.state == ENDING and self.lease is not None:
            self._actors.end_worker(self.lease)

    def die(self, end: End, failure: Any) -> None:
        """It is dead for good; every call of it fails, now and later."""
        actors = self._actors
        self.state = step(self.state, DIED, self.name)
        task, self._task = self._task, None
        if task is not None:
            self._drop(task)
        if self.lease is not None and end in (End.KILLED, End.NOT_MADE):  # else it goes by itself
            actors.end_worker(self.lease)
        self.calls.died(failure)
        plan, self._plan = self._plan, None
        actors.ended(self, failure, plan)

    def _drop(self, task: Task) -> None:
        """The constructor is not wanted any more; if it is queued, it never runs."""
        self._actors.creating.pop(task.number, None)
        lease = self.calls.lease
        if lease is not None:
            lease.in_flight.pop(task.number, None)
        if task.state == DONE:
            return
        task.records[0].waiters = None
        if task.state == QUEUED:
            task.descriptor.group.dead += 1
            self._actors.session.pump_later(task.descriptor.group)
        self._actors.owner.fail(task, ActorDiedError("it is not wanted any more"), CANCELLED)
        task.release()

    def _death(self, explanation: str, kind: str = "") -> bytes:
        error = OutOfMemoryError if kind == "memory" else ActorDiedError
        return encode_error(error(f"the actor {self.name!r} is dead: {explanation}"))

    def gone(self, process_id: bytes) -> None:
        """A process that watched it has ended."""
        self.watchers.pop(process_id, None)

    def complete(self, failure: Any) -> None:
        """Let the actor's life fail with what ended it."""
        if self.life.state <= 0:
            self._actors.owner.complete(self.life, FAILED, failure)
