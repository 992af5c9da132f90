"""The async mode of a worker: calls are plain asyncio tasks on the main thread's loop.

No task group or cancel scope surrounds them: level cancellation would cancel the awaits in a user's
``finally``. Everything of this file runs on the loop.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from functools import partial
from inspect import isasyncgen, isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ..client.enclosures import enclosing
from ..client.hosted import hosted_now
from ..exceptions import ProtocolError
from ..wire import messages as m
from ..wire.values import BufferFeed, field_bytes, is_scalar
from .async_actor import AsyncActor
from .calls import Call, Runner, call_user, take_buffers, take_terms
from .functions import FunctionTable, let_go
from .lights import HostedLights
from .output import flush
from .pausing import PAUSE_S, wake
from .running import RunningCalls, task_stack
from .scope import WorkerScope, running_call
from .streaming import Producer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ..client.enclosures import Enclosure
    from ..client.session import Session
    from ..net.connection import Connection
    from ..state.streams import Outflow
    from ..wire.frames import Buffer, Message
    from .ending import Ending


async def _turn() -> None:
    """Let the loop turn once."""
    await asyncio.sleep(0)


def resume(future: asyncio.Future[None]) -> None:
    """Let go on what awaits a future."""
    if not future.done():
        future.set_result(None)


class AsyncOwner:
    """One owner's connection and the calls it has here."""

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        batch_bytes: int,
        functions: FunctionTable,
    ) -> None:
        self.connection = connection
        self._batch_bytes = batch_bytes
        self._gathered_bytes = 0
        self.functions = functions
        #: What runs, by number; no task where it runs in a thread.
        self.running: dict[int, tuple[asyncio.Task[None] | None, Call]] = {}
        self._loop = loop
        self._rows: list[list[Any]] = []
        self._buffers: list[Buffer] = []
        self._busy_s = 0.0

    def add(self, row: list[Any], buffers: list[Buffer], busy_s: float) -> None:
        """Report a result together with the others of this turn of the loop."""
        if not self._rows:
            if not self.running:
                # A call that was alone need not wait for company.
                self.connection.send([m.RESULTS, [row], busy_s], buffers)
                return
            self._loop.call_soon(self.report)
        self._rows.append(row)
        self._buffers += buffers
        self._busy_s += busy_s
        self._gathered_bytes += field_bytes(row[2]) + sum(map(len, buffers))
        if not self.running or self._gathered_bytes > self._batch_bytes:
            self.report()

    def report(self) -> None:
        """Send what was gathered."""
        if self._rows:
            rows, buffers, busy_s = self._rows, self._buffers, self._busy_s
            self._rows, self._buffers, self._busy_s, self._gathered_bytes = [], [], 0.0, 0
            self.connection.send([m.RESULTS, rows, busy_s], buffers)


class AsyncWorker:
    """Runs coroutine functions, many at a time."""

    def __init__(
        self,
        session: Session,
        scope: WorkerScope,
        clock: Callable[[], float],
        end: Ending,
        start_thread: Callable[[Callable[[], None]], Any],
    ) -> None:
        self._session = session
        self._scope = scope
        self._clock = clock
        self._end = end
        self._runner = Runner(session, end)
        self._owners: dict[bytes, AsyncOwner] = {}
        #: Those whose connection has closed, and whose calls may still be cleaning up.
        self._gone: list[AsyncOwner] = []
        self.actor = AsyncActor(self._runner, session, self._start, start_thread, self._owners)
        self.lights = HostedLights(
            self._runner, session, self._start, self.actor, self._owners, self._cancel_running
        )
        scope.concurrent = True
        RunningCalls(session, scope, self._running).before = self.lights.before
        scope.on_waiting = lambda waiting: session.control.send([m.BLOCKED, waiting])
        session.on_task_connection = self._on_owner
        session.peers.on_worker_message = self._on_peer_message
        session.on_node_message[m.ORPHANED] = self._on_orphaned
        #: Nobody is left to call: the worker ends with its last call.
        self._orphaned = False

    def host(self) -> None:
        """This process is for light actors alone."""
        self.lights.watch()
        # It has no CPU that others could have meanwhile.
        self._scope.on_waiting = lambda waiting: None

    def _on_owner(self, connection: Connection) -> None:
        functions = FunctionTable(self.lights.function)
        owner = AsyncOwner(connection, self._session.loop, self._session.config.batch_bytes, functions)
        self._owners[connection.peer.process_id] = owner
        connection.on_message = lambda _, message, buffers: self._on_message(owner, message, buffers)
        connection.on_close = lambda _, error: self._on_owner_closed(owner)

    def _on_owner_closed(self, owner: AsyncOwner) -> None:
        """The owner is gone: what it had running has nowhere to report to."""
        self._session.peers.borrowing.unpin_all(owner.connection.peer.process_id)
        if self._owners.get(owner.connection.peer.process_id) is owner:
            del self._owners[owner.connection.peer.process_id]
        self.actor.owner_gone(owner)
        self.lights.owner_gone(owner)
        if owner.running:
            self._gone.append(owner)
        for task, call in list(owner.running.values()):
            self._cancel(owner, task, call, force=False, recursive=True)

    def _on_message(self, owner: AsyncOwner, message: Message, buffers: list[memoryview]) -> None:
        kind = message[0]
        if kind == m.TASKS:
            self._on_tasks(owner, message[1], buffers)
        elif kind == m.DESCRIBE:
            owner.functions.describe(*message[1:])
        elif kind == m.FORGET:
            let_go(owner.functions.forget(message[1]))
        elif kind == m.RECYCLE:
            self._session.store.recycle(owner.connection.peer.process_id, message[1])
        elif kind == m.CREDIT:
            _, number, read = message
            _, call = owner.running.get(number, (None, None))
            if call is not None and call.flow is not None:
                call.flow.credit(read)
        elif kind == m.LIGHT_END:
            self.lights.end(owner, message[1], now=message[2])
        else:
            raise ProtocolError(f"an owner does not send message number {kind} to a worker")

    def _on_tasks(self, owner: AsyncOwner, rows: list[Any], buffers: list[memoryview]) -> None:
        m.check_rows("TASKS", rows, 5)
        feed = BufferFeed(buffers, self._session.store.borrows)
        process_id = owner.connection.peer.process_id
        for row in rows:
            call = Call(process_id, row, owner.functions[row[1]], feed)
            take_buffers(call)
            if call.extras:
                take_terms(call, self._clock())
            if call.number in owner.running:  # it was repeated
                continue
            if call.function.light:
                self.lights.arrive(owner, call)
            else:
                self.actor.arrive(owner, call)

    def _start(self, owner: AsyncOwner, call: Call) -> None:
        self._scope.begin(call)
        if call.hosted is None and self.actor.runs_in_thread(call):
            owner.running[call.number] = (None, call)
            self.actor.run_in_thread(owner, call, partial(self._ended_in_thread, owner, call, self._clock()))
            return
        context = copy_context()
        context.run(running_call.set, call)
        if call.hosted is None:
            self.actor.begun()
        else:
            self.lights.begun()
            context.run(hosted_now.set, call.hosted)
        if call.extras:
            self._runner.enclose(call)
        if call.enclosure is not enclosing.get():  # what starts it may be another call's end
            context.run(enclosing.set, call.enclosure)
        name = f"{call.function.name}-{call.number}"
        task = self._session.loop.create_task(self._run(owner, call), name=name, context=context)
        owner.running[call.number] = (task, call)

    async def _run(self, owner: AsyncOwner, call: Call) -> None:
        call.since = started = self._clock()
        buffers: list[Buffer] = []
        row = await self._outcome(owner, call, buffers)
        if call.enclosure is not None:
            await self._await_end(call, call.enclosure, failed=row[1] not in (m.OK, m.MANY))
        flush()
        self._ended(owner, call, started, row, buffers)

    def _ended_in_thread(
        self, owner: AsyncOwner, call: Call, started: float, row: list[Any], buffers: list[Buffer]
    ) -> None:
        """A thread has run a call; one of an enclosure ends after all it has called for."""
        if call.enclosure is None:
            self._ended(owner, call, started, row, buffers)
            return

        async def wait(enclosure: Enclosure) -> None:
            await self._await_end(call, enclosure, failed=row[1] not in (m.OK, m.MANY))
            self._ended(owner, call, started, row, buffers)

        self._session.loop.create_task(wait(call.enclosure), name=f"end of {call.function.name}")

    def _ended(
        self, owner: AsyncOwner, call: Call, started: float, row: list[Any], buffers: list[Buffer]
    ) -> None:
        del owner.running[call.number]
        if owner.connection.closed:
            self._forget_results(owner)
        self._scope.end(call)
        self._leave_if_orphaned()
        busy_s = self._clock() - started
        kept = self._runner.kept(call)
        if kept:
            # Not awaited: user code may have left a cancel behind in this task, which would lose the result.
            borrowing = self._session.peers.borrowing
            borrowing.register(kept, lambda: self._report(owner, call, row, buffers, busy_s))
        else:
            self._report(owner, call, row, buffers, busy_s)
        if call.hosted is None:
            self.actor.ended(call)
        else:
            self.lights.ended(call)

    def _forget_results(self, owner: AsyncOwner) -> None:
        """A call has ended behind its connection: nobody will register for what its result refers to."""
        if not owner.running and owner in self._gone:
            self._gone.remove(owner)
        process_id = owner.connection.peer.process_id
        if process_id not in self._owners:
            self._session.peers.borrowing.unpin_all(process_id)
            self._session.check_needed()

    def _report(
        self, owner: AsyncOwner, call: Call, row: list[Any], buffers: list[Buffer], busy_s: float
    ) -> None:
        last = self._was_last(call)
        if last:
            # Said before the result is: the owner would send the next call as soon as it has that.
            owner.connection.push([m.HANDBACK, [], m.LEAVING])
        owner.add(row, buffers, busy_s)
        if last:
            owner.report()
            self._session.when_unneeded(self._end.leave)

    async def _outcome(self, owner: AsyncOwner, call: Call, buffers: list[Buffer]) -> list[Any]:
        runner = self._runner
        try:
            call.started = True
            if call.cancelled:
                raise asyncio.CancelledError  # noqa: TRY301 - as if it had been cancelled a moment later
            function = runner.load(call)
            if call.dependencies is not None:
                for ref in runner.await_remote(call):
                    await ref
            runner.decode(call)
        except BaseException as error:  # noqa: BLE001 - the call's failure
            return runner.refused(call, error)
        try:
            value = call_user(function, call.positional, call.keywords)
            if call.flow is not None:
                await self._stream(owner, call, value if isasyncgen(value) else _in_turns(value))
                return runner.succeeded(call, None, buffers)
            if type(value) is CoroutineType or isawaitable(value):
                value = await value
            if not is_scalar(value):
                row = self.lights.row_here(call, value)
                if row is not None:
                    return row
                value = await runner.prepared(call, value)
            return runner.succeeded(call, value, buffers)
        except BaseException as error:  # noqa: BLE001 - the call's failure, CancelledError too
            return runner.failed(call, error)

    async def _await_end(self, call: Call, enclosure: Enclosure, *, failed: bool) -> None:
        """Wait until all that a call has called for has ended, too; a failed one takes it along."""
        if failed:
            enclosure.cancel()
        enclosure.forsake_streams()
        while not enclosure.is_empty():
            try:
                await enclosure.wait_async()
            except asyncio.CancelledError:
                if call.cancelled:  # else user code has left it behind in this task
                    enclosure.cancel()

    def _on_orphaned(self) -> None:
        """The owner of what runs here is dead: its calls are cancelled, and this worker ends after them."""
        self._orphaned = True
        for owner in list(self._owners.values()):
            for task, call in list(owner.running.values()):
                self._cancel(owner, task, call, force=False, recursive=True)
        self._leave_if_orphaned()

    def _leave_if_orphaned(self) -> None:
        if self._orphaned and not any(owner.running for owner in (*self._owners.values(), *self._gone)):
            self._session.when_unneeded(self._end.leave)

    def _running(self) -> list[tuple[Call, Callable[[], str]]]:
        """The calls that run now, and what tells where each stands."""
        running = [item for owner in self._owners.values() for item in owner.running.values()]
        # Of a call in a thread it is not known which thread that is.
        return [
            (call, partial(task_stack, task) if task is not None else str)
            for task, call in running
            if call.started
        ]

    async def _stream(self, owner: AsyncOwner, call: Call, generator: Any) -> None:
        """Take the items of a call's generator."""
        producer = Producer(self._runner, call, owner.connection.send, self._clock)
        await producer.run_async(generator, lambda: self._pause(call), _turn)

    async def _pause(self, call: Call) -> None:
        """Wait until the owner has read of a stream.

        Raises:
            CancelledError: when it will read no more.
        """
        flow = call.flow
        assert flow is not None
        while not flow.may_go_on():
            if flow.is_over():
                call.cancelled = True
                raise asyncio.CancelledError
            await self._await_credit(flow)

    async def _await_credit(self, flow: Outflow) -> None:
        """Wait for news of a stream's reader; a wait that lasts gives the CPU back."""
        resumed = self._session.loop.create_future()
        waiters: list[Any] = []
        lasting = self._session.loop.call_later(PAUSE_S, lambda: waiters.append(self._scope.before_wait()))
        flow.on_credit = lambda: resume(resumed)
        try:
            await resumed
        finally:
            flow.on_credit = None
            lasting.cancel()
            for waiter in waiters:
                self._scope.after_wait(waiter)

    def _was_last(self, call: Call) -> bool:
        """Whether this worker must end after so many runs of the call's function."""
        function = call.function
        function.runs += 1
        return 0 < function.max_calls <= function.runs

    def _on_peer_message(self, connection: Connection, message: Message) -> None:
        owner = self._owners.get(connection.peer.process_id)
        if owner is None or message[0] != m.CANCEL:
            return
        _, number, force, recursive = message
        # The cancel may have come faster than what it cancels, which takes another connection.
        owner.connection.drain()
        if number in owner.running:
            self._cancel(owner, *owner.running[number], force=force, recursive=recursive)
        elif self.actor.cancel(owner, number) or self.lights.cancel(owner, number):
            owner.report()

    def _cancel_running(self, owner: AsyncOwner, number: int) -> None:
        self._cancel(owner, *owner.running[number], force=False, recursive=True)

    def _cancel(
        self, owner: AsyncOwner, task: asyncio.Task[None] | None, call: Call, *, force: bool, recursive: bool
    ) -> None:
        if call.cancelled and not force:
            return  # a second CancelledError would hit its clean-up
        call.cancelled = True
        if recursive:
            self._session.cancel_children(call.serial, force=force)
            if call.enclosure is not None:
                call.enclosure.cancel()
        if force and self._runner.hosting.shape is None:
            owner.report()
            self._end.at_once()
        if task is None:
            wake(call)
        elif call.started:
            task.cancel()

    def retire(self) -> bool:
        """The node has no use for this worker; False when something here is still needed."""
        for owner in list(self._owners.values()):
            owner.connection.drain()
        running = any(owner.running for owner in self._owners.values())
        if running or len(self.lights) or self._session.is_needed():
            return False
        self._end.leave()
        return True


async def _in_turns(generator: Any) -> AsyncGenerator[Any, None]:
    """The items of a generator method that is not asynchronous, in an actor that is."""
    for item in generator:
        yield item
