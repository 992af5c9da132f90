"""Calls of light actors that other processes own, and that were not in their host, or were lost with it.

They wait here until the actor's owner has said how it stands: there again (they go once more), being made
again (those that may have run fail, unless they may run again), or dead.

Rule: methods need the lock of this process's tables unless they say otherwise.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ActorDiedError, ActorUnavailableError, ProtocolError
from ..state.actors import ALIVE, DEAD, STATE_NAMES
from ..state.tasks import DONE, QUEUED, RETRIED
from ..state.tasks import step as step_task
from ..wire import messages as m
from ..wire.handshake import Identity
from .errors import encode_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..net.connection import Connection
    from ..state.pipeline import Lease
    from ..state.tasks import Task
    from .lights import Lights

#: Actors that were killed from here and are remembered, at most.
_MOST_DOOMED: Final = 1000


class Strangers:
    """Others' actors that this process has to ask about."""

    def __init__(self, lights: Lights) -> None:
        self._lights = lights
        #: Where each process is that owns an actor which was called from here, by its id.
        self.addresses: dict[bytes, str] = {}
        #: Calls by the owner's process id and the number of the life; each with whether it may have run.
        self._waiting: dict[tuple[bytes, int], list[tuple[Task, bool]]] = {}
        #: Those that were killed from here: None until the owner has said that it is dead, and what ended it
        #: from then on. Their host may hear of the end later than we do.
        self._doomed: dict[tuple[bytes, int], Any] = {}
        #: What is to be asked soon, by whom to ask and the host that was lost.
        self._questions: dict[tuple[bytes, bytes], dict[int, None]] = {}
        #: Actors that were not in their host, and what is asked when the host has answered: all that was sent
        #: to it for them has come back by then, so that calls go again in their order.
        self._returning: dict[Lease, dict[tuple[bytes, int], None]] = {}
        self._expected: dict[Lease, deque[dict[tuple[bytes, int], None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def astray(self, task: Task, light: Sequence[Any], *, begun: bool, lost: bytes = b"") -> None:
        """A call has not found its actor.

        Args:
            task: The call.
            light: The actor's owner, and the number of its life there.
            begun: Whether it may have run.
            lost: Process id of the host that was lost; empty when the actor was not in it.
        """
        key = (light[0], light[1])
        known = key in self._waiting
        self._waiting.setdefault(key, []).append((task, begun))
        if known and not lost:
            return
        lease: Lease | None = task.descriptor.group.lease  # type: ignore[attr-defined]
        if lost or lease is None:
            self._question(key, lost)
            return
        if not self._returning:
            self._lights.session.call_soon(self._sound)
        self._returning.setdefault(lease, {})[key] = None

    def _question(self, key: tuple[bytes, int], lost: bytes) -> None:
        if not self._questions:
            self._lights.session.call_soon(self._ask)
        self._questions.setdefault((key[0], lost), {})[key[1]] = None

    def _sound(self) -> None:
        """Have hosts answer behind all that they turn away. On the loop, without the lock."""
        with self._lights.owner.lock:
            returning, self._returning = self._returning, {}
            for lease, keys in returning.items():
                if lease.group.lease is lease:  # type: ignore[attr-defined]
                    self._expected.setdefault(lease, deque()).append(keys)
                    lease.link.connection.push([m.LIGHT_END, [], False])
                else:
                    for key in keys:
                        self._question(key, b"")
        for lease in returning:
            lease.link.flush()

    def answered(self, lease: Lease) -> None:
        """A host has turned away all that was sent to it for actors that were not there."""
        expected = self._expected.get(lease)
        if not expected:
            raise ProtocolError("a host answers what it was not asked")
        for key in expected.popleft():
            self._question(key, b"")
        if not expected:
            del self._expected[lease]

    def lease_lost(self, lease: Lease, lost: bytes) -> None:
        """A host will not answer any more."""
        for keys in self._expected.pop(lease, ()):
            for key in keys:
                self._question(key, lost)

    def asks_about(self, key: tuple[bytes, int]) -> bool:
        """Whether calls of an actor wait here: its owner's process id, and the number of its life there."""
        return key in self._waiting

    def holds(self, task: Task, light: Sequence[Any]) -> bool:
        """Whether a call is not to be sent: it waits behind others of its actor, or has failed."""
        key = (light[0], light[1])
        waiting = self._waiting.get(key) if self._waiting else None
        if waiting is not None:
            waiting.append((task, False))
            return True
        failure = self._doomed.get(key) if self._doomed else None
        if failure is not None:
            self._lights.fail_with(task, failure)
        return failure is not None

    def doom(self, key: tuple[bytes, int], owner: Identity) -> None:
        """An actor was killed from here, and *owner* is being told: no call of it is sent any more."""
        self._doomed[key] = None
        while len(self._doomed) > _MOST_DOOMED:
            del self._doomed[next(iter(self._doomed))]
        self._waiting.setdefault(key, [])
        # A question of its own: one that is about to be asked may overtake the kill.
        self._lights.session.call_soon(self._ask_after_kill, key, owner)

    def _ask_after_kill(self, key: tuple[bytes, int], owner: Identity) -> None:
        """On the loop, without the lock."""
        if not self._lights.session.peers.send_to(owner, [m.LIGHT_WHERE, [key[1]], b""]):
            self.process_gone(key[0], dead=True)

    def _ask(self) -> None:
        """On the loop, without the lock."""
        with self._lights.owner.lock:
            questions, self._questions = self._questions, {}
        for (process_id, lost), numbers in questions.items():
            address = self.addresses.get(process_id)  # None: it has just been found to be dead
            message = [m.LIGHT_WHERE, list(numbers), lost]
            peers = self._lights.session.peers
            if address is None or not peers.send_to(Identity(process_id, address, 0), message):
                self.process_gone(process_id, dead=True)

    def on_at(self, connection: Connection, rows: list[Any]) -> None:
        """An owner says how some of its actors stand. On the loop, without the lock.

        Raises:
            ProtocolError: when none can stand like that.
        """
        m.check_rows("LIGHT_AT", rows, 3)
        lights = self._lights
        with lights.owner.lock:
            for number, state, failure in rows:
                known = type(state) is int and state in STATE_NAMES
                if not known or (state == DEAD and type(failure) is not bytes):
                    raise ProtocolError("a light actor cannot stand like that")
                self._heard((connection.peer.process_id, number), state, failure)
        lights.session.deliver()

    def _heard(self, key: tuple[bytes, int], state: int, failure: Any) -> None:
        if state != DEAD and key in self._doomed:
            return  # it was said before the owner heard of the kill
        if key in self._doomed:
            self._doomed[key] = failure
        waiting = self._waiting.pop(key, ())
        if state == DEAD:
            for task, _ in waiting:
                self._lights.fail_with(task, failure)
            return
        left = [task for task, begun in waiting if self._goes_again(task, begun=begun)]
        if left and state == ALIVE:
            # Those that went out together have come back one by one.
            extras = min(left, key=_number).extras
            assert extras is not None
            extras["again"] = True
            self._lights.send_again(left[0].descriptor.group, left)  # type: ignore[arg-type]
        elif left:
            self._waiting[key] = [(task, False) for task in left]

    def _goes_again(self, task: Task, *, begun: bool) -> bool:
        """Whether a call is still to be made; one that may have run and may not run twice fails."""
        if task.state == DONE:
            task.release()
            return False
        if begun and not self._lights.goes_again(task, unavailable(task)):
            return False
        if task.state != QUEUED:
            step_task(task, RETRIED)
            task.lease = None
        return True

    def process_gone(self, process_id: bytes, *, dead: bool) -> None:
        """A process has ended, or does not understand us. On the loop, without the lock."""
        lights = self._lights
        with lights.owner.lock:
            keys = [key for key in self._waiting if key[0] == process_id]
            for key in keys:
                if dead:
                    self._heard(key, DEAD, _owner_died())
                else:
                    self._doomed.pop(key, None)
                    # They begin anew, and will find out.
                    self._heard(key, ALIVE, None)
            if dead:
                self.addresses.pop(process_id, None)
        if keys:
            lights.session.deliver()


def _number(task: Task) -> int:
    return task.number


def unavailable(task: Task) -> ActorUnavailableError:
    """What a call fails with that was under way when its actor was lost, and may not be made again."""
    text = f"the actor was lost, and {task.descriptor.name!r} may have run or not"
    return ActorUnavailableError(f"{text}: it is being restarted")


def _owner_died() -> bytes:
    return encode_error(ActorDiedError("the actor is dead: the process that had made it has died"))
