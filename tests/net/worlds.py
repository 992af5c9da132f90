"""Kinds of networks to run the same tests on, and what stands at the ends of their connections."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any, Protocol

from asyncray.net.memory import MemoryHub, MemoryNetwork
from asyncray.net.stream import UnixNetwork
from asyncray.wire.handshake import PEER, Credentials, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncray.net.connection import Connection, Listener, Network

CREDENTIALS = Credentials(b"session!", b"t" * 32)
LIMIT = 16 * 1024 * 1024
#: Bytes that a socket holds unread in the memory hub; the kernel's is of the same order.
CAPACITY = 200_000
#: Any message number that is checked, with fields of any type in it.
ANSWER = 24
_names = itertools.count()


def answer(number: int, value: Any = None) -> list[Any]:
    return [ANSWER, number, value]


class World(Protocol):
    """A kind of network, and a loop to run it on."""

    def network(
        self, credentials: Credentials = CREDENTIALS, *, pid: int = 1, limit: int = LIMIT
    ) -> Network: ...

    def run(self, main: Callable[[], Coroutine[None, None, None]]) -> None: ...


class UnixWorld:
    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop_factory = loop_factory

    def network(self, credentials: Credentials = CREDENTIALS, *, pid: int = 1, limit: int = LIMIT) -> Network:
        identity = new_identity(pid)
        return UnixNetwork(asyncio.get_running_loop(), credentials, identity, limit)

    def run(self, main: Callable[[], Coroutine[None, None, None]]) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(asyncio.wait_for(main(), 20))


class MemoryWorld(UnixWorld):
    def __init__(
        self,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        delay_s: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(loop_factory)
        self._delay_s = delay_s
        self._hubs: dict[asyncio.AbstractEventLoop, MemoryHub] = {}

    def network(self, credentials: Credentials = CREDENTIALS, *, pid: int = 1, limit: int = LIMIT) -> Network:
        loop = asyncio.get_running_loop()
        hub = self._hubs.setdefault(loop, MemoryHub(loop, self._delay_s, CAPACITY))
        return MemoryNetwork(hub, credentials, new_identity(pid), limit)


def new_identity(pid: int) -> Identity:
    number = next(_names)
    return Identity(number.to_bytes(16, "big"), f"asyncray-test-{os.getpid()}-{number}", pid)


class End:
    """One end of a connection, and what it has heard."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[Any] = []
        self.buffers: list[bytes] = []
        self.closings: list[Exception | None] = []
        self._news = asyncio.Event()
        connection.on_message = self._on_message
        connection.on_close = self._on_close

    def _on_message(self, connection: Connection, message: list[Any], buffers: list[memoryview]) -> None:
        assert not self.closings
        self.heard.append(message)
        self.buffers += map(bytes, buffers)
        self._news.set()

    def _on_close(self, connection: Connection, error: Exception | None) -> None:
        self.closings.append(error)
        self._news.set()

    async def until(self, condition: Callable[[End], bool]) -> None:
        while not condition(self):
            self._news.clear()
            await self._news.wait()

    async def hears(self, count: int) -> list[Any]:
        await self.until(lambda end: len(end.heard) >= count)
        return self.heard

    async def closes(self) -> Exception | None:
        await self.until(lambda end: bool(end.closings))
        assert self.connection.closed
        assert len(self.closings) == 1
        # A kernel tells whether the other end left something unread; that is no reason.
        error = self.closings[0]
        return None if isinstance(error, ConnectionResetError | BrokenPipeError) else error


class Host:
    """A process that listens."""

    def __init__(self, network: Network) -> None:
        self.purposes: list[str] = []
        self.accepted: asyncio.Queue[End] = asyncio.Queue()
        self.listener: Listener = network.listen(self._on_connect)

    def _on_connect(self, connection: Connection, purpose: str) -> None:
        self.purposes.append(purpose)
        self.accepted.put_nowait(End(connection))


async def connected(world: World, *, limit: int = LIMIT) -> tuple[End, End, Host]:
    """Both ends of a new connection, the one that connected first, and the host of the other."""
    host = Host(world.network())
    end = connect(world.network(pid=2, limit=limit), host)
    return end, await host.accepted.get(), host


def connect(network: Network, host: Host, purpose: str = PEER) -> End:
    end = End(network.connect(host.listener.address, purpose))
    end.connection.resume_reading()
    return end


def close(*ends: End | Host) -> None:
    for end in ends:
        if isinstance(end, Host):
            end.listener.close()
        else:
            end.connection.close()
