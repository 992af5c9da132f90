"""Holding back what one process says to another, in simulations: races are replayed in their order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncray as ray
from tests.sim import notes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncray.actor import ActorHandle
    from asyncray.client.session import Session
    from asyncray.net.connection import Connection
    from asyncray.testing import SimulatedCluster


@ray.remote
async def behind(gate: str) -> None:
    """Wait until a gate is open."""
    await notes.gates[gate].wait()


async def settle() -> None:
    """Let everything happen that can, in virtual time."""
    await asyncio.sleep(0.05)


class Held:
    """What comes over a connection from now on waits here, in its order, until it is let through.

    Args:
        connection: At the end of who is to hear of it later.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._handle = connection.on_message
        self._kept: list[tuple[Any, Any]] = []
        connection.on_message = lambda _, message, buffers: self._kept.append((message, buffers))

    def __len__(self) -> int:
        return len(self._kept)

    def let_through(self, count: int) -> None:
        """Let some of what has come be heard."""
        kept, self._kept = self._kept[:count], self._kept[count:]
        for message, buffers in kept:
            self._handle(self._connection, message, buffers)

    def open(self) -> None:
        """Let everything through, now and later."""
        self.let_through(len(self._kept))
        self._connection.on_message = self._handle


def session_of(cluster: SimulatedCluster, actor: ActorHandle[Any]) -> Session:
    """The session of the process of a process actor of the driver's."""
    lease = cluster.driver.actors.owned[actor._ray_address[2]].lease
    assert lease is not None
    peer = lease.link.connection.peer
    (found,) = (s for s in cluster.sessions if s.identity.process_id == peer.process_id)
    return found


def from_hosts(session: Session) -> Held:
    """Hold back what the only host of light actors says to a process."""
    (lease,) = (calls.lease for calls in session.lights.hosts.values() if calls.lease is not None)
    return Held(lease.link.connection)


def from_peer(session: Session, peer: Session) -> Held:
    """Hold back what one process says to another about objects and actors."""
    (connection,) = session.peers._connections[peer.identity.process_id]
    return Held(connection)


def to_host(cluster: SimulatedCluster, caller: Session) -> Held:
    """Hold back what a process says to the only host of light actors."""
    (pid,) = host_of(cluster)
    (host,) = (session for session in cluster.sessions if session.identity.pid == pid)
    worker: Any = host.on_task_connection.__self__  # type: ignore[union-attr]
    return Held(worker._owners[caller.identity.process_id].connection)


def host_of(cluster: SimulatedCluster) -> Iterator[int]:
    """The pids of the hosts of light actors."""
    for calls in cluster.driver.lights.hosts.values():
        if calls.lease is not None:
            yield calls.lease.link.connection.peer.pid
