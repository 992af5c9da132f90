"""A process's connection with itself: messages are handed over, and no bytes are made of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..wire.frames import Buffer, Message
    from ..wire.handshake import Identity
    from .connection import OnClose, OnMessage


#: Messages that are handled in one turn of the loop: a frame of calls holds some thirty, of 10 us each.
_AT_ONCE: Final = 32


class LocalConnection:
    """One end; made by :func:`local_pair`.

    Args:
        post: Runs a function with its arguments on the process's loop soon; from any thread.
        peer: The process itself.
    """

    def __init__(self, post: Callable[..., None], peer: Identity) -> None:
        self.peer = peer
        self.on_message: OnMessage = lambda connection, message, buffers: None
        self.on_close: OnClose = lambda connection, error: None
        #: The other end; set by local_pair.
        self.other: LocalConnection = self
        self.closed = False
        self.unsent_bytes = 0
        self._post = post
        #: What was sent to this end, and not handled.
        self._inbox: deque[tuple[Message, Sequence[Buffer]]] = deque()
        self._posted = False

    def push(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Put a message in the other end's inbox; flush has it handled. Callable from any thread."""
        if not self.closed:
            self.other._inbox.append((_apart(message), buffers))

    def flush(self) -> None:
        """Have handled what was pushed. Callable from any thread."""
        other = self.other
        if other._inbox and not other._posted:
            other._posted = True
            self._post(other._handle)

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Push and flush."""
        self.push(message, buffers)
        self.flush()

    def _handle(self) -> None:
        # Cleared before the look: what is pushed in between is found, or posted anew.
        self._posted = False
        for _ in range(_AT_ONCE):
            if not self._inbox:
                return
            self._handle_one()
        if self._inbox and not self._posted:
            self._posted = True
            self._post(self._handle)

    def drain(self) -> None:
        """Handle what has already arrived, now. On the loop only."""
        while self._inbox:
            self._handle_one()

    def _handle_one(self) -> None:
        message, buffers = self._inbox.popleft()
        self.on_message(self, message, [memoryview(buffer).cast("B") for buffer in buffers])

    def close(self, error: Exception | None = None) -> None:
        """Close both ends. Callable on the loop only."""
        if self.closed:
            return
        self.closed = self.other.closed = True
        self._post(self._tell, error)
        self._post(self.other._tell, error)

    def _tell(self, error: Exception | None) -> None:
        self.drain()
        self.on_close(self, error)

    def abandon(self) -> None:
        """This process is a fork: nothing is sent any more."""
        self.closed = self.other.closed = True

    def pause_reading(self) -> None:
        """Nothing comes faster than it is handled."""

    def resume_reading(self) -> None:
        """As above."""


def local_pair(post: Callable[..., None], peer: Identity) -> tuple[LocalConnection, LocalConnection]:
    """Both ends of a process's connection with itself."""
    one, other = LocalConnection(post, peer), LocalConnection(post, peer)
    one.other, other.other = other, one
    return one, other


class LocalNetwork:
    """What leads to the process itself.

    Args:
        post: Runs a function with its arguments on the process's loop soon; from any thread.
        me: The process.
        accept: Gets the other end of each connection.
    """

    def __init__(
        self, post: Callable[..., None], me: Identity, accept: Callable[[LocalConnection], None]
    ) -> None:
        self._post = post
        self._me = me
        self._accept = accept

    def connect(self, address: str, purpose: str) -> LocalConnection:
        """Connect; messages may be sent at once."""
        ours, theirs = local_pair(self._post, self._me)
        self._accept(theirs)
        return ours


def _apart(value: Any) -> Any:
    """A message that shares nothing that can change with the original; as it would come out of a frame."""
    kind = type(value)
    if kind is list or kind is tuple:
        return [_apart(item) for item in value]
    if kind is dict:
        return {key: _apart(item) for key, item in value.items()}
    return value
