"""The orderly ends of actors that nobody ends by hand: of those whose owner leaves, or whose session ends.

A worker that is about to leave holds handles of actors that it has made only for itself: they are ended as if
it had let them go, and its process ends after them.

At the end of a session each owner lets its actors clean up that have something to. The driver does so first;
then it asks the node, which asks those workers that have said that they own such actors:

    driver -- ASK "wind_up" --> node -- WIND_UP --> worker        (its actors' on_stop runs)
    driver <-- ANSWER --------- node <-- WOUND_UP -- worker

Everything here runs on the session's loop unless it says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..state.objects import PENDING
from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..actor_shape import ActorShape
    from .session import Session


class Farewells:
    """One process's part in the ends of the actors that it owns."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told = False

    def made(self, shape: ActorShape) -> None:
        """This process has made an actor. From any thread."""
        if shape.stops and not self._told:
            self._told = True
            # The node drops what a driver says here: it begins the end itself.
            self._session.call_soon(self._session.control.send, [m.WINDS_UP])

    def on_wind_up(self) -> None:
        """The session ends, says the node."""
        self._session.actors.end_all(lambda: self._session.control.send([m.WOUND_UP]))

    def wind_up_all(self, then: Callable[[], None]) -> None:
        """Let the actors of all processes clean up, this one's first, and call *then*; not for long."""
        self._session.actors.end_all(lambda: self._ask_others(then))

    def _ask_others(self, then: Callable[[], None]) -> None:
        session = self._session
        if session.failure is not None:
            then()
            return
        once = _Once(then)
        session.questions.ask("wind_up", None, once)
        session.loop.call_later(session.config.cancel_grace_s, once)

    def release(self) -> None:
        """This process leaves: end its actors that are held nowhere else, when its own work is done."""
        session = self._session
        actors, objects = session.actors, session.owner.objects
        owned: list[Any] = [*actors.owned.values(), *session.lights.owned.values()]
        if not owned or session.peers.borrowing.pins() or session.owner.unreturned:
            return
        with session.owner.lock:
            lives = objects.lives
            if any(r.state == PENDING and r not in lives for r in list(objects.owned.values())):
                return
            for actor in owned:
                if not actor.unheld and not actor.life.borrowers:
                    actor.end()
        session.deliver()


class _Once:
    """Calls a function at the first call of its own."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then: Callable[[], None] | None = then

    def __call__(self, answer: object = None) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()
