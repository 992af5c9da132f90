"""Telling hosts which of our light actors end: at once, or when they have done what was called for.

Who does not end in time is told again, to end now; a host that does not hear even that is blocked for good,
and ends with all that are in it.

Everything here runs on the session's loop without the lock, except where it says otherwise.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ..wire import messages as m

if TYPE_CHECKING:
    from ..state.pipeline import Lease
    from .host_calls import HostCalls
    from .lights import Lights
    from .owned_light import OwnedLight

#: Seconds that actors without handles have to finish what was called for, and to end.
_END_S: Final = 30.0


class LightEnds:
    """The ends that hosts are told of soon, all of them at once."""

    def __init__(self, lights: Lights) -> None:
        self._lights = lights
        self._session = lights.session
        self._owner = lights.owner
        #: By host, and whether at once. Taken under the lock: what is added meanwhile would be left behind.
        self._ends: dict[tuple[HostCalls, bool], list[tuple[OwnedLight, float | None]]] = {}

    def tell(self, actor: OwnedLight, *, now: bool, again_s: float | None = None) -> None:
        """Have an actor's host end it. Under the lock.

        Args:
            actor: The actor.
            now: Whether at once; else when it has done what was called for.
            again_s: Seconds from the host's answer to its next life; None: there is none. With the answer
                has come back what will not be done, so that it goes again before what was called for since.
        """
        if not self._ends:
            self._session.call_soon(self._tell_all)
        self._ends.setdefault((actor.calls, now), []).append((actor, again_s))

    def _tell_all(self) -> None:
        with self._owner.lock:
            ends, self._ends = self._ends, {}
        for (calls, now), told in ends.items():
            lease = calls.lease
            if lease is not None:
                numbers = [actor.life.number for actor, _ in told]
                lease.link.connection.send([m.LIGHT_END, numbers, now])
                if now:
                    self._expect_answer(calls, lease)
                else:
                    # By their numbers: those that have ended are not kept by the timer.
                    self._session.timer(_END_S, partial(self._insist, numbers))
            again = [(actor, again_s) for actor, again_s in told if again_s is not None]
            if again:
                with self._owner.lock:
                    calls.restarting.append((calls.told, again))
                    self.start_again(calls)

    def start_again(self, calls: HostCalls) -> None:
        """Let those have their next life whose end a host has heard of. Under the lock."""
        while calls.restarting and calls.restarting[0][0] <= calls.heard:
            for actor, delay_s in calls.restarting.popleft()[1]:
                self._lights.after(delay_s, actor)

    def _expect_answer(self, calls: HostCalls, lease: Lease) -> None:
        """A host must say that it has heard what was to end at once; one that is blocked for good does not.

        A process actor could be killed; here the process must be, with all that are in it.
        """
        calls.told += 1
        if calls.told == calls.heard + 1:  # else an answer is expected already
            self._session.timer(_END_S, partial(self._look_for_answer, calls, lease, calls.heard))

    def _look_for_answer(self, calls: HostCalls, lease: Lease, heard: int) -> None:
        if calls.lease is not lease or calls.heard >= calls.told:
            return
        if calls.heard == heard:
            self._session.control.send([m.HOST_END, calls.process_id])
        else:
            self._session.timer(_END_S, partial(self._look_for_answer, calls, lease, calls.heard))

    def _insist(self, numbers: list[int]) -> None:
        with self._owner.lock:
            for actor in [self._lights.owned[number] for number in numbers if number in self._lights.owned]:
                actor.insist()
        self._session.deliver()
