"""Connections that a thread may read itself while it waits for what they bring.

Mostly the loop's thread reads, and wakes whoever waits: two threads have to wake up for one answer. A thread
that is about to wait borrows the connection instead, reads until it has its answer, and gives it back.

Rule 1: lendable connections are polled by an epoll set of their own, which the loop polls in turn: a
        connection is taken out of it, and put back, by one system call from any thread.
Rule 2: who reads holds the connection's read lock; two readers at a time cost time, and hurt nothing.
Rule 3: the borrower handles what its judge says may be handled anywhere. From the first other message on
        everything is the loop's, in the order in which it came.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError
from ..wire.handshake import TASK, hello
from ..wire.messages import FIRST_CHECKED, check
from .stream import StreamConnection, UnixNetwork

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from ..wire.frames import Message
    from .connection import Poller, StreamSocket, Timer

_log = logging.getLogger("asyncray.net")
#: Bytes that a borrower reads at once; above 128 KiB malloc would ask the kernel for each buffer.
_READ_BYTES: Final = 32 * 1024
#: Events that the loop takes from the set at once.
_EVENTS: Final = 64


class Lender:
    """An event loop's readers, in a set of their own.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: Poller) -> None:
        self._loop = loop
        self._set = select.epoll()
        self._readers: dict[int, tuple[Context, Callable[[], object]]] = {}
        loop.add_reader(self._set.fileno(), self._on_ready)

    def _on_ready(self) -> None:
        for fd, _ in self._set.poll(0, _EVENTS):
            reader = self._readers.get(fd)
            if reader is not None:
                context, callback = reader
                context.run(callback)

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        """As Poller's."""
        known = fd in self._readers
        self._readers[fd] = (copy_context(), callback)
        if not known:
            self._set.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int, /) -> bool:
        """As Poller's."""
        if self._readers.pop(fd, None) is None:
            return False
        with contextlib.suppress(OSError):  # what was closed is not in the set any more
            self._set.unregister(fd)
        return True

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        """As Poller's."""
        self._loop.add_writer(fd, callback)

    def remove_writer(self, fd: int, /) -> bool:
        """As Poller's."""
        return self._loop.remove_writer(fd)

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object:
        """As Poller's."""
        return self._loop.call_soon_threadsafe(callback, *args)

    def call_later(self, delay_s: float, callback: Callable[[], object], /) -> Timer:
        """As Poller's."""
        return self._loop.call_later(delay_s, callback)

    def lend(self, fd: int) -> None:
        """Tell of this descriptor no more. From any thread."""
        try:
            self._set.modify(fd, 0)
        except FileNotFoundError:  # the loop does not read it now
            return

    def take_back(self, fd: int) -> None:
        """Tell of it again, also of what has come before. From any thread."""
        try:
            self._set.modify(fd, select.EPOLLIN)
        except FileNotFoundError:  # as above
            return

    def close(self) -> None:
        """The loop is about to end. On the loop."""
        self._loop.remove_reader(self._set.fileno())
        self._set.close()


class LendableConnection(StreamConnection):
    """A connection that a waiting thread may read itself."""

    def __init__(self, sock: StreamSocket, lender: Lender, max_frame_bytes: int) -> None:
        super().__init__(sock, lender, max_frame_bytes)
        self._lender = lender
        self._read_lock = threading.RLock()
        self._borrowing = threading.Lock()
        #: Wakes the borrower; -1 before the first one. Guarded by a lock of its own.
        self.bell = -1
        self._bell_lock = threading.Lock()
        #: What the last borrower has waited with, for the next one.
        self.poll: select.poll | None = None
        #: What a borrower has read and the loop must handle.
        self._left: deque[tuple[Message, list[memoryview]]] = deque()

    # --- the loop's part ------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int:
        """What the borrower polls, while the connection is open."""
        return self._fd

    def _read_once(self, most: int = 8 * _READ_BYTES) -> int:
        with self._read_lock:
            if self._left:
                self._handle_left()
                if self._closed:
                    return 0
            return super()._read_once(most)

    def _break(self, error: Exception) -> None:
        """What came before what broke the connection is handled; then it ends."""
        self._handle_left()
        self.close(error)

    def _handle_left(self) -> None:
        """Handle what a borrower has left behind."""
        with self._read_lock:
            while self._left and not self._closed:
                message, buffers = self._left.popleft()
                try:
                    self._dispatch(message, buffers)
                except ProtocolError as error:
                    self.close(error)
                except Exception as error:  # noqa: BLE001 - as in StreamConnection
                    _log.exception("a message from process %d could not be handled", self.peer.pid)
                    self.close(ProtocolError(f"a message could not be handled: {error!r}"))

    def close(self, error: Exception | None = None) -> None:
        super().close(error)
        self.ring()
        if self._borrowing.acquire(blocking=False):
            self._end_bell()
            self._borrowing.release()

    # --- the borrower's, in any thread ----------------------------------------------------------------------

    def ring(self) -> None:
        """Wake the borrower, if there is one."""
        with self._bell_lock:
            if self.bell >= 0:
                os.eventfd_write(self.bell, 1)

    def _end_bell(self) -> None:
        with self._bell_lock:
            if self.bell >= 0:
                os.close(self.bell)
                self.bell = -1

    def borrow(self) -> bool:
        """Take the connection for this thread; whether it could be had."""
        if self._closed or self._left or not self._reading or not self._borrowing.acquire(blocking=False):
            return False
        if self.poll is None:
            self.bell = os.eventfd(0, os.EFD_NONBLOCK)
            self.poll = select.poll()
            self.poll.register(self.bell, select.POLLIN)
            self.poll.register(self._fd, select.POLLIN)
        self._tell_of(self._lender.lend)
        return True

    def give_back(self) -> None:
        """Let the loop read again."""
        self._tell_of(self._lender.take_back)

    def _tell_of(self, change: Callable[[int], None]) -> None:
        # The socket is closed under this lock: without it, the number may be another connection's by now.
        with self._lock:
            if not self._closed:
                change(self._fd)
        if self._outbox:  # of who could not have the lock
            self.flush()

    def end_borrowing(self) -> None:
        """The borrower waits no more, and has given the connection back."""
        if self._closed:
            self._end_bell()
        self._borrowing.release()
        if self._closed and self.bell >= 0 and self._borrowing.acquire(blocking=False):
            # It was closed while the bell was still the borrower's.
            self._end_bell()
            self._borrowing.release()

    def read_borrowed(self, judge: Callable[[Message, list[memoryview]], bool]) -> bool:
        """Handle what has come; False when the loop must go on.

        Args:
            judge: Whether a message may be handled in this thread.
        """
        with self._read_lock:
            if self._closed or self._left:
                return False
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:  # the loop was quicker
                return True
            except OSError:
                return False  # it is told as well
            return bool(data) and self._handle_borrowed(data, judge)

    def _handle_borrowed(self, data: bytes, judge: Callable[[Message, list[memoryview]], bool]) -> bool:
        left = self._left
        try:
            for message, buffers in self._decoder.feed(data):
                if left or message[0] < FIRST_CHECKED or not judge(message, buffers):
                    left.append((message, buffers))
                else:
                    self.on_message(self, check(message), buffers)
        except ProtocolError as error:
            self._call_on_loop(self._break, error)
            return False
        except Exception as error:  # noqa: BLE001 - as in StreamConnection
            _log.exception("a message from process %d could not be handled", self.peer.pid)
            self._call_on_loop(self._break, ProtocolError(f"a message could not be handled: {error!r}"))
            return False
        finally:
            if left:
                self._call_on_loop(self._handle_left)
        return not left


class LendingNetwork(UnixNetwork):
    """The sockets of one machine, of which threads may borrow those to workers."""

    lender: Lender

    def adopt(self, sock: StreamSocket, purpose: str) -> StreamConnection:
        if purpose != TASK:
            return super().adopt(sock, purpose)
        connection = LendableConnection(sock, self.lender, self.max_frame_bytes)
        connection.send(hello(self.credentials, purpose, self.identity))
        return connection
