"""What a connection is, whichever way its bytes go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..wire.frames import Buffer, Message

if TYPE_CHECKING:
    from ..wire.handshake import Identity

OnMessage = Callable[["Connection", Message, list[memoryview]], None]
OnClose = Callable[["Connection", Exception | None], None]
OnConnect = Callable[["Connection", str], None]


class StreamSocket(Protocol):
    """What a connection uses of a non-blocking stream socket; the simulation has one in memory."""

    def setblocking(self, flag: bool, /) -> None:
        """Set to False, it never waits."""

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""

    def recv(self, bufsize: int, /) -> bytes:
        """Some of what has arrived; nothing when the other end is closed.

        Raises:
            BlockingIOError: when nothing has.
            OSError: when it is closed or broken.
        """

    def send(self, data: Buffer, /) -> int:
        """Take some of *data*; return how many bytes.

        Raises:
            BlockingIOError: when there is no room.
            OSError: when it is closed or broken.
        """

    def sendmsg(self, buffers: Sequence[Buffer], /) -> int:
        """As send, of several buffers."""

    def getsockopt(self, level: int, option: int, /) -> int:
        """Its pending error, which is cleared; 0 when there is none."""

    def close(self) -> None:
        """Close it."""


class Timer(Protocol):
    """Something that happens later."""

    def cancel(self) -> object:
        """It does not; nothing when it has happened."""


class Poller(Protocol):
    """What a connection uses of its event loop: who tells when a descriptor is ready."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        """Call *callback* whenever there is something to read, in the context of this call."""

    def remove_reader(self, fd: int, /) -> bool:
        """Stop it."""

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        """Call *callback* whenever there is room to write, in the context of this call."""

    def remove_writer(self, fd: int, /) -> bool:
        """Stop it."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object:
        """Run *callback* on the loop soon; from any thread.

        Raises:
            RuntimeError: when the loop is closed.
        """

    def call_later(self, delay_s: float, callback: Callable[[], object], /) -> Timer:
        """Run *callback* after so many seconds. On the loop only."""


class Connection(Protocol):
    """One end of a stream of messages, after its handshake.

    ``on_message`` is called on the connection's loop, one message at a time, in the order sent.
    ``on_close`` is called once, after the last message, with what broke the connection or None.
    """

    peer: Identity
    on_message: OnMessage
    on_close: OnClose

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the other end has not taken yet."""

    def push(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Put a message in the outbox; :meth:`flush` sends it. Callable from any thread."""

    def flush(self) -> None:
        """Send what is in the outbox. Callable from any thread."""

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Push and flush."""

    def close(self, error: Exception | None = None) -> None:
        """Close, and tell the other end why if there is an *error*. Callable on the loop only."""

    def abandon(self) -> None:
        """Close this process's copy of the socket, in a fork; the connection goes on in the parent."""

    def drain(self) -> None:
        """Handle what has already arrived, now. On the loop only."""

    def pause_reading(self) -> None:
        """Take nothing more from the other end for now; it is slowed down."""

    def resume_reading(self) -> None:
        """Take messages again."""


class Listener(Protocol):
    """A place where others connect."""

    address: str

    def close(self) -> None:
        """Accept no more; connections that exist stay."""

    def abandon(self) -> None:
        """Close this process's copy of the socket, in a fork."""


class Network(Protocol):
    """How a process reaches others: sockets in production, memory in simulation."""

    def listen(self, on_connect: OnConnect) -> Listener:
        """Listen at an address of its own; *on_connect* gets each connection with its purpose."""

    def connect(self, address: str, purpose: str) -> Connection:
        """Connect and say hello; messages may be sent at once.

        Raises:
            ConnectionError: when nobody listens there.
        """
