"""The worker's end of a task connection, read by the thread that runs the tasks.

In a sync worker the main thread waits on this socket itself, so that a call costs no hop between threads.
The loop's thread may read and write too (a recall, a late report), so both directions have a lock.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

from ..exceptions import ProtocolError
from ..wire.frames import Buffer, Frame, FrameDecoder, FrameEncoder, Message

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ..wire.handshake import Identity

_READ_BYTES = 256 * 1024


class TaskChannel:
    """A task connection after its handshake, without a loop."""

    def __init__(
        self, sock: socket.socket, decoder: FrameDecoder, peer: Identity, max_frame_bytes: int
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
        except ProtocolError:
            self.close()
            raise

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Send, waiting while the owner does not read. Nothing happens when the owner is gone."""
        with self._write_lock:
            if self.closed:
                return
            for part in self._joined(self._encoder.encode(message, buffers)):
                if not self._send_all(memoryview(part)):
                    return

    def _joined(self, parts: list[Buffer]) -> list[Buffer]:
        """Small frames go out in one piece: one system call, one wake-up of the owner."""
        if sum(len(part) for part in parts) <= _READ_BYTES:
            return [b"".join(parts)]
        return parts

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

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self._sock.close()


def _wait_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll()
