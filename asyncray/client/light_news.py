"""What owners of light actors tell others that wait for them: how each stands, until it is there, or dead.

caller -- LIGHT_WHERE --> owner -- LIGHT_AT --> caller   (at once where it stands; later, at each change)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ActorDiedError
from ..state.actors import ALIVE, DEAD
from ..state.objects import FAILED
from ..wire import messages as m
from .errors import encode_error

if TYPE_CHECKING:
    from ..net.connection import Connection
    from ..wire.handshake import Identity
    from .lights import Lights
    from .owned_light import OwnedLight

#: Ends of actors that are remembered, at most, and bytes of one: what a constructor has raised may be large.
_MOST_ENDS: Final = 1000
_END_BYTES: Final = 4096


class LightNews:
    """The news that callers get soon, all of it at once."""

    def __init__(self, lights: Lights) -> None:
        self._lights = lights
        self._session = lights.session
        self._owner = lights.owner
        #: By process. Taken under the lock: what is added meanwhile would be left behind.
        self._news: dict[bytes, tuple[Identity, list[list[Any]]]] = {}
        #: What ended those that have ended last. Handles that keep no life may call when that is gone.
        self._ends: dict[int, bytes] = {}

    def ended(self, actor: OwnedLight, failure: Any) -> None:
        """An actor is dead for good. The lock is held."""
        if type(failure) is bytes and len(failure) <= _END_BYTES:
            self._ends[actor.life.number] = failure
            if len(self._ends) > _MOST_ENDS:
                del self._ends[next(iter(self._ends))]
        self.announce(actor, failure)

    def what_ended(self, number: int) -> Any:
        """What calls of a dead actor of ours fail with. The lock is held."""
        record = self._owner.objects.owned.get(number)
        if record is not None and record.state == FAILED:
            return record.value
        return self._ends.get(number) or _forgotten()

    def announce(self, actor: OwnedLight, failure: Any = None) -> None:
        """Tell who waits for it how an actor stands. The lock is held."""
        watchers = actor.watchers
        if watchers is None:
            return
        if not self._news:
            self._session.call_soon(self._announce)
        for peer in watchers.values():
            _, rows = self._news.setdefault(peer.process_id, (peer, []))
            rows.append([actor.life.number, actor.state, failure])
        if failure is not None or actor.state == ALIVE:
            actor.watchers = None

    def _announce(self) -> None:
        with self._owner.lock:
            news, self._news = self._news, {}
        for peer, rows in news.values():
            self._session.peers.send_to(peer, [m.LIGHT_AT, rows])

    def on_where(self, connection: Connection, numbers: list[Any], lost: bytes) -> None:
        """A caller asks how actors of ours stand, and wants to hear of every change until they are there."""
        m.check_numbers("LIGHT_WHERE", numbers)
        rows: list[list[Any]] = []
        with self._owner.lock:
            for number in numbers:
                actor = self._lights.owned.get(number)
                if actor is None:
                    # An error with references in it cannot travel so.
                    failure = self.what_ended(number)
                    rows.append([number, DEAD, failure if type(failure) is bytes else _forgotten()])
                    continue
                # Of a host's end the caller may have heard earlier.
                way = actor.calls.lease
                stale = way is None or way.link.connection.closed or lost == actor.calls.process_id
                stale = stale and actor.state == ALIVE
                if stale or actor.state != ALIVE:
                    actor.watchers = {**(actor.watchers or {}), connection.peer.process_id: connection.peer}
                if not stale:
                    rows.append([number, actor.state, None])
        if rows:
            connection.send([m.LIGHT_AT, rows])


def _forgotten() -> bytes:
    return encode_error(ActorDiedError("the actor is dead, and nobody who could tell why is left"))
