"""A thread that waits for one call of an actor reads the answer itself, where it can.

That saves the answer one of its two wake-ups, and the loop's thread need not have the interpreter in between.
What a borrower handles must not need the loop: results of plain calls of actors, small and without
references, that nobody waits for but threads and loops. All else the loop handles, and the borrower waits
for its bell like anybody else.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from ..net.lending import LendableConnection
from ..wire import messages as m
from .interrupts import interruptible
from .waiting import Bell, Countdown, LoopCountdown, LoopTally, LoopWaiter, Single, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..state.objects import ObjectRecord
    from ..state.pipeline import Lease
    from ..wire.frames import Message

#: Seconds of one poll at most: what it takes are milliseconds, in 31 bits.
_LONGEST_S: Final = 1e6
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


class Reader:
    """Is told when the record is done that its thread reads for."""

    __slots__ = ("_connection", "_thread", "done")

    def __init__(self, connection: LendableConnection) -> None:
        self.done = False
        self._connection = connection
        self._thread = get_ident()

    def notify(self, record: ObjectRecord) -> None:
        """The record is done."""
        self.done = True
        if get_ident() != self._thread:
            self._connection.ring()  # at worst the next borrower's, who looks and waits on


#: Waiters that may be told in any thread: none of them runs code of the user's.
_QUIET: Final = frozenset({Reader, Single, Countdown, Bell, Tally, LoopWaiter, LoopTally, LoopCountdown})


def borrowed_for(record: ObjectRecord) -> Borrowed | None:
    """The connection by which a record's value will come, borrowed for this thread; None when it is not."""
    task: Any = record.task
    lease: Lease | None = None if task is None else task.lease
    if lease is None or not lease.group.actor or lease.link is None:
        return None
    connection = lease.link.connection
    if type(connection) is not LendableConnection:
        return None
    return Borrowed(connection, lease) if connection.borrow() else None


class Borrowed:
    """A connection that this thread has borrowed."""

    __slots__ = ("_connection", "_lease", "_reads", "reader")

    def __init__(self, connection: LendableConnection, lease: Lease) -> None:
        self._connection = connection
        self._lease = lease
        self._reads = True
        #: To be registered on the record.
        self.reader = Reader(connection)

    def read_until(self, deadline: float | None, clock: Callable[[], float]) -> bool:
        """Read until the reader is told; False when it is too late before that.

        Args:
            deadline: On the clock; None: never.
            clock: Seconds that only go forward.
        """
        reader, connection = self.reader, self._connection
        poll, bell = connection.poll, connection.bell
        assert poll is not None
        judge = _Judge(self._lease)
        while not reader.done:
            ready = _wait(poll, -1 if deadline is None else _milliseconds(deadline - clock()))
            if not ready and deadline is not None and deadline <= clock():
                return reader.done
            for fd, _ in ready:
                if fd == bell:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(bell)
                elif not connection.read_borrowed(judge) and not reader.done:
                    self._leave_to_loop()
        return True

    def _leave_to_loop(self) -> None:
        """From here on the loop reads, and the bell tells."""
        self._reads = False
        poll = self._connection.poll
        assert poll is not None
        poll.unregister(self._connection.descriptor)
        self._connection.give_back()

    def share(self) -> None:
        """Let the loop read, too."""
        self._connection.give_back()

    def end(self) -> None:
        """The wait is over."""
        connection = self._connection
        if self._reads:
            connection.give_back()
        elif connection.poll is not None:
            connection.poll.register(connection.descriptor, select.POLLIN)
        connection.end_borrowing()


def _milliseconds(seconds: float) -> int:
    return max(0, math.ceil(1000 * min(seconds, _LONGEST_S)))


@interruptible
def _wait(poll: select.poll, milliseconds: int) -> list[tuple[int, int]]:
    return poll.poll(milliseconds)


class _Judge:
    """Says which messages of an actor's worker may be handled in any thread."""

    __slots__ = ("_in_flight", "_watchers")

    def __init__(self, lease: Lease) -> None:
        self._in_flight = lease.in_flight
        self._watchers: list[Any] = lease.group._owner.watchers  # type: ignore[attr-defined]

    def __call__(self, message: Message, buffers: list[memoryview]) -> bool:
        if message[0] != m.RESULTS or buffers or type(message[1]) is not list:
            return False
        return all(map(self._is_plain, message[1])) and _are_quiet(self._watchers)

    def _is_plain(self, row: Any) -> bool:
        if type(row) is not list or len(row) != 3 or type(row[0]) is not int or type(row[2]) not in _PLAIN:
            return False
        task = self._in_flight.get(row[0])
        if task is None or task.terms is not None or task.stream is not None or task.enclosures is not None:
            return False
        return all(record.waiters is None or _are_quiet(record.waiters) for record in task.records)


def _are_quiet(waiters: list[Any]) -> bool:
    return all(type(waiter) in _QUIET for waiter in waiters)
