"""An actor in an async worker: its calls are coroutines on the loop, or run in threads, many at a time.

Everything here runs on the loop, but for what is said to run in a thread.
"""

from __future__ import annotations

import inspect
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.enclosures import enclosing
from ..wire import messages as m
from .calls import call_user
from .hands import Hands
from .mailbox import Mailbox
from .output import flush
from .pausing import ThreadPauses
from .scope import running_call
from .streaming import Producer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.session import Session
    from ..wire.frames import Buffer
    from .async_mode import AsyncOwner
    from .calls import Call, Runner
    from .stalls import StallWatch

    #: A call and the connection that it came by.
    Item = tuple[AsyncOwner, Call]


class AsyncActor:
    """What an async worker asks when it is, or becomes, an actor.

    Args:
        runner: What runs its calls.
        session: The worker's session.
        start: Starts a call.
        start_thread: Runs a function in a new thread.
        owners: The worker's callers, by process id.
    """

    def __init__(
        self,
        runner: Runner,
        session: Session,
        start: Callable[[AsyncOwner, Call], None],
        start_thread: Callable[[Callable[[], None]], Any],
        owners: dict[bytes, AsyncOwner],
    ) -> None:
        self._runner = runner
        self._session = session
        self._start = start
        self._owners = owners
        self._hosting = runner.hosting
        self._mailbox: Mailbox[Item] = Mailbox()
        #: What is in it.
        self._waiting: set[tuple[AsyncOwner, int]] = set()
        self._hands = Hands(start_thread, session.waits._parker)
        self._pauses = ThreadPauses(session.waits._parker, session.scope)
        self._parting = False
        #: Notices who blocks the loop; None in a simulation, where nobody can.
        self.stalls: StallWatch | None = None

    def arrive(self, owner: AsyncOwner, call: Call) -> None:
        """A call has come: start it, or let it wait for its turn.

        Raises:
            ProtocolError: when it is to make an actor, and there is one, or it does not say which.
        """
        hosting = self._hosting
        if self._waiting and (owner, call.number) in self._waiting:  # it was repeated
            return
        if hosting.leaving:
            owner.connection.send([m.HANDBACK, [call.number], m.LEAVING])
        elif self._starts_now(owner, call):
            self._start(owner, call)

    def _starts_now(self, owner: AsyncOwner, call: Call) -> bool:
        function = call.function
        if function.constructs or not function.of_actor:
            if function.constructs:
                self._hosting.check(call)
            return True
        admitted = self._mailbox.admit((owner, call), self._group(call))
        if not admitted:
            self._waiting.add((owner, call.number))
        return admitted

    def _group(self, call: Call) -> str:
        shape = self._hosting.shape
        asked = call.function.group
        if asked or shape is None or not shape.groups:
            return asked
        method = shape.methods.get(call.function.method)
        return "" if method is None else method.group

    def ended(self, call: Call) -> None:
        """A call has ended, and is reported."""
        hosting = self._hosting
        if hosting.shape is None:
            return
        if call.function.constructs:
            self._open()
        else:
            if self.stalls is not None and hosting.shape.is_async:
                self.stalls.end()
            following = self._mailbox.ended(self._group(call))
            if following is not None:
                self._waiting.discard((following[0], following[1].number))
                self._start(*following)
        if hosting.leaving:
            self._leave()

    def _open(self) -> None:
        shape = self._hosting.shape
        assert shape is not None
        early = self._mailbox.open({"": shape.max_concurrency, **shape.groups})
        self._waiting.clear()
        for owner, call in early:
            self.arrive(owner, call)

    def cancel(self, owner: AsyncOwner, number: int) -> bool:
        """Take a call out that waits; whether there was one."""
        if (owner, number) not in self._waiting:
            return False
        found = self._take(lambda item: item[0] is owner and item[1].number == number)
        for _, call in found:
            owner.add([call.number, m.CANCELLED, None], [], 0.0)
        return bool(found)

    def owner_gone(self, owner: AsyncOwner) -> None:
        """A caller has gone: what it had called for and was not started is of no use."""
        self._take(lambda item: item[0] is owner)

    def _take(self, wanted: Callable[[Item], bool]) -> list[Item]:
        """Take out what waits and is *wanted*."""
        taken = self._mailbox.take(wanted)
        self._waiting.difference_update([(owner, call.number) for owner, call in taken])
        return taken

    # --- the end -------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """The actor ends by its own wish: what runs is finished, what waits too if it is patient."""
        if not self._hosting.patient:
            for owner, call in self._take(lambda item: True):
                owner.connection.push([m.HANDBACK, [call.number], m.LEAVING])
                owner.connection.flush()
        running = any(owner.running for owner in self._owners.values())
        if not running and not len(self._mailbox) and not self._parting:
            self._parting = True
            self._session.loop.create_task(self._part(), name="end of the actor")

    async def _part(self) -> None:
        hook = self._hosting.run_stop_hook()
        if inspect.isawaitable(hook):
            await self._hosting.awaited(hook)
        flush()
        for owner in self._owners.values():
            owner.report()
        owner_of_actor = self._owners.get(self._hosting.owner)
        if owner_of_actor is not None:
            owner_of_actor.connection.send([m.ACTOR_LEAVES, self._hosting.leaving])
        self._session.when_unneeded(self._runner.leave)

    # --- methods in threads --------------------------------------------------------------------------------

    def begun(self) -> None:
        """A call starts on the loop; a constructor is none that could wait instead."""
        if self.stalls is not None and self._hosting.shape is not None:
            self.stalls.begin()

    def runs_in_thread(self, call: Call) -> bool:
        """Whether a call is for a thread: of an actor without coroutine methods, its constructor too."""
        function = call.function
        return (function.of_actor or function.constructs) and self._hosting.is_threaded(call)

    def run_in_thread(
        self, owner: AsyncOwner, call: Call, done: Callable[[list[Any], list[Buffer]], None]
    ) -> None:
        """Run a call in a thread; *done* gets its row and its buffers, on the loop."""
        context = copy_context()
        context.run(running_call.set, call)
        if call.extras:
            self._runner.enclose(call)
        context.run(enclosing.set, call.enclosure)
        self._hands.do(partial(context.run, self._work, owner, call, done))

    def _work(self, owner: AsyncOwner, call: Call, done: Callable[[list[Any], list[Buffer]], None]) -> None:
        """In a thread."""
        buffers: list[Buffer] = []
        row = self._outcome(owner, call, buffers)
        flush()
        self._session.call_soon(done, row, buffers)

    def _outcome(self, owner: AsyncOwner, call: Call, buffers: list[Buffer]) -> list[Any]:
        runner = self._runner
        call.started = True
        if call.cancelled:
            return [call.number, m.CANCELLED, None]
        try:
            function = runner.load(call)
            runner.decode(call)
        except BaseException as error:  # noqa: BLE001 - the call's failure
            return runner.refused(call, error)
        try:
            value = call_user(function, call.positional, call.keywords)
            if call.flow is not None:
                producer = Producer(runner, call, owner.connection.send, self._session.clock)
                # Nothing interrupts a thread, its clean-up neither.
                producer.run(value, partial(self._pauses.pause, call), lambda: None)
                value = None
            return runner.succeeded(call, value, buffers)
        except BaseException as error:  # noqa: BLE001 - the call's failure
            return runner.failed(call, error)
