"""The worker's end of a task connection, read by the thread that runs the tasks.

In a sync worker the main thread waits on this socket itself, so that a call costs no hop between threads.
The loop's thread may read and write too (a recall, a late report), so both directions have a lock.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING, Protocol

from ..exceptions import ProtocolError
from ..wire.frames import Buffer, Frame, FrameDecoder, FrameEncoder, Message
from ..wire.handshake import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..wire.handshake import Identity
    from .connection import StreamSocket

_log = logging.getLogger("asyncray.net")
_READ_BYTES = 256 * 1024


class TaskChannel:
    """A task connection after its handshake, without a loop."""

    def __init__(
        self, sock: StreamSocket, decoder: FrameDecoder, peer: Identity, max_frame_bytes: int
    ) -> None:
        self.peer = peer
        self.closed = False
        self._sock = sock
        self._decoder = decoder
        self._encoder = FrameEncoder(max_frame_bytes)
        self._write_lock = threading.Lock()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def read(self) -> list[Frame]:
        """What has arrived; nothing when nothing has. One reader at a time.

        Raises:
            ProtocolError: when the owner sent what is no frame; the channel is closed then.
        """
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        if not data:
            self.close()
            return []
        try:
            return self._decoder.feed(data)
        except ProtocolError as error:
            self.close(error)
            raise

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Send, waiting while the owner does not read. Nothing happens when the owner is gone."""
        with self._write_lock:
            if self.closed:
                return
            parts = self._encoder.encode(message, buffers)
            if len(parts) > 1 and sum(map(len, parts)) <= _READ_BYTES:
                # Small frames go out in one piece: one system call, one wake-up of the owner.
                parts = [b"".join(parts)]
            for part in parts:
                if not self._send_all(memoryview(part)):
                    return

    def _send_all(self, view: memoryview) -> bool:
        while len(view):
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                _wait_writable(self._sock)
            except OSError:
                self.closed = True
                return False
        return True

    def close(self, error: ProtocolError | None = None) -> None:
        """Close the socket, and tell the owner why if there is an *error*."""
        if error is not None and not self.closed:
            self._say_why(error)
        self.closed = True
        self._sock.close()

    def _say_why(self, error: ProtocolError) -> None:
        """Best effort: an owner that does not read is no reason to wait."""
        _log.warning("closed the connection with process %d: %s", self.peer.pid, error)
        if self._write_lock.acquire(blocking=False):
            try:
                self._sock.send(b"".join(self._encoder.encode(refused(str(error)))))
            except OSError:
                return
            finally:
                self._write_lock.release()


def _wait_writable(sock: StreamSocket) -> None:
    fd = sock.fileno()
    if fd >= 0:  # else the other thread has just closed it
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll()


class Arrivals(Protocol):
    """How a worker's main thread waits for its task channels; the simulation has one of its own."""

    def add(self, channel: TaskChannel) -> None:
        """Wait for this one too, until it is closed. From any thread."""

    def wait(self, timeout: float | None = None) -> list[int]:
        """Wait until there is something to read, or for wake; return the descriptors of those channels.

        Args:
            timeout: Seconds after which it returns regardless; None is never.
        """

    def wake(self) -> None:
        """Let wait return. From any thread."""


class SocketArrivals:
    """Waits on sockets."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)

    def add(self, channel: TaskChannel) -> None:
        # Closing a socket takes it out of the set.
        self._epoll.register(channel.fileno(), select.EPOLLIN)

    def wait(self, timeout: float | None = None) -> list[int]:
        ready = [fd for fd, _ in self._epoll.poll(timeout)]
        if self._wake in ready:
            os.eventfd_read(self._wake)
            ready.remove(self._wake)
        return ready

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)
