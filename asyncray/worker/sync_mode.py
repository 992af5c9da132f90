"""The sync mode of a worker: calls run one after the other in the main thread.

    main thread:  wait on the task sockets -> take a call -> run it -> report it -> ...
    loop thread:  the control and peer connections: cancel, recall, nested calls, borrowed objects

Between two calls the main thread reads the sockets; while one runs, the loop's thread may take what is left
unread to hand it back. The inbox's lock says who reads.

Results are gathered while calls are short and reported together; a result never waits longer than the call
after it, because the owner recalls the queue of a worker that stands still, and that reports too.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from ..client.carried import any_carried
from ..client.enclosures import enclosed
from ..exceptions import ProtocolError
from ..net.channel import TaskChannel
from ..wire import messages as m
from ..wire.handshake import check_refusal
from ..wire.values import BufferFeed, field_bytes
from .calls import Call, Runner, call_user, take_buffers, take_terms
from .functions import Function, FunctionTable, let_go
from .gathering import Gathering
from .output import announce, flush
from .running import RunningCalls, thread_stack
from .scope import WorkerScope, running_call
from .streaming import Producer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..client.enclosures import Enclosure
    from ..client.session import Session
    from ..net.channel import Arrivals
    from ..net.connection import Connection
    from ..net.stream import StreamConnection
    from ..wire.frames import Buffer, Frame, Message
    from .ending import Ending
    from .hosting import Hosting

#: Seconds of short calls whose results are reported together.
_GATHER_S: Final = 0.0005
#: Seconds of a pause after which a stream counts as waiting, and its CPU is free.
_PAUSE_S: Final = 0.001
#: Bytes of results that are not gathered further.
_GATHER_BYTES: Final = 256 * 1024


class Owner:
    """One owner's connection, its functions, and the results it has not been sent."""

    def __init__(self, channel: TaskChannel, hosting: Hosting) -> None:
        self.channel = channel
        #: The channel's descriptor, also when that is closed.
        self.fd = channel.fileno()
        self.functions = FunctionTable(hosting.function)
        self.rows: list[list[Any]] = []
        self.buffers: list[Buffer] = []
        self.busy_s = 0.0
        #: About how much the gathered results take.
        self.size_bytes = 0
        self._lock = threading.Lock()

    def add(self, row: list[Any], buffers: list[Buffer], busy_s: float) -> None:
        """Gather a result."""
        with self._lock:
            self.rows.append(row)
            self.buffers += buffers
            self.busy_s += busy_s
            self.size_bytes += field_bytes(row[2])

    def report(self) -> None:
        """Send what was gathered. From either thread."""
        with self._lock:
            if not self.rows:
                return
            message: Message = [m.RESULTS, self.rows, self.busy_s]
            buffers, self.rows, self.buffers = self.buffers, [], []
            self.busy_s, self.size_bytes = 0.0, 0
            self.channel.send(message, buffers)


class SyncWorker:
    """Runs synchronous calls in the main thread.

    Args:
        session: The worker's session.
        scope: What the session knows of the running call.
        clock: Seconds that only go forward.
        end: The ways out of the process.
        arrivals: How the main thread waits for calls.
        interrupt: Raises KeyboardInterrupt in the main thread, if `is_interrupt_wanted` says so by then.
        mark: Where the number of the running call stands, for whoever survives this process.
    """

    def __init__(
        self,
        session: Session,
        scope: WorkerScope,
        clock: Callable[[], float],
        end: Ending,
        arrivals: Arrivals,
        interrupt: Callable[[], None],
        mark: memoryview | list[int] | None = None,
    ) -> None:
        self._session = session
        self._scope = scope
        self._clock = clock
        self._end = end
        self._runner = Runner(session, end)
        self._hosting = self._runner.hosting
        self._gathering = Gathering(session, self._report_all)
        self._lock = threading.Lock()
        self._inbox: deque[tuple[Owner, Call]] = deque()
        self._owners: dict[int, Owner] = {}
        self._arrivals = arrivals
        self._interrupt = interrupt
        self._mark = [0] if mark is None else mark
        self._current: tuple[Owner, Call] | None = None
        #: The call that must be interrupted; None iff no cancel is under way.
        self._target: Call | None = None
        self._leaving = False
        #: Whether the main thread waits for a stream to be read: it is woken, and not interrupted.
        self._paused = False
        self._gathered_at = 0.0
        self._gather_bytes = min(_GATHER_BYTES, session.config.batch_bytes)
        #: Functions that owners are done with, to be dropped outside the lock: that may run destructors.
        self._forgotten: list[Function] = []
        #: Where the calls run, once they do.
        self._thread = 0
        RunningCalls(session, scope, self._running)
        scope.on_waiting = self._on_waiting
        session.on_task_connection = self._on_owner
        session.read_tasks = self._read_all
        session.peers.on_worker_message = self._on_peer_message
        session.on_node_message[m.ORPHANED] = self._on_orphaned

    # --- the main thread ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Run calls until the worker must go."""
        self._thread = threading.get_ident()
        while not self._leaving:
            if (taken := self._next()) is None:
                self._fill()
            else:
                self._run(*taken)
        if self._hosting.leaving:
            self._part()
        unneeded = threading.Lock()
        unneeded.acquire()
        self._session.call_soon(self._session.when_unneeded, unneeded.release)
        self._session.waits.park(unneeded, None)

    def _part(self) -> None:
        """The actor ends by its own wish: its owner hears of it when the actor has cleaned up."""
        self._hosting.run_stop_hook()
        flush()
        owner = self._owner_of(self._hosting.owner)
        if owner is not None:
            owner.channel.send([m.ACTOR_LEAVES, self._hosting.leaving])

    def _next(self) -> tuple[Owner, Call] | None:
        """Take the next call; from here on it is the running one, and not handed back any more."""
        if not self._inbox:  # whoever fills it now, wakes this thread
            return None
        with self._lock:
            if self._inbox:
                self._current = self._inbox.popleft()
            return self._current

    def _fill(self) -> None:
        for fd in self._arrivals.wait():
            if (owner := self._owners.get(fd)) is not None:
                with self._lock:
                    self._read(owner)
        if self._forgotten:
            let_go(self._forgotten)

    def _read(self, owner: Owner) -> None:
        """Take what has arrived from an owner. The lock is held."""
        self._take_all(owner, owner.channel.read)

    def _take_all(self, owner: Owner, read: Callable[[], list[Frame]]) -> None:
        """Take an owner's frames. What is wrong with one ends its connection and nothing else."""
        try:
            for frame in read():
                self._take(owner, frame)
        except ProtocolError as error:
            owner.channel.close(error)
        if owner.channel.closed:
            # What the owner had sent is of no use now.
            self._owners.pop(owner.fd, None)
            self._inbox = deque(item for item in self._inbox if item[0] is not owner)
            self._session.call_soon(self._session.peers.borrowing.unpin_all, owner.channel.peer.process_id)
            if self._paused:
                # A stream may be waiting for this owner. Where the loop has read, nothing else would tell.
                self._arrivals.wake()

    def _take(self, owner: Owner, frame: Frame) -> None:
        check_refusal(frame[0])
        message = m.check(frame[0])
        kind = message[0]
        if kind == m.TASKS:
            self._take_tasks(owner, message[1], frame[1])
        elif kind == m.DESCRIBE:
            owner.functions.describe(*message[1:])
        elif kind == m.FORGET:
            self._forgotten += owner.functions.forget(message[1])
        elif kind == m.CREDIT:
            self._on_credit(owner, *message[1:])
        elif kind == m.RECYCLE:
            self._session.store.recycle(owner.channel.peer.process_id, message[1])
        else:
            raise ProtocolError(f"an owner does not send message number {kind} to a worker")

    def _take_tasks(self, owner: Owner, rows: list[Any], buffers: list[memoryview]) -> None:
        m.check_rows("TASKS", rows, 5)
        feed = BufferFeed(buffers, self._session.store.borrows)
        process_id = owner.channel.peer.process_id
        for row in rows:
            call = Call(process_id, row, owner.functions[row[1]], feed)
            take_buffers(call)
            if call.extras:
                take_terms(call, self._clock())
            self._inbox.append((owner, call))

    def _on_credit(self, owner: Owner, number: int, read: int) -> None:
        """An owner has read of a stream. One that has ended meanwhile does not care."""
        calls = [*self._inbox, self._current]
        for whose, call in filter(None, calls):
            if whose is owner and call.number == number and call.flow is not None:
                call.flow.credit(read)
        if self._paused:
            self._arrivals.wake()

    def _run(self, owner: Owner, call: Call) -> None:
        if call.function.report_first:
            owner.report()
        self._mark[0] = call.number
        call.since = started = self._clock()
        self._scope.begin(call)
        buffers: list[Buffer] = []
        if call.extras or any_carried():
            # What the call sets, or has set for it, must not be found by the next.
            row = copy_context().run(self._whole, owner, call, started, buffers)
        else:
            row = self._outcome(owner, call, started, buffers)
        self._current = None
        self._scope.end(call)
        kept = self._runner.kept(call)
        if kept:
            self._register(kept)
        now = self._clock()
        if self._was_last(call):
            # Said before the result is: the owner would send the next call as soon as it has that.
            with self._lock:
                for each in list(self._owners.values()) if self._hosting.leaving else [owner]:
                    self._hand_back(each, m.LEAVING)
            self._leaving = True
        owner.add(row, buffers, now - started)
        self._maybe_report(owner, now, buffers)

    def _outcome(self, owner: Owner, call: Call, started: float, buffers: list[Buffer]) -> list[Any]:
        """Run a call; returns the row that reports it."""
        token = running_call.set(call)
        announce(call.function.name, started)
        runner = self._runner
        try:
            try:
                function = runner.load(call)
                runner.decode(call)
            except BaseException as error:  # noqa: BLE001 - the call's failure
                return runner.refused(call, error)
            try:
                value = call_user(function, call.positional, call.keywords)
                if call.flow is not None:
                    self._stream(owner, call, value)
                    value = None
                return runner.succeeded(call, value, buffers)
            except BaseException as error:  # noqa: BLE001 - the call's failure, KeyboardInterrupt and exit too
                return runner.failed(call, error)
        finally:
            flush()
            running_call.reset(token)

    def _whole(self, owner: Owner, call: Call, started: float, buffers: list[Buffer]) -> list[Any]:
        """As _outcome, for a call with extras: one of an enclosure ends after all it has called for."""
        self._runner.enclose(call)
        enclosure = call.enclosure
        if enclosure is None:
            return self._outcome(owner, call, started, buffers)
        with enclosed(enclosure):
            row = self._outcome(owner, call, started, buffers)
        if row[1] not in (m.OK, m.MANY):
            enclosure.cancel()
        enclosure.forsake_streams()
        token = running_call.set(call)
        try:
            self._await_end(enclosure)
        finally:
            running_call.reset(token)
        return row

    def _await_end(self, enclosure: Enclosure) -> None:
        while not enclosure.is_empty():
            try:
                enclosure.wait()
            except KeyboardInterrupt:  # the call is cancelled while it waits
                enclosure.cancel()

    def _stream(self, owner: Owner, call: Call, generator: Any) -> None:
        """Take the items of a call's generator. Its owner hears of the end as of any other call's."""

        def send(message: Message, buffers: Sequence[Buffer]) -> None:
            owner.channel.send(message, buffers)
            if owner.channel.closed:
                call.cancelled = True  # nobody is left who would read

        producer = Producer(self._runner, call, send, self._clock)
        producer.run(generator, lambda: self._pause(owner, call), self._spare)

    def _spare(self) -> None:
        """The running call has seen that it was cancelled: its clean-up is not to be interrupted."""
        with self._lock:
            self._target = None

    def _pause(self, owner: Owner, call: Call) -> None:
        """Wait until the owner has read of a stream, or does not want it any more.

        A pause that lasts gives the CPU back, as any wait of a call does: its consumer may be waiting for
        a task that needs it.
        """
        waiter = None
        try:
            while not self._read_credit(owner, call):
                ready = self._arrivals.wait(None if waiter is not None else _PAUSE_S)
                if not ready and waiter is None:
                    waiter = self._scope.before_wait()
        finally:
            with self._lock:
                self._paused = False
            if waiter is not None:
                self._scope.after_wait(waiter)

    def _read_credit(self, owner: Owner, call: Call) -> bool:
        """Read what owners have sent; whether a stream may go on then, or must end."""
        with self._lock:
            for other in list(self._owners.values()):
                self._read(other)
            assert call.flow is not None
            self._paused = not call.flow.may_go_on() and not call.cancelled and not owner.channel.closed
            if owner.channel.closed or call.flow.is_over():
                call.cancelled, self._paused = True, False
            return not self._paused

    def _maybe_report(self, owner: Owner, now: float, buffers: list[Buffer]) -> None:
        soon = now - self._gathered_at < _GATHER_S and owner.size_bytes < self._gather_bytes
        if self._inbox and soon and not buffers and not self._leaving and self._may_gather(owner):
            return
        owner.report()
        if not owner.channel.closed:  # a report that did not get through is none
            self._mark[0] = 0
        self._gathered_at = now

    def _may_gather(self, owner: Owner) -> bool:
        """Whether a result may wait for the next: nobody recalls the queue of an actor that stands still."""
        if self._hosting.shape is None:
            return True
        with self._lock:
            if not self._inbox or self._inbox[0][0] is not owner:
                return False
        self._gathering.watch(self._gathered_at)
        return True

    def _report_all(self, since: float) -> bool:
        """Report what has waited, unless the main thread does; whether more may come. On the loop."""
        owners = list(self._owners.values())
        if self._gathered_at == since:
            for owner in owners:
                owner.report()
        return any(owner.rows for owner in owners)

    def _register(self, kept: list[Any]) -> None:
        """The call is over and user code still holds references: register before it is reported."""
        done = threading.Lock()
        done.acquire()
        self._session.call_soon(self._session.peers.borrowing.register, kept, done.release)
        self._session.waits.park(done, None)

    def _was_last(self, call: Call) -> bool:
        """Whether this worker must end after so many runs of the call's function."""
        function = call.function
        function.runs += 1
        return 0 < function.max_calls <= function.runs or bool(self._hosting.leaving)

    def _on_waiting(self, waiting: bool) -> None:
        """The running call waits for others: its queue goes back, and its CPU with it. In the main thread."""
        current = self._current
        if waiting and current is not None:
            owner = current[0]
            owner.report()
            if self._hosting.shape is None:  # an actor's queue is for nobody else
                with self._lock:
                    self._hand_back(owner, m.BLOCKS)
        self._session.control.send([m.BLOCKED, waiting])

    # --- the loop's thread --------------------------------------------------------------------------------

    def _on_owner(self, connection: Connection) -> None:
        """An owner has connected: from here on its socket is the main thread's."""
        stream: StreamConnection = connection  # type: ignore[assignment]
        sock, decoder = stream.detach()
        channel = TaskChannel(sock, decoder, connection.peer, self._session.config.max_frame_bytes)
        owner = Owner(channel, self._hosting)
        with self._lock:
            self._owners[owner.fd] = owner
            # What came right behind the hello.
            self._take_all(owner, lambda: decoder.feed(b""))
            if channel.closed:
                return
        self._arrivals.add(channel)
        if self._inbox:
            self._arrivals.wake()

    def _on_peer_message(self, connection: Connection, message: Message) -> None:
        owner = self._owner_of(connection.peer.process_id)
        if owner is None:
            return
        if message[0] == m.RECALL:
            with self._lock:
                self._read(owner)
                self._hand_back(owner, m.RECALLED)
            owner.report()
            return
        _, number, force, recursive = message
        self._cancel(owner, number, force=force, recursive=recursive)

    def _read_all(self) -> None:
        """Take what has arrived, also while a call runs."""
        with self._lock:
            for owner in list(self._owners.values()):
                self._read(owner)
            if self._inbox:
                # What was read here, the main thread would wait for.
                self._arrivals.wake()

    def _owner_of(self, process_id: bytes) -> Owner | None:
        return next((o for o in self._owners.values() if o.channel.peer.process_id == process_id), None)

    def _hand_back(self, owner: Owner, reason: int) -> None:
        """Give an owner back what was not started. The lock is held."""
        numbers = [call.number for whose, call in self._inbox if whose is owner]
        self._inbox = deque(item for item in self._inbox if item[0] is not owner)
        owner.channel.send([m.HANDBACK, numbers, reason])

    def _cancel(self, owner: Owner, number: int, *, force: bool, recursive: bool) -> None:
        with self._lock:
            self._read(owner)
            found = next((i for i in self._inbox if i[0] is owner and i[1].number == number), None)
            if found is not None:
                self._inbox.remove(found)
                owner.add([number, m.CANCELLED, None], [], 0.0)
            current = self._current
            if self._inbox:
                # What was read here, the main thread would wait for.
                self._arrivals.wake()
        if found is not None:
            owner.report()
        elif current is not None and current[0] is owner and current[1].number == number:
            self._cancel_running(owner, current[1], force=force, recursive=recursive)

    def _cancel_running(self, owner: Owner, call: Call, *, force: bool, recursive: bool) -> None:
        with self._lock:
            if call.cancelled and not force:
                return  # a second KeyboardInterrupt would hit its clean-up
            call.cancelled = True
            paused = self._paused
            of_actor = self._hosting.shape is not None
            if not paused and not force and not of_actor:
                self._target = call
        if recursive:
            self._session.cancel_children(call.serial, force=force)
            if call.enclosure is not None:
                call.enclosure.cancel()
        if force and not of_actor:
            self._kill_running(owner, call)
        elif paused:
            # It sees that by itself; an interrupt would hit the clean-up that follows.
            self._arrivals.wake()
        elif not of_actor:  # a method asks by itself: is_canceled()
            self._interrupt()

    def _kill_running(self, owner: Owner, call: Call) -> None:
        """End this process, unless the call has ended by itself: nothing else may be hit."""
        with self._lock:  # while it is held, the main thread starts no other call
            if self._current is not None and self._current[1] is call:
                self._hand_back(owner, m.BLOCKS)
                owner.report()
                self._end.at_once()

    def _on_orphaned(self) -> None:
        """The owner of what runs here is dead: its call is cancelled, and this worker ends after it."""
        self.leave()
        with self._lock:
            current = self._current
        if current is not None:
            self._cancel_running(*current, force=False, recursive=True)

    def _running(self) -> list[tuple[Call, Callable[[], str]]]:
        """The call that runs now, if any, and what tells where it stands."""
        current = self._current
        return [] if current is None else [(current[1], lambda: thread_stack(self._thread))]

    def is_running(self) -> bool:
        """Whether a call runs now: a SIGINT is its own then, and nobody's otherwise."""
        return self._current is not None

    def is_interrupt_wanted(self) -> bool:
        """Whether the call that runs now is one that must be interrupted."""
        current = self._current
        return current is not None and current[1] is self._target

    def retire(self) -> bool:
        """The node has no use for this worker; False when something here is still needed. On the loop."""
        if self._current is not None or self._inbox or self._session.is_needed():
            return False
        self.leave()
        return True

    def leave(self) -> None:
        """Run no more calls: the worker ends. From any thread."""
        self._leaving = True
        self._arrivals.wake()
