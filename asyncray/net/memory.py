"""Connections without a kernel: the in-memory twin of the sockets, for simulation.

    MemoryNetwork, MemoryListener      as UnixNetwork and UnixListener, with the same handshake
      StreamConnection, TaskChannel    the real ones: messages are encoded to frames, and decoded
        MemorySocket                   bytes from one end to the other
    MemoryHub                          descriptors, addresses, and who is told when a descriptor is ready

Rule 1: what is sent is there at once, as in a kernel; only when the receiver is told of it is delayed. So a
        process that looks (as a recall or a cancel does) finds all that was sent to it before.
Rule 2: callbacks run in the context in which they were registered, as an event loop's do. A simulated
        process lives in a context of its own, and hears everything there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from .stream import StreamListener, StreamNetwork

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from ..wire.frames import Buffer
    from ..wire.handshake import Credentials, Identity
    from .channel import TaskChannel
    from .connection import OnConnect, Timer
    from .stream import StreamConnection

#: The first descriptor: none that could be taken for one of the kernel's.
_FIRST_FD = 1_000_000


class MemorySocket:
    """One end of a connected pair. Made by :meth:`MemoryHub.pair`."""

    def __init__(self, hub: MemoryHub, fd: int, owner: int) -> None:
        #: The process that it belongs to.
        self.owner = owner
        self.peer: MemorySocket = self
        self.closed = False
        #: The other end was closed with something of ours unread: what a kernel calls a reset.
        self.reset = False
        self._hub = hub
        self._fd = fd
        #: What has arrived and was not read, and how many bytes that is. Guarded by the lock.
        self._inbox: deque[bytes] = deque()
        self._held = 0
        self._lock = threading.Lock()

    def setblocking(self, flag: bool, /) -> None:
        """Nothing to do: it never waits."""

    def fileno(self) -> int:
        return -1 if self.closed else self._fd

    def readable(self) -> bool:
        """Whether recv would return at once."""
        return bool(self._inbox) or self.peer.closed

    def writable(self) -> bool:
        """Whether send would return at once."""
        return self.peer.closed or self.peer._room() > 0

    def recv(self, bufsize: int, /) -> bytes:
        self._check_open()
        with self._lock:
            pieces = []
            left = bufsize
            while self._inbox and left:
                piece = self._inbox.popleft()
                if len(piece) > left:
                    self._inbox.appendleft(piece[left:])
                    piece = piece[:left]
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
            self._held -= len(data)
        if not data and not self.peer.closed:
            raise BlockingIOError
        if not data and self.reset:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._hub.tell_writer(self.peer)
        return data

    def send(self, data: Buffer, /) -> int:
        self._check_open()
        taken = bytes(memoryview(data).cast("B")[: self.peer._room()])
        if not taken and len(data) and not self.peer.closed:
            raise BlockingIOError
        self._hub.tap(self, taken)
        if self.closed or self.peer.closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if taken:
            self.peer._take(taken)
        return len(taken)

    def sendmsg(self, buffers: Sequence[Buffer], /) -> int:
        return self.send(b"".join(buffers))

    def getsockopt(self, level: int, option: int, /) -> int:
        # What has arrived and that nothing more will are told together: the reader must look on.
        return errno.ECONNRESET if self.peer.closed else 0

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.peer.reset = bool(self._inbox)
        self._hub.forget(self._fd)
        self._hub.tell_reader(self.peer)
        self._hub.tell_writer(self.peer)

    def _room(self) -> int:
        return max(0, self._hub.capacity - self._held)

    def _take(self, data: bytes) -> None:
        with self._lock:
            self._inbox.append(data)
            self._held += len(data)
        self._hub.tell_reader(self)

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class MemoryServerSocket:
    """A place where others connect. Made by :meth:`MemoryHub.bind`."""

    def __init__(self, hub: MemoryHub, fd: int, owner: int, address: str) -> None:
        self.owner = owner
        self.address = address
        self.closed = False
        self._hub = hub
        self._fd = fd
        self._backlog: deque[MemorySocket] = deque()

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""
        return -1 if self.closed else self._fd

    def readable(self) -> bool:
        """Whether somebody waits to be accepted."""
        return bool(self._backlog)

    def writable(self) -> bool:
        """No: nothing is written here."""
        return False

    def queue(self, sock: MemorySocket) -> None:
        """Somebody connects."""
        self._backlog.append(sock)
        self._hub.tell_reader(self)

    def accept(self) -> MemorySocket:
        """The next of those who wait.

        Raises:
            BlockingIOError: when nobody does.
        """
        if not self._backlog:
            raise BlockingIOError
        return self._backlog.popleft()

    def close(self) -> None:
        """Accept no more; those who wait are sent away."""
        if self.closed:
            return
        self.closed = True
        self._hub.forget(self._fd)
        while self._backlog:
            self._backlog.popleft().close()


class _Watch:
    """One registration: whom to tell that a descriptor is ready."""

    __slots__ = ("callback", "context", "told")

    def __init__(self, callback: Callable[[], object], context: Context) -> None:
        self.callback = callback
        self.context = context
        #: The news is under way.
        self.told = False


class MemoryHub:
    """What stands in for the kernel and its poll.

    Args:
        loop: Where everything happens.
        delay_s: Drawn for each piece of news: seconds until it is heard. None is at once.
        capacity: Bytes that a socket holds unread; no limit by default, so that nobody ever waits to write.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delay_s: Callable[[], float] | None = None,
        capacity: int = 2**62,
    ) -> None:
        self.capacity = capacity
        #: Shown everything that is sent, before it is.
        self.tap: Callable[[MemorySocket, bytes], None] = lambda sock, data: None
        self._loop = loop
        self._delay_s = delay_s
        self._fds = count(_FIRST_FD)
        self._open: dict[int, MemorySocket | MemoryServerSocket] = {}
        self._servers: dict[str, MemoryServerSocket] = {}
        #: Processes that have ended: what is left of their code opens nothing any more.
        self._ended: set[int] = set()
        self._readers: dict[int, _Watch] = {}
        self._writers: dict[int, _Watch] = {}

    # --- sockets ------------------------------------------------------------------------------------------

    def pair(self, owner: int, other: int) -> tuple[MemorySocket, MemorySocket]:
        """Two connected sockets, of process *owner* and of process *other*."""
        ours = MemorySocket(self, next(self._fds), owner)
        theirs = MemorySocket(self, next(self._fds), other)
        ours.peer, theirs.peer = theirs, ours
        self._open[ours.fileno()] = ours
        self._open[theirs.fileno()] = theirs
        return ours, theirs

    def bind(self, address: str, owner: int) -> MemoryServerSocket:
        """Listen at *address*.

        Raises:
            OSError: when somebody does already, or the process has ended.
        """
        self._check_lives(owner)
        if address in self._servers:
            raise OSError(errno.EADDRINUSE, f"{address} is taken")
        server = MemoryServerSocket(self, next(self._fds), owner, address)
        self._open[server.fileno()] = self._servers[address] = server
        return server

    def connect(self, address: str, owner: int) -> MemorySocket:
        """Connect; nobody waits for the other end to accept.

        Raises:
            ConnectionError: when nobody listens there, or the process has ended.
        """
        self._check_lives(owner)
        server = self._servers.get(address)
        if server is None:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        ours, theirs = self.pair(owner, server.owner)
        server.queue(theirs)
        return ours

    def close_all(self, owner: int) -> None:
        """A process ends: close everything that it has open, as a kernel does."""
        self._ended.add(owner)
        for sock in [sock for sock in self._open.values() if sock.owner == owner]:
            sock.close()

    def _check_lives(self, owner: int) -> None:
        if owner in self._ended:
            raise ConnectionAbortedError(f"process {owner} has ended")

    def forget(self, fd: int) -> None:
        """A descriptor was closed."""
        sock = self._open.pop(fd, None)
        if isinstance(sock, MemoryServerSocket):
            self._servers.pop(sock.address, None)
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)

    # --- who is told (the Poller of connections) ------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        if fd in self._open:  # code of a process that has ended may not know that yet
            self._readers[fd] = _Watch(callback, copy_context())
            self.tell_reader(self._open[fd])

    def remove_reader(self, fd: int, /) -> bool:
        return self._readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        if fd in self._open:
            self._writers[fd] = _Watch(callback, copy_context())
            self.tell_writer(self._open[fd])

    def remove_writer(self, fd: int, /) -> bool:
        return self._writers.pop(fd, None) is not None

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object:
        return self._loop.call_soon_threadsafe(callback, *args)

    def call_later(self, delay_s: float, callback: Callable[[], object], /) -> Timer:
        return self._loop.call_later(delay_s, callback)

    def tell_reader(self, sock: MemorySocket | MemoryServerSocket) -> None:
        """There may be something to read; from any thread."""
        watch = self._readers.get(sock.fileno())
        if watch is not None and not watch.told and sock.readable():
            watch.told = True
            self._later(watch, partial(self._tell, self._readers, sock, watch, sock.readable))

    def tell_writer(self, sock: MemorySocket | MemoryServerSocket) -> None:
        """There may be room to write; from any thread."""
        watch = self._writers.get(sock.fileno())
        if watch is not None and not watch.told and sock.writable():
            watch.told = True
            self._later(watch, partial(self._tell, self._writers, sock, watch, sock.writable))

    def _later(self, watch: _Watch, callback: Callable[[], None]) -> None:
        delay_s = self._delay_s() if self._delay_s is not None else 0.0
        if delay_s:
            # The timer is set on the loop: this may be another thread.
            callback = partial(self._loop.call_later, delay_s, callback, context=watch.context)  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, context=watch.context)

    def _tell(
        self,
        watches: dict[int, _Watch],
        sock: MemorySocket | MemoryServerSocket,
        watch: _Watch,
        ready: Callable[[], bool],
    ) -> None:
        watch.told = False
        if watches.get(sock.fileno()) is not watch or not ready():
            return
        try:
            watch.callback()
        finally:
            # What is left is news again, as long as somebody wants to hear it.
            self.tell_reader(sock)
            self.tell_writer(sock)


class MemoryListener(StreamListener):
    """Listens at an address of the hub."""

    def __init__(self, network: MemoryNetwork, on_connect: OnConnect) -> None:
        super().__init__(network, network.identity.address, on_connect)
        self._hub = network.hub
        self._sock = network.hub.bind(self.address, network.identity.pid)
        self._hub.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        while self._sock.readable():
            self._await_hello(self._sock.accept())

    def abandon(self) -> None:
        self._sock.close()

    def close(self) -> None:
        self._sock.close()
        super().close()


class MemoryNetwork(StreamNetwork):
    """One simulated process's way to the others."""

    def __init__(
        self, hub: MemoryHub, credentials: Credentials, identity: Identity, max_frame_bytes: int
    ) -> None:
        super().__init__(hub, credentials, identity, max_frame_bytes)
        self.hub = hub

    def listen(self, on_connect: OnConnect) -> MemoryListener:
        return MemoryListener(self, on_connect)

    def connect(self, address: str, purpose: str) -> StreamConnection:
        return self.adopt(self.hub.connect(address, self.identity.pid), purpose)


class MemoryArrivals:
    """How the thread of a simulated worker waits for its task channels.

    Args:
        hub: Where the channels' sockets are.
        park: Waits for a gate, as Parker.park does.
    """

    def __init__(self, hub: MemoryHub, park: Callable[[threading.Lock, float | None], bool]) -> None:
        self._hub = hub
        self._park = park
        self._channels: dict[int, TaskChannel] = {}
        self._ready: list[int] = []
        #: Whether the thread waits, so that the hub tells of its channels.
        self._waiting = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def add(self, channel: TaskChannel) -> None:
        fd = channel.fileno()
        self._channels[fd] = channel
        if self._waiting:
            self._hub.add_reader(fd, partial(self._on_ready, fd))

    def wait(self, timeout: float | None = None) -> list[int]:
        self._channels = {fd: channel for fd, channel in self._channels.items() if channel.fileno() == fd}
        self._waiting = True
        for fd in self._channels:
            self._hub.add_reader(fd, partial(self._on_ready, fd))
        try:
            self._park(self._gate, timeout)
        finally:
            self._waiting = False
            for fd in self._channels:
                self._hub.remove_reader(fd)
        ready, self._ready = self._ready, []
        return ready

    def wake(self) -> None:
        if self._gate.locked():
            self._gate.release()

    def _on_ready(self, fd: int) -> None:
        # Told once: what is not read by then is news again when the thread waits the next time.
        self._hub.remove_reader(fd)
        self._ready.append(fd)
        self.wake()
