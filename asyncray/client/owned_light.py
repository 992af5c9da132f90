"""A light actor at its owner: the process that made it, and that decides about all its lives.

As client.owned_actor, without what a process of its own needs, and small: there may be a hundred thousand.

Rule 1: what may happen when is the table of state.actors; whether it starts again is decided by
        state.restarts.
Rule 2: methods need the lock of the owner's tables unless they say otherwise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ActorDiedError
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
    STARTING,
    TOLD_TO_END,
    step,
)
from ..state.objects import READY, ObjectRecord
from ..state.restarts import End, Restarts, decide
from ..state.tasks import CANCELLED, DONE, Task
from .errors import decode_error, encode_error
from .plans import not_made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..actor_shape import ActorShape
    from ..wire.handshake import Identity
    from .host_calls import HostCalls
    from .lights import Lights
    from .plans import Plan

#: What is known of the lives of an actor that has one.
_ONE_LIFE: Final = Restarts(0)


class OwnedLight:
    """One light actor that this process has made."""

    __slots__ = (
        "_made_at", "calls", "incarnation", "life", "plan", "restarts", "shape", "state", "task", "unheld",
        "waiting", "watchers",
    )  # fmt: skip

    def __init__(self, life: ObjectRecord, plan: Plan, shape: ActorShape, calls: HostCalls) -> None:
        self.life = life
        #: What it is made of; None when it will not be made again and has nothing else to be known.
        self.plan: Plan | None = plan
        self.shape = shape
        #: Its host, for all its lives.
        self.calls = calls
        self.state = PLACING
        #: Which life this is, from 1; 0 before the first.
        self.incarnation = 0
        self.restarts = Restarts(plan.max_restarts) if plan.max_restarts else _ONE_LIFE
        #: The constructor under way.
        self.task: Task | None = None
        #: Whether nobody holds a handle of it any more.
        self.unheld = False
        #: Calls of this process that wait for its next life; None iff there are none.
        self.waiting: list[Task] | None = None
        #: Processes that wait for news of it; None iff there are none.
        self.watchers: dict[bytes, Identity] | None = None
        self._made_at = 0.0

    @property
    def _lights(self) -> Lights:
        return self.calls.lights

    # --- a life --------------------------------------------------------------------------------------------

    def place(self) -> Sequence[Any]:
        """Have the constructor run; returns the links to flush."""
        plan, owner = self.plan, self._lights.owner
        assert plan is not None
        extras: dict[str, Any] = {"light": self.life.number}
        if self.incarnation:
            extras["life"] = self.incarnation
        if plan.name is not None:
            extras["name"] = list(plan.name)
        task = self.task = plan.constructor(self.life.owner, owner.new_number(), self, extras)
        return owner.enter(task)

    def placed(self) -> None:
        """The host is sent the constructor."""
        self.state = step(self.state, PLACED, self.shape.name)
        self.incarnation += 1

    def notify(self, record: ObjectRecord) -> None:
        """The constructor has ended. Without the lock."""
        with self._lights.owner.lock:
            task = self.task
            if task is None or task.number != record.number or self.state == DEAD:
                return
            self.task = None
            if record.state == READY:
                self._made()
            else:
                self._not_made(record.value)

    def _made(self) -> None:
        self.state = step(self.state, MADE, self.shape.name)
        plan = self.plan
        assert plan is not None
        if self.restarts.left:
            self._made_at = self._lights.session.clock()
        elif plan.name is None and not plan.detached:
            self.plan = None
        else:
            plan.arguments, plan.dependencies = None, None
        self._lights.news.announce(self)
        if self.unheld:
            self.end()

    def _not_made(self, payload: Any) -> None:
        self.die(End.NOT_MADE, not_made(self.shape.name, decode_error(payload), payload))

    # --- the end of a life ---------------------------------------------------------------------------------

    def lost(self, explanation: str, end: End = End.CRASHED) -> None:
        """Its host has died, or it was killed to start again."""
        if self.state in (DEAD, PLACING, RESTING):
            return
        if self.state == ENDING:
            self.die(End.UNHELD, self.death("nobody held a handle of it any more"))
            return
        begun = self.state == ALIVE
        self._drop()
        lived_s = self._lights.session.clock() - self._made_at if begun else 0.0
        again = decide(end, self.restarts, lived_s)
        if again is None or self.unheld:
            self.die(end, self.death(explanation))
            return
        self.restarts = again.restarts
        self.state = step(self.state, LOST, self.shape.name)
        self._lights.news.announce(self)
        if end is End.RESTARTED:
            self._lights.ends.tell(self, now=True, again_s=again.delay_s)
        else:
            self._lights.after(again.delay_s, self)

    def due(self) -> Sequence[Any]:
        """The wait before the next life is over."""
        if self.state != RESTING:
            return ()
        self.state = step(self.state, DUE, self.shape.name)
        return self.place()

    def not_begun(self) -> None:
        """The host has gone before it was sent the constructor, which goes to the next one."""
        if self.state == STARTING:
            self.state = step(step(self.state, LOST, self.shape.name), DUE, self.shape.name)
            self.incarnation -= 1

    def left(self, reason: str) -> None:
        """It has ended by its own wish."""
        if self.state != DEAD:
            self.die(End.UNHELD if self.state == ENDING else End.LEFT, self.death(reason))

    def kill(self, *, no_restart: bool) -> None:
        """End it now."""
        if self.state == DEAD:
            return
        if no_restart:
            self.die(End.KILLED, self.death("it was killed by kill()"))
        elif self.state in (STARTING, ALIVE):
            self.lost("it was killed by kill()", End.RESTARTED)

    def end(self) -> None:
        """Nobody holds a handle of it any more: it finishes what was called for, and ends."""
        if self.plan is not None and self.plan.detached:
            return
        self.unheld = True
        if self.state in (PLACING, RESTING):
            self.die(End.UNHELD, self.death("nobody held a handle of it any more"))
        else:
            self.finish()

    def finish(self) -> bool:
        """Ask it to end when it has done what was called for; whether it is going to."""
        if self.state == ALIVE:
            self.state = step(self.state, TOLD_TO_END, self.shape.name)
            self._lights.ends.tell(self, now=False)
        return self.state == ENDING

    def insist(self) -> None:
        """It has had its time to end."""
        if self.state == ENDING:
            self.die(End.KILLED, self.death("nobody held a handle of it any more"))

    def die(self, end: End, failure: Any) -> None:
        """It is dead for good; every call of it fails, now and later."""
        lights = self._lights
        if end in (End.KILLED, End.RESTARTED) and self.state in (STARTING, ALIVE, ENDING):
            lights.ends.tell(self, now=True)
        self.state = step(self.state, DIED, self.shape.name)
        self._drop()
        plan, self.plan = self.plan, None
        waiting, self.waiting = self.waiting, None
        lights.ended(self, failure, plan)
        for task in waiting or ():
            lights.fail_with(task, failure)

    def _drop(self) -> None:
        """The constructor under way is not wanted any more."""
        task, self.task = self.task, None
        if task is None or task.state == DONE:
            return
        task.records[0].waiters = None
        if task.lease is not None:
            task.lease.in_flight.pop(task.number, None)
        self._lights.owner.fail(task, ActorDiedError("it is not wanted any more"), CANCELLED)
        task.release()

    def death(self, explanation: str) -> bytes:
        """What calls of it fail with."""
        return _death(self.shape.name, explanation)


@lru_cache(maxsize=100)
def _death(name: str, explanation: str) -> bytes:
    """Thousands end in the same way, when their host does."""
    return encode_error(ActorDiedError(f"the actor {name!r} is dead: {explanation}"))
