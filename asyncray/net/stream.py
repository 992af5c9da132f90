"""Connections over stream sockets.

One outbox per connection and one writer at a time: any thread may flush, and the one that holds the write
lock sends for all. What the socket does not take at once goes to the loop, which sends the rest when there
is room. Reading is the loop's alone.

The socket is used directly, not through an asyncio transport, because a caller's thread writes a call to
an idle worker itself: a hop through the loop would double the latency of a single call.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from ..exceptions import AuthenticationError, ProtocolError
from ..wire.frames import Buffer, FrameDecoder, FrameEncoder, Message
from ..wire.handshake import (
    HELLO_BYTES,
    WELCOME,
    Credentials,
    Identity,
    check_hello,
    check_refusal,
    hello,
    refused,
    welcome,
)
from ..wire.messages import FIRST_CHECKED, check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .connection import OnClose, OnConnect, OnMessage, Poller, StreamSocket, Timer

_log = logging.getLogger("asyncray.net")
_READ_BYTES: Final = 256 * 1024
#: Bytes of the first read when something has come. Mostly it is little, and for a buffer above 128 KiB that
#: is given back all but unused, malloc asks the kernel each time.
_FIRST_BYTES: Final = 32 * 1024
#: Reads from one connection before others have a turn.
_READS: Final = 8
#: Seconds for a hello: a process that is stopped or swapped out for a moment may still say it.
HELLO_S: Final = 10.0
#: Seconds until another look at those who want to connect, when there was no descriptor for them.
_ACCEPT_AGAIN_S: Final = 0.5
#: Buffers handed to one sendmsg; the kernel's limit is 1024.
_VECTORS: Final = 512
_UCRED: Final = struct.Struct("3i")
NOBODY: Final = Identity(b"", "", 0)


class StreamConnection:
    """A connection over one connected, non-blocking stream socket."""

    def __init__(self, sock: StreamSocket, loop: Poller, max_frame_bytes: int) -> None:
        sock.setblocking(False)
        self.peer = NOBODY
        self.on_message: OnMessage = _unexpected
        self.on_close: OnClose = _ignore_close
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = loop
        self._encoder = FrameEncoder(max_frame_bytes)
        self._decoder = FrameDecoder(max_frame_bytes)
        self._outbox: deque[tuple[Message, Sequence[Buffer]]] = deque()
        self._lock = threading.Lock()
        #: Parts that the socket did not take; sent before anything else. Guarded by the lock.
        self._rest: deque[memoryview] = deque()
        self._rest_bytes = 0
        self._writer_armed = False
        self._closed = False
        self._reading = False
        #: Whether the other end has connected to this one, and so must begin.
        self._accepted = False
        #: Whether the hello was accepted just now.
        self._greeted = False

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def unsent_bytes(self) -> int:
        return self._rest_bytes

    def start(self) -> None:
        """Begin to read. On the loop only."""
        if not self._closed and not self._reading:
            self._reading = True
            self._loop.add_reader(self._fd, self._on_readable)

    resume_reading = start

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def push(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        self._outbox.append((message, buffers))

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        self._outbox.append((message, buffers))
        self.flush()

    def flush(self) -> None:
        while self._outbox and not self._closed:
            if not self._lock.acquire(blocking=False):
                # Another thread is sending. It looks at the outbox again after it lets the lock go, so
                # what was pushed here is not left behind.
                return
            try:
                self._send_outbox()
            finally:
                self._lock.release()

    def _send_outbox(self) -> None:
        parts: list[Buffer] = []
        while self._outbox:
            message, buffers = self._outbox.popleft()
            try:
                parts += self._encoder.encode(message, buffers)
            except Exception as error:  # noqa: BLE001 - too large, or something that msgpack cannot carry
                # Whoever waits for what this would have brought must not wait for ever.
                self._broken_later(ProtocolError(f"message number {message[0]} cannot be sent: {error}"))
        if self._rest:
            self._keep(parts, 0)
            return
        self._write(parts)

    def _write(self, parts: list[Buffer]) -> None:
        small = len(parts) <= 2 or sum(len(part) for part in parts) <= _READ_BYTES
        try:
            if small:
                data = b"".join(parts)
                sent = self._sock.send(data)
                if sent < len(data):
                    self._keep([data], sent)
                return
            self._keep(parts, 0)
            self._send_rest()
        except BlockingIOError:
            self._keep([data] if small else [], 0)
        except OSError as error:
            self._broken_later(error)

    def _keep(self, parts: Sequence[Buffer], skip: int) -> None:
        """Keep what is not sent; the loop sends it when the socket has room."""
        for part in parts:
            view = memoryview(part).cast("B")
            if skip >= len(view):
                skip -= len(view)
                continue
            self._rest.append(view[skip:])
            self._rest_bytes += len(view) - skip
            skip = 0
        self._arm_writer()

    def _arm_writer(self) -> None:
        if self._rest and not self._writer_armed:
            self._writer_armed = True
            self._call_on_loop(self._add_writer)

    def _call_on_loop(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: the process is ending, and so is this connection
            self._closed = True

    def _add_writer(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        with self._lock:
            try:
                self._send_rest()
            except BlockingIOError:
                return
            except OSError as error:
                self._broken_later(error)
                self._rest.clear()
            if self._rest:
                return
            self._writer_armed = False
            if not self._closed:
                self._loop.remove_writer(self._fd)
        self.flush()

    def _send_rest(self) -> None:
        while self._rest:
            batch = [self._rest[i] for i in range(min(len(self._rest), _VECTORS))]
            sent = self._sock.sendmsg(batch)
            self._rest_bytes -= sent
            while sent:
                part = self._rest[0]
                if sent < len(part):
                    self._rest[0] = part[sent:]
                    break
                sent -= len(part)
                self._rest.popleft()

    def _broken_later(self, error: Exception) -> None:
        """Writing failed, perhaps on a caller's thread: the loop reads what is left, then closes."""
        self._call_on_loop(self._finish_broken, error)

    def _finish_broken(self, error: Exception) -> None:
        self.drain()
        self.close(error)

    def await_hello(self) -> None:
        """Accept nothing but a small first frame for now."""
        self._accepted = True
        self._decoder.limit(HELLO_BYTES, single=True)

    def greeted(self, peer: Identity, max_frame_bytes: int) -> None:
        """The hello was accepted."""
        self.peer = peer
        self._greeted = True
        self._decoder.limit(max_frame_bytes)

    def drain(self) -> None:
        """Handle what has already arrived, now. On the loop only."""
        while not self._closed and self._read_once():
            pass

    def _on_readable(self) -> None:
        asked = _FIRST_BYTES
        for _ in range(_READS):
            count = self._read_once(asked) if self._reading else 0
            if not count or self._closed:
                return
            # A short read has taken all; a further one would fail, and let another thread in before the one
            # that waits for what has come. But uvloop tells of a broken socket only once, however much there
            # is to read.
            if count < asked and not self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return
            asked = _READ_BYTES
        if self._reading:
            # Others have a turn. Registered anew, the reader is told again of what was told before.
            self.pause_reading()
            self.start()

    def _read_once(self, most: int = _READ_BYTES) -> int:
        """Handle what one read brings; returns how many bytes that were."""
        try:
            data = self._sock.recv(most)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self.close(error)
            return 0
        if not data:
            self.close()
            return 0
        self._handle(data)
        return len(data)

    def _handle(self, data: bytes) -> None:
        try:
            for message, buffers in self._decoder.feed(data):
                self._dispatch(message, buffers)
                if self._closed:
                    return
            if self._greeted:
                # The hello came with more behind it, which was left in the decoder.
                self._greeted = False
                self._handle(b"")
        except ProtocolError as error:
            self.close(error)
        except Exception as error:  # noqa: BLE001 - a handler stumbled: nothing may be lost in silence
            _log.exception("a message from process %d could not be handled", self.peer.pid)
            self.close(ProtocolError(f"a message could not be handled: {type(error).__name__}: {error}"))

    def _dispatch(self, message: Message, buffers: list[memoryview]) -> None:
        if message[0] >= FIRST_CHECKED:
            self.on_message(self, check(message), buffers)
            return
        check_refusal(message)
        if message[0] != WELCOME or self._accepted:
            self.on_message(self, message, buffers)

    def close(self, error: Exception | None = None) -> None:
        if self._closed:
            return
        if isinstance(error, ProtocolError):
            self._say_why(error)
        self._closed = True
        self.pause_reading()
        if self._writer_armed:
            self._loop.remove_writer(self._fd)
        with self._lock:
            self._sock.close()
            self._rest.clear()
            self._rest_bytes = 0
        self.on_close(self, error)

    def abandon(self) -> None:
        self._closed = True
        self._sock.close()

    def detach(self) -> tuple[StreamSocket, FrameDecoder]:
        """Give the socket away, with what has been read of frames to come; the connection is over."""
        self.pause_reading()
        self._closed = True
        return self._sock, self._decoder

    def _say_why(self, error: Exception) -> None:
        """Best effort: the other end should know the reason; a full socket is no reason to wait."""
        _log.warning("closed the connection with process %d: %s", self.peer.pid, error)
        self.send(refused(str(error)))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<StreamConnection {state} to pid {self.peer.pid}, {self._rest_bytes} bytes unsent>"


def _unexpected(connection: object, message: Message, buffers: list[memoryview]) -> None:
    raise ProtocolError(f"message number {message[0]} came before anyone was ready for it")


def _ignore_close(connection: object, error: Exception | None) -> None:
    """Nobody asked to be told."""


class StreamListener:
    """What listeners have in common: the handshake of those who connect."""

    def __init__(self, network: StreamNetwork, address: str, on_connect: OnConnect) -> None:
        self.address = address
        self._network = network
        self._on_connect = on_connect
        #: Connections that have not said hello yet, in the order in which they came; a timer ends each.
        self._greeting: dict[StreamConnection, Timer] = {}

    def _await_hello(self, sock: StreamSocket) -> None:
        network = self._network
        connection = StreamConnection(sock, network.loop, network.max_frame_bytes)
        connection.await_hello()
        connection.on_message = self._on_hello  # type: ignore[assignment]
        connection.on_close = lambda closed, error: self._no_longer_greeting(connection)
        silent = ProtocolError(f"no hello came within {network.hello_timeout_s:g} s")
        timer = network.loop.call_later(network.hello_timeout_s, partial(connection.close, silent))
        self._greeting[connection] = timer
        connection.start()

    def _no_longer_greeting(self, connection: StreamConnection) -> None:
        timer = self._greeting.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _on_hello(self, connection: StreamConnection, message: Message, buffers: list[memoryview]) -> None:
        accepted = check_hello(message, self._network.credentials)
        self._no_longer_greeting(connection)
        connection.greeted(accepted.identity, self._network.max_frame_bytes)
        connection.on_message = _unexpected
        connection.on_close = _ignore_close
        connection.send(welcome())
        self._on_connect(connection, accepted.purpose)

    def close(self) -> None:
        """Accept no more; those who have not said hello are sent away."""
        for connection in list(self._greeting):
            connection.close()


class UnixListener(StreamListener):
    """Listens at an abstract Unix address: nothing on disk, nothing to clean up after a crash."""

    def __init__(self, network: UnixNetwork, name: str, on_connect: OnConnect) -> None:
        super().__init__(network, name, on_connect)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        try:
            self._sock.bind("\0" + name)
            self._sock.listen(1024)
        except OSError:
            self._sock.close()
            raise
        #: Set while there are no descriptors to accept with.
        self._paused: Timer | None = None
        network.loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # Out of descriptors, say: those who wait stay in the backlog until there are some again. The
                # loop would tell of them again at once, and nothing tells of free descriptors: look later.
                _log.warning("cannot accept a connection at %s: %s", self.address, error)
                loop, fd = self._network.loop, self._sock.fileno()
                loop.remove_reader(fd)
                self._paused = loop.call_later(_ACCEPT_AGAIN_S, self._resume)
                return
            self._greet(sock)

    def _resume(self) -> None:
        self._paused = None
        self._network.loop.add_reader(self._sock.fileno(), self._accept)

    def _greet(self, sock: socket.socket) -> None:
        uid = peer_uid(sock)
        if uid not in (0, os.getuid()):
            stranger = StreamConnection(sock, self._network.loop, self._network.max_frame_bytes)
            stranger.close(AuthenticationError(f"{self.address} is not for foreign uid {uid}"))
            return
        self._await_hello(sock)

    def abandon(self) -> None:
        self._sock.close()

    def close(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
        if self._sock.fileno() >= 0:
            self._network.loop.remove_reader(self._sock.fileno())
            self._sock.close()
        super().close()


class StreamNetwork:
    """What networks of stream sockets have in common: who this process is, and its hello."""

    def __init__(
        self,
        loop: Poller,
        credentials: Credentials,
        identity: Identity,
        max_frame_bytes: int,
    ) -> None:
        self.loop = loop
        self.credentials = credentials
        self.identity = identity
        self.max_frame_bytes = max_frame_bytes
        #: Seconds that somebody who connects may take to say hello.
        self.hello_timeout_s = HELLO_S

    def adopt(self, sock: StreamSocket, purpose: str) -> StreamConnection:
        """Say hello on a connected socket."""
        connection = StreamConnection(sock, self.loop, self.max_frame_bytes)
        connection.send(hello(self.credentials, purpose, self.identity))
        return connection


class UnixNetwork(StreamNetwork):
    """The sockets of one machine."""

    def listen(self, on_connect: OnConnect) -> UnixListener:
        return UnixListener(self, self.identity.address, on_connect)

    def connect(self, address: str, purpose: str) -> StreamConnection:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Connecting to a Unix socket does not wait for the other end to accept.
            sock.connect("\0" + address)
            uid = peer_uid(sock)
        except OSError as error:
            sock.close()
            raise ConnectionError(f"nobody listens at {address}: {error}") from error
        if uid not in (0, os.getuid()):
            sock.close()
            raise ConnectionError(f"{address} is held by foreign uid {uid}")
        return self.adopt(sock, purpose)


def peer_uid(sock: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])
