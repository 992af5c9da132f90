"""The light actors of one process: coroutines of many instances on one loop.

A light actor is a row in a table here, its instance, and nothing else while nobody calls it. It is made by a
call, its constructor, and each of its calls says which one it is for. What is not there is said to be gone
(LIGHT_GONE), and the caller asks the actor's owner what has become of it.

Rule 1: an owner hears of the end of its actor (LIGHT_ENDED) before anybody hears that it is gone.
Rule 2: the end of the connection with an owner is the end of its actors here.
Rule 3: everything here runs on the loop.
"""

from __future__ import annotations

import inspect
import itertools
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from ..client.by_reference import handed_back, handed_over
from ..client.hosted import hosted_now
from ..exceptions import ProtocolError
from ..wire import messages as m
from .hosted import Hosted, LightConstructor, LightMethod
from .output import flush

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..client.session import Session
    from .async_actor import AsyncActor
    from .async_mode import AsyncOwner
    from .calls import Call, Runner
    from .functions import Function

#: Callers and actors, of whom it is known that a call was turned away, at most.
_MOST_TURNED: Final = 10_000


class HostedLights:
    """The table of one worker.

    Args:
        runner: What runs calls.
        session: The worker's session.
        start: Starts a call.
        actor: What knows who watches the loop.
        owners: The worker's callers, by process id.
        cancel: Cancels a call that runs, with all it has called for.
    """

    def __init__(
        self,
        runner: Runner,
        session: Session,
        start: Callable[[AsyncOwner, Call], None],
        actor: AsyncActor,
        owners: dict[bytes, AsyncOwner],
        cancel: Callable[[AsyncOwner, int], None],
    ) -> None:
        self._runner = runner
        self._session = session
        self._start = start
        self._actor = actor
        self._owners = owners
        self._cancel = cancel
        #: By process id of the owner, and the number of the life there.
        self._table: dict[tuple[bytes, int], Hosted] = {}
        #: Where each call waits that has not been started.
        self._waiting: dict[tuple[AsyncOwner, int], Hosted] = {}
        #: Callers of whom a call was turned away, and its actor: what they have sent behind it is, too.
        self._turned: dict[tuple[AsyncOwner, tuple[bytes, int]], None] = {}
        #: Ends that their owners have not been told of, and calls whose actors are not here.
        self._ends: dict[AsyncOwner, list[list[Any]]] = {}
        self._strays: dict[tuple[AsyncOwner, bool], list[int]] = {}
        self._telling = False
        #: Numbers for calls of actors that were ended: the callers may use theirs again.
        self._left_over = itertools.count(-1, -1)
        #: Whether this process is for light actors alone, and ends without any.
        self._hosts = False
        self._watching = False

    def __len__(self) -> int:
        return len(self._table)

    def function(self, function_id: bytes, blob: bytes, options: dict[str, Any]) -> Function:
        """What an owner has described.

        Raises:
            ProtocolError: when an option is of the wrong type.
        """
        if "light" not in options:
            return self._runner.hosting.function(function_id, blob, options)
        return LightConstructor(function_id, blob, options) if blob else LightMethod(options)

    # --- calls ----------------------------------------------------------------------------------------------

    def arrive(self, owner: AsyncOwner, call: Call) -> None:
        """A call has come: start it, or let it wait for its turn.

        Raises:
            ProtocolError: when it does not say which actor it is for.
        """
        key = _key(call)
        if call.number < 0:  # those are our own, see _dismiss
            raise ProtocolError(f"a call cannot have the number {call.number}")
        if (owner, call.number) in self._waiting:  # it was repeated
            return
        if call.owner == self._session.identity.process_id and type(call.arguments) is list:
            call.arguments = handed_over(call.arguments)
        if isinstance(call.function, LightConstructor):
            self._construct(owner, call, key, call.function)
            return
        hosted = self._table.get(key)
        if hosted is None or (self._turned and self._is_behind(owner, call, key)):
            self._stray(owner, call, begun=False)
        elif hosted.leaving:
            hosted.late = [*(hosted.late or ()), (owner, call)]
        else:
            self._admit(owner, call, hosted)

    def _is_behind(self, owner: AsyncOwner, call: Call, key: tuple[bytes, int]) -> bool:
        """Whether an earlier call for this actor was turned away, and has not come again: order is kept."""
        if call.extras.get("again"):
            self._turned.pop((owner, key), None)
        return (owner, key) in self._turned

    def _construct(
        self, owner: AsyncOwner, call: Call, key: tuple[bytes, int], function: LightConstructor
    ) -> None:
        if key[0] != call.owner:
            raise ProtocolError("a process makes an actor in another's name")
        earlier = self._table.get(key)
        if earlier is not None:
            self._kill([earlier])
        call.hosted = self._table[key] = Hosted(owner, call, key[1], function)
        self._start(owner, call)

    def _admit(self, owner: AsyncOwner, call: Call, hosted: Hosted) -> None:
        call.hosted = hosted
        if hosted.admit((owner, call), hosted.group_of(call)):
            self._start(owner, call)
        else:
            self._waiting[owner, call.number] = hosted

    def begun(self) -> None:
        """A call starts."""
        if self._actor.stalls is not None:
            self._actor.stalls.begin()

    def ended(self, call: Call) -> None:
        """A call of one of these has ended, and is reported."""
        hosted: Hosted = call.hosted
        if self._actor.stalls is not None:
            self._actor.stalls.end()
        if call.function.constructs:
            self._constructed(hosted)
            return
        following = hosted.ended(hosted.group_of(call))
        if following is not None:
            owner, call = following
            self._waiting.pop((owner, call.number), None)
            self._start(owner, call)
        if hosted.leaving:
            self._leave(hosted)

    def _constructed(self, hosted: Hosted) -> None:
        if self._table.get((hosted.owner, hosted.number)) is not hosted:
            return
        early = hosted.opened()
        if hosted.instance is None:
            hosted.creator.report()
            self._forget(hosted)
            self._turn_away(early)
            return
        for owner, call in early:
            self._waiting.pop((owner, call.number), None)
            self._admit(owner, call, hosted)

    def row_here(self, call: Call, value: Any) -> list[Any] | None:
        """The row that reports a value to this very process, if it cannot change."""
        function = call.function
        if call.hosted is None or call.owner != self._session.identity.process_id or function.constructs:
            return None
        fields = handed_back(value, function.returns)
        if fields is None:
            return None
        return [call.number, m.OK, fields[0]] if function.returns == 1 else [call.number, m.MANY, fields]

    def cancel(self, owner: AsyncOwner, number: int) -> bool:
        """Take a call out that waits; whether there was one."""
        hosted = self._waiting.pop((owner, number), None)
        box = None if hosted is None else hosted.mailbox
        if box is None:
            return False
        for _, call in box.take(lambda item: item[0] is owner and item[1].number == number):
            owner.add([call.number, m.CANCELLED, None], [], 0.0)
        return True

    def before(self, waiting: set[tuple[bytes, int]]) -> set[tuple[bytes, int]]:
        """The calls that run in the actors that some calls wait for; all by owner and number."""
        found = {id(h) for (o, n), h in self._waiting.items() if (o.connection.peer.process_id, n) in waiting}
        if not found:
            return set()
        running = [call for owner in self._owners.values() for _, call in owner.running.values()]
        return {(call.owner, call.number) for call in running if id(call.hosted) in found}

    # --- ends -----------------------------------------------------------------------------------------------

    def end(self, owner: AsyncOwner, numbers: list[Any], *, now: bool) -> None:
        """An owner wants actors of its to end, now or when they have done what was called for."""
        m.check_numbers("LIGHT_END", numbers)
        process_id = owner.connection.peer.process_id
        found = [h for number in numbers if (h := self._table.get((process_id, number))) is not None]
        if now:
            self._kill(found)
            # Behind what was turned away: those that start again wait for all of it.
            self._tell()
            owner.connection.send([m.LIGHT_ENDED, []])
            return
        if not numbers:
            # Behind what was turned away: a caller wants to know that there is no more of it on its way.
            self._tell()
            owner.connection.send([m.LIGHT_GONE, [], False])
        for hosted in found:
            hosted.leave("nobody held a handle of it any more", patient=True)
            self._leave(hosted)

    def _leave(self, hosted: Hosted) -> None:
        """One ends by its own wish: what runs is finished, what waits too if it is patient."""
        if self._table.get((hosted.owner, hosted.number)) is not hosted:
            return
        if not hosted.patient:
            hosted.late = hosted.emptied() or None
        if hosted.is_busy() or hosted.instance is None:
            return
        instance = hosted.instance
        context = copy_context()
        context.run(hosted_now.set, hosted)
        hook = context.run(hosted.run_stop_hook)
        # What comes meanwhile finds it not there, and waits for word of its end.
        hosted.instance = None
        if inspect.isawaitable(hook):
            part = self._part(hosted, hook, instance)
            self._session.loop.create_task(part, name="end of an actor", context=context)
        else:
            self._gone(hosted)

    async def _part(self, hosted: Hosted, hook: Any, instance: object) -> None:
        await hosted.awaited(hook)
        del instance
        self._gone(hosted)

    def _gone(self, hosted: Hosted) -> None:
        """One has ended in order."""
        if self._table.get((hosted.owner, hosted.number)) is not hosted:
            return  # killed meanwhile
        flush()
        self._forget(hosted)
        row = [hosted.number, hosted.restarts, hosted.leaving]
        self._ends.setdefault(hosted.creator, []).append(row)
        self._turn_away(hosted.emptied())
        self._tell_soon()

    def _kill(self, killed: Collection[Hosted]) -> None:
        """End some here and now: nobody hears of them any more, and their callers ask what has become."""
        # One without an instance is being made, or is cleaning up.
        doomed = {id(hosted) for hosted in killed if hosted.running or hosted.instance is None}
        for hosted in killed:
            self._forget(hosted)
            self._turn_away(hosted.emptied())
            hosted.instance = None
        if not doomed:
            return
        for owner in list(self._owners.values()):
            for number, (_, call) in list(owner.running.items()):
                if id(call.hosted) in doomed:
                    self._dismiss(owner, number)

    def _dismiss(self, owner: AsyncOwner, number: int) -> None:
        """A call that runs is nobody's any more; what it may still say goes by another number."""
        self._cancel(owner, number)
        task, call = owner.running.pop(number)
        if number > 0:
            self._stray(owner, call, begun=True)
        call.number = next(self._left_over)
        owner.running[call.number] = (task, call)

    def owner_gone(self, owner: AsyncOwner) -> None:
        """A process has gone: its actors end, and what it had called for is of no use."""
        self._ends.pop(owner, None)
        self._turned = {place: None for place in self._turned if place[0] is not owner}
        self._strays.pop((owner, False), None)
        self._strays.pop((owner, True), None)
        self._kill([hosted for hosted in self._table.values() if hosted.creator is owner])
        for key in [key for key in self._waiting if key[0] is owner]:
            box = self._waiting.pop(key).mailbox
            if box is not None:
                box.take(lambda item: item[0] is owner)

    def _forget(self, hosted: Hosted) -> None:
        key = (hosted.owner, hosted.number)
        if self._table.get(key) is hosted:
            del self._table[key]
        if not self._table:
            self._watch_idle()

    # --- telling --------------------------------------------------------------------------------------------

    def _turn_away(self, items: list[tuple[AsyncOwner, Call]]) -> None:
        for owner, call in items:
            self._waiting.pop((owner, call.number), None)
            self._stray(owner, call, begun=False)

    def _stray(self, owner: AsyncOwner, call: Call, *, begun: bool) -> None:
        if owner.connection.closed:  # its caller is gone, and was not among those that wait
            return
        key = _key(call)
        if key[0] != call.owner:  # an owner's calls come behind the constructor
            self._turned[owner, key] = None
            if len(self._turned) > _MOST_TURNED:  # callers of the dead do not come back
                del self._turned[next(iter(self._turned))]
        self._strays.setdefault((owner, begun), []).append(call.number)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            self._session.loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        ends, self._ends = self._ends, {}
        strays, self._strays = self._strays, {}
        for owner, rows in ends.items():
            owner.report()
            owner.connection.send([m.LIGHT_ENDED, rows])
        for (owner, begun), numbers in strays.items():
            owner.report()
            owner.connection.send([m.LIGHT_GONE, numbers, begun])

    # --- a host without actors ------------------------------------------------------------------------------

    def watch(self) -> None:
        """This process is for light actors alone: it ends when it has had none for a while."""
        self._hosts = True
        self._watch_idle()

    def _watch_idle(self) -> None:
        if self._hosts and not self._watching:
            self._watching = True
            self._session.timer(self._session.config.worker_idle_s, self._look)

    def _look(self) -> None:
        self._watching = False
        if self._table:
            return
        if not self._session.is_needed():
            self._session.control.send([m.HOST_END, b""])
        self._watch_idle()


def _key(call: Call) -> tuple[bytes, int]:
    """Which actor a call is for: one of its caller's own by its number, others by their owner's id, too."""
    told = call.extras.get("light")
    if type(told) is int:
        return call.owner, told
    if type(told) is list and len(told) == 2 and type(told[0]) is bytes and type(told[1]) is int:
        return told[0], told[1]
    raise ProtocolError("a call does not say which light actor it is for")
