"""What can Python on sockets do on this machine, with no runtime around it?"""

from __future__ import annotations

import multiprocessing
import pickle
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import msgpack

from ..harness import BARE, Bench, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESSAGE = bytes(64)
WORKERS = 2
FUNCTION = bytes(range(16))
FINE = b""
CALLS_IN_FRAME = 500
HEADER = 4

Record: TypeAlias = tuple[bytes, bytes, bytes]
"""A call: its id, the function's, pickled arguments. A result: the id, a status, the pickled value."""


class Msgpack(Protocol):
    """The two functions of msgpack used here, with types."""

    def packb(self, value: object, /) -> bytes:
        """Encode."""

    def unpackb(self, data: bytes, /) -> list[Record]:
        """Decode."""


codec = cast("Msgpack", msgpack)


@row("trips/s", on=(BARE,))
def bare_ping_pong(bench: Bench) -> float:
    """How many times a second do 64 bytes go to another process and back over a Unix socket?"""
    with peer(echo) as other:

        def trip() -> None:
            other.sendall(MESSAGE)
            receive(other, len(MESSAGE))

        return bench.rate(trip)


@row("calls/s", on=(BARE,), note=f"pickled calls, {CALLS_IN_FRAME} to a msgpack frame, {WORKERS} workers")
def bare_frames(bench: Bench) -> float:
    """How many calls a second can workers answer when they come and go in large frames?"""
    with ExitStack() as stack:
        others = [stack.enter_context(peer(answer_frames)) for _ in range(WORKERS)]

        def exchange() -> None:
            for other in others:
                calls = [(b"%016d" % i, FUNCTION, pickle.dumps(((), {}))) for i in range(CALLS_IN_FRAME)]
                send_frame(other, calls)
            for other in others:
                for _, _, result in receive_frame(other):
                    pickle.loads(result)

        return bench.rate(exchange, per_call=WORKERS * CALLS_IN_FRAME)


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A process that runs ``serve`` on its end of a socket pair: the other end. It ends when that closes."""
    ours, theirs = socket.socketpair()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()
    try:
        with ours:
            yield ours
    finally:
        process.join()


def echo(caller: socket.socket) -> None:
    """Send back what comes."""
    while data := receive(caller, len(MESSAGE)):
        caller.sendall(data)


def answer_frames(caller: socket.socket) -> None:
    """Decode each frame of calls and send a frame of results."""
    while calls := receive_frame(caller):
        results = []
        for call, _, arguments in calls:
            pickle.loads(arguments)
            results.append((call, FINE, pickle.dumps(b"ok")))
        send_frame(caller, results)


def send_frame(to: socket.socket, records: list[Record]) -> None:
    """Send ``records`` as one frame: its length, then msgpack."""
    body = codec.packb(records)
    to.sendall(len(body).to_bytes(HEADER, "big") + body)


def receive_frame(of: socket.socket) -> list[Record]:
    """The records of the next frame; empty at the end of the stream."""
    header = receive(of, HEADER)
    if not header:
        return []
    return codec.unpackb(receive(of, int.from_bytes(header, "big")))


def receive(of: socket.socket, size: int) -> bytes:
    """``size`` bytes; empty at the end of the stream."""
    data = of.recv(size, socket.MSG_WAITALL)
    return data if len(data) == size else b""
