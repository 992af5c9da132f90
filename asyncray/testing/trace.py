"""What happened in a simulation, event by event: two runs are the same when their traces are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ..exceptions import ProtocolError
from ..wire.frames import LARGEST_PART_BYTES, FrameDecoder
from ..wire.handshake import HELLO, REFUSED, WELCOME
from ..wire.messages import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.memory import MemorySocket

_NAMES: Final = {
    HELLO: "HELLO",
    WELCOME: "WELCOME",
    REFUSED: "REFUSED",
    **{number: name for number, (name, _) in SCHEMAS.items()},
}


class Event(NamedTuple):
    """One thing that happened."""

    #: Virtual time, in seconds.
    at_s: float
    #: The process that did it.
    pid: int
    #: "starts", "dies", "sends RESULTS to 3", "runs on", "waits", ...
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:12.6f}  {self.pid:4}  {self.what}"


class Trace:
    """The events of one simulation, in their order.

    Args:
        clock: The virtual time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self._clock = clock
        self._watchers: list[Callable[[Event], None]] = []
        #: What was sent over each socket and is no whole message yet.
        self._decoders: dict[MemorySocket, FrameDecoder] = {}

    def watch(self, watcher: Callable[[Event], None]) -> None:
        """Call *watcher* with each event from now on.

        A message is an event before it leaves: who kills its sender then, keeps it from leaving.
        """
        self._watchers.append(watcher)

    def note(self, pid: int, what: str) -> None:
        """Something has happened."""
        event = Event(self._clock(), pid, what)
        self.events.append(event)
        for watcher in list(self._watchers):
            watcher(event)

    def tap(self, sock: MemorySocket, data: bytes) -> None:
        """Something is about to be sent; see :attr:`MemoryHub.tap`."""
        decoder = self._decoders.get(sock)
        if decoder is None:
            decoder = self._decoders[sock] = FrameDecoder(2 * LARGEST_PART_BYTES)
        try:
            frames = decoder.feed(data)
        except ProtocolError:
            self.note(sock.owner, f"sends garbage to {sock.peer.owner}")
            return
        for message, _ in frames:
            name = _NAMES.get(message[0], f"message number {message[0]}")
            self.note(sock.owner, f"sends {name} to {sock.peer.owner}")

    def __str__(self) -> str:
        return "\n".join(map(str, self.events))
