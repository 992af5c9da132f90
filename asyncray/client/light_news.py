"""What owners of light actors tell others that wait for them: how each stands, until it is there, or dead.

caller -- LIGHT_WHERE --> owner -- LIGHT_AT --> caller   (at once where it stands; later, at each change)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ActorDiedError
from ..state.actors import ALIVE, DEAD
from ..wire import messages as m
from .errors import death_in, encode_error

if TYPE_CHECKING:
    from ..net.connection import Connection
    from ..wire.handshake import Identity
    from .lights import Lights
    from .owned_light import OwnedLight


class LightNews:
    """The news that callers get soon, all of it at once."""

    def __init__(self, lights: Lights) -> None:
        self._lights = lights
        self._session = lights.session
        self._owner = lights.owner
        #: By process. Taken under the lock: what is added meanwhile would be left behind.
        self._news: dict[bytes, tuple[Identity, list[list[Any]]]] = {}

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
                    record = self._owner.objects.owned.get(number)
                    failure = None if record is None else death_in(record)
                    rows.append([number, DEAD, failure or forgotten()])
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


def forgotten() -> bytes:
    """What ended an actor of which nothing is left."""
    return encode_error(ActorDiedError("the actor is dead, and nobody who could tell why is left"))
