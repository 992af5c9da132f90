"""Raw sockets for tests: they say what no process of ours would."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Self

from asyncray.wire.frames import FrameDecoder, FrameEncoder
from asyncray.wire.handshake import REFUSED, Identity, hello

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from asyncray.wire.handshake import Credentials

LIMIT_S = 20
_LARGEST = 2**31 - 1
#: No frame at all.
GARBAGE = b"\xc1" * 64


def frame(message: list[Any], buffers: Sequence[bytes] = ()) -> bytes:
    """A message as bytes."""
    return b"".join(FrameEncoder(_LARGEST).encode(message, buffers))


def announcing(header_bytes: int, raw_bytes: int = 0) -> bytes:
    """The beginning of a frame of that size."""
    return struct.pack("<II", header_bytes, raw_bytes)


class Stranger:
    """A connection to an abstract address. It closes at the end of its block.

    Args:
        address: Where.
        opening: What to say at once.
    """

    def __init__(self, address: str, *opening: list[Any] | bytes) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(LIMIT_S)
        self._sock.connect("\0" + address)
        self._decoder = FrameDecoder(_LARGEST)
        self._heard: list[list[Any]] = []
        self.say(*opening)

    def say(self, *said: list[Any] | bytes) -> None:
        """Send messages, or bytes as they are; quiet when nobody listens any more."""
        try:
            self._sock.sendall(b"".join(one if isinstance(one, bytes) else frame(one) for one in said))
        except (BrokenPipeError, ConnectionResetError):
            return

    def hear(self) -> list[Any]:
        """The next message.

        Raises:
            EOFError: when the other end has closed.
        """
        while not self._heard:
            try:
                data = self._sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._heard += [message for message, _ in self._decoder.feed(data)]
        return self._heard.pop(0)

    def refusal(self) -> str:
        """Listen until the other end closes; why it did, or nothing."""
        why = ""
        while True:
            try:
                message = self.hear()
            except EOFError:
                return why
            if message[0] == REFUSED:
                why = message[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sock.close()


def greeting(credentials: Credentials, purpose: str, process_id: bytes = b"stranger" * 2) -> list[Any]:
    """A good hello."""
    return hello(credentials, purpose, Identity(process_id, "", 1))
