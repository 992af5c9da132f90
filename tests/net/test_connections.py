"""What a connection promises, kept by real sockets and by their twin in memory alike."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncray.exceptions import ProtocolError
from asyncray.testing import VirtualLoop
from asyncray.wire.handshake import CONTROL, PEER, TASK, Credentials
from tests.net.worlds import (
    ANSWER,
    CREDENTIALS,
    Host,
    MemoryWorld,
    UnixWorld,
    World,
    answer,
    close,
    connect,
    connected,
)

if TYPE_CHECKING:
    from asyncray.net.connection import Connection


@pytest.fixture(params=["unix", "unix on uvloop", "memory", "memory with delays"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "unix":
        return UnixWorld(asyncio.SelectorEventLoop)
    if request.param == "unix on uvloop":
        return UnixWorld(pytest.importorskip("uvloop").new_event_loop)
    if request.param == "memory":
        return MemoryWorld(asyncio.SelectorEventLoop)
    return MemoryWorld(VirtualLoop, lambda: DELAYS.uniform(0.0, 0.01))


DELAYS = random.Random(3)


# --- messages ---------------------------------------------------------------------------------------------


def test_messages_arrive_in_the_order_sent(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        for number in range(1000):
            left.connection.send(answer(number))
        assert [message[1] for message in await right.hears(1000)] == list(range(1000))
        close(left, right, host)

    world.run(main)


def test_both_ends_talk_at_the_same_time(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        for number in range(100):
            left.connection.send(answer(number))
            right.connection.send(answer(-number))
        assert [message[1] for message in await left.hears(100)] == [-number for number in range(100)]
        assert [message[1] for message in await right.hears(100)] == list(range(100))
        close(left, right, host)

    world.run(main)


def test_what_is_pushed_stays_until_it_is_flushed_and_goes_as_one(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        for number in range(10):
            left.connection.push(answer(number))
        right.connection.send(answer(0))
        await left.hears(1)
        assert right.heard == []
        left.connection.flush()
        assert [message[1] for message in await right.hears(10)] == list(range(10))
        left.connection.flush()  # nothing is left: nothing happens
        close(left, right, host)

    world.run(main)


def test_a_send_takes_what_was_pushed_before_it_along(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        left.connection.push(answer(1))
        left.connection.send(answer(2))
        assert [message[1] for message in await right.hears(2)] == [1, 2]
        close(left, right, host)

    world.run(main)


def test_buffers_travel_beside_their_message(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        left.connection.send(answer(1), [b"first", bytearray(b"second"), memoryview(b"third")])
        await right.hears(1)
        assert right.buffers == [b"first", b"second", b"third"]
        close(left, right, host)

    world.run(main)


def test_a_frame_far_larger_than_any_socket_holds_arrives_whole(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        block = random.Random(0).randbytes(8_000_000)
        left.connection.send(answer(1), [block])
        left.connection.send(answer(2, block[:1_000_000]))
        heard = await right.hears(2)
        assert right.buffers == [block]
        assert heard[1] == answer(2, block[:1_000_000])
        close(left, right, host)

    world.run(main)


def test_many_threads_send_at_once_and_each_one_s_messages_keep_their_order(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)

        def talk(name: int) -> None:
            for number in range(200):
                left.connection.send(answer(name, number))

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard = await right.hears(800)
        for name in range(4):
            assert [number for _, who, number in heard if who == name] == list(range(200))
        close(left, right, host)

    world.run(main)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**40), st.binary(max_size=300), st.booleans()), max_size=20))
def test_whatever_is_sent_is_what_arrives(world: World, messages: list[tuple[int, bytes, bool]]) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        for number, data, beside in messages:
            left.connection.push(answer(number, None if beside else data), [data] if beside else [])
        left.connection.flush()
        heard = await right.hears(len(messages))
        assert heard == [answer(n, None if beside else data) for n, data, beside in messages]
        assert right.buffers == [data for _, data, beside in messages if beside]
        close(left, right, host)

    world.run(main)


# --- the handshake ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", [PEER, TASK, CONTROL])
def test_who_accepts_learns_who_connects_and_what_for(world: World, purpose: str) -> None:
    async def main() -> None:
        host = Host(world.network())
        network = world.network(pid=77)
        left = connect(network, host, purpose)
        right = await host.accepted.get()
        assert host.purposes == [purpose]
        assert right.connection.peer.pid == 77
        assert right.connection.peer.address
        close(left, right, host)

    world.run(main)


def test_messages_may_follow_the_hello_at_once(world: World) -> None:
    async def main() -> None:
        host = Host(world.network())
        left = connect(world.network(), host)
        left.connection.send(answer(1))
        left.connection.send(answer(2))
        right = await host.accepted.get()
        assert await right.hears(2) == [answer(1), answer(2)]
        close(left, right, host)

    world.run(main)


@pytest.mark.parametrize(
    ("credentials", "purpose", "reason"),
    [
        (Credentials(b"session!", b"x" * 32), PEER, "token is wrong"),
        (Credentials(b"another!", b"t" * 32), PEER, "another session"),
        (CREDENTIALS, "curiosity", "purpose"),
    ],
)
def test_who_does_not_belong_is_refused_and_told_why(
    world: World, credentials: Credentials, purpose: str, reason: str
) -> None:
    async def main() -> None:
        host = Host(world.network())
        left = connect(world.network(credentials), host, purpose)
        error = await left.closes()
        assert isinstance(error, ProtocolError)
        assert reason in str(error)
        assert host.accepted.empty()
        close(host)

    world.run(main)


def test_nothing_large_is_taken_before_the_hello(world: World) -> None:
    async def main() -> None:
        host = Host(world.network())
        left = connect(world.network(Credentials(b"x" * 8000, b"t" * 32)), host)
        assert "limit" in str(await left.closes())
        close(host)

    world.run(main)


def test_nobody_listens_is_an_error_at_once(world: World) -> None:
    async def main() -> None:
        host = Host(world.network())
        close(host)
        with pytest.raises(ConnectionError, match="nobody listens"):
            world.network().connect(host.listener.address, PEER)

    world.run(main)


def test_an_address_is_taken_once_and_free_again_after_its_listener(world: World) -> None:
    async def main() -> None:
        network = world.network()
        host = Host(network)
        with pytest.raises(OSError, match=r"in use|taken"):
            Host(network)
        close(host)
        again = Host(network)
        left = connect(world.network(), again)
        right = await again.accepted.get()
        close(left, right, again)

    world.run(main)


def test_connections_outlive_their_listener(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        close(host)
        left.connection.send(answer(1))
        assert await right.hears(1) == [answer(1)]
        close(left, right)

    world.run(main)


# --- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffers", [[bytes(200_000)], []])
def test_what_cannot_be_sent_closes_the_connection_after_what_came_before_it(
    world: World, buffers: list[bytes]
) -> None:
    async def main() -> None:
        left, right, host = await connected(world, limit=100_000)
        left.connection.send(answer(1))
        left.connection.send(answer(2, None if buffers else object()), buffers)
        assert "cannot be sent" in str(await left.closes())
        assert "cannot be sent" in str(await right.closes())
        assert right.heard == [answer(1)]
        close(host)

    world.run(main)


def test_a_frame_over_the_limit_closes_the_connection_and_its_sender_hears_why(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world, limit=100_000)
        right.connection.send(answer(1), [bytes(200_000)])
        assert "limit" in str(await left.closes())
        assert "limit" in str(await right.closes())
        assert left.heard == right.heard == []
        close(host)

    world.run(main)


@pytest.mark.parametrize("message", [[9999], [ANSWER], [ANSWER, "text", None], [ANSWER, 1, None, None]])
def test_a_message_that_is_none_closes_the_connection_and_its_sender_hears_why(
    world: World, message: list[Any]
) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        left.connection.send(answer(0))
        left.connection.send(message)
        left.connection.send(answer(1))
        assert isinstance(await right.closes(), ProtocolError)
        assert isinstance(await left.closes(), ProtocolError)
        assert right.heard == [answer(0)]
        close(host)

    world.run(main)


def test_a_handler_that_refuses_a_message_closes_the_connection(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)

        def refuse(connection: Connection, message: list[Any], buffers: list[memoryview]) -> None:
            raise ProtocolError("I did not ask for this")

        right.connection.on_message = refuse
        left.connection.send(answer(1))
        assert "did not ask" in str(await right.closes())
        assert "did not ask" in str(await left.closes())
        close(host)

    world.run(main)


# --- slow readers -----------------------------------------------------------------------------------------


def test_who_pauses_hears_nothing_until_it_resumes(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        right.connection.pause_reading()
        left.connection.send(answer(1))
        left.connection.send(answer(2))
        right.connection.send(answer(3))
        await left.hears(1)
        assert right.heard == []
        right.connection.resume_reading()
        assert await right.hears(2) == [answer(1), answer(2)]
        right.connection.resume_reading()  # twice is as once
        close(left, right, host)

    world.run(main)


def test_what_a_slow_reader_does_not_take_is_counted_and_goes_when_it_reads(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        right.connection.pause_reading()
        block = bytes(100_000)
        for number in range(100):
            left.connection.send(answer(number), [block])
        assert 1_000_000 < left.connection.unsent_bytes <= 100 * 100_100
        assert right.heard == []
        right.connection.resume_reading()
        assert [message[1] for message in await right.hears(100)] == list(range(100))
        left.connection.send(answer(100))
        await right.hears(101)
        assert left.connection.unsent_bytes == 0
        close(left, right, host)

    world.run(main)


def test_who_closes_while_the_other_end_is_slow_frees_what_was_unsent(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        right.connection.pause_reading()
        left.connection.send(answer(1), [bytes(10_000_000)])
        assert left.connection.unsent_bytes
        close(left)
        assert left.connection.unsent_bytes == 0
        right.connection.resume_reading()
        await right.closes()
        assert right.heard == []
        close(host)

    world.run(main)


def test_drain_handles_what_has_arrived_at_once(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        for number in range(10):
            left.connection.send(answer(number))
        right.connection.drain()
        assert [message[1] for message in right.heard] == list(range(10))
        right.connection.drain()
        assert len(right.heard) == 10
        close(left, right, host)

    world.run(main)


# --- the end ----------------------------------------------------------------------------------------------


def test_what_was_sent_before_the_end_arrives_before_the_end(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        for number in range(100):
            left.connection.send(answer(number))
        close(left)
        assert await right.closes() is None
        assert [message[1] for message in right.heard] == list(range(100))
        close(host)

    world.run(main)


def test_who_closes_is_told_once_and_may_close_again(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        close(left, left)
        assert await left.closes() is None
        assert await right.closes() is None
        close(left, right, host)
        assert len(left.closings) == len(right.closings) == 1

    world.run(main)


def test_a_close_with_a_reason_tells_the_other_end(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        left.connection.close(ProtocolError("that was enough"))
        assert "that was enough" in str(await right.closes())
        assert "that was enough" in str(await left.closes())
        close(host)

    world.run(main)


def test_nothing_leaves_a_closed_connection(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        close(left)
        left.connection.send(answer(1))
        left.connection.push(answer(2))
        left.connection.flush()
        assert await right.closes() is None
        assert right.heard == []
        close(host)

    world.run(main)


def test_a_process_that_dies_without_a_word_is_noticed(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        left.connection.send(answer(1))
        right.connection.pause_reading()
        right.connection.resume_reading()
        # What the kernel does with the sockets of a process that was killed.
        left.connection.pause_reading()
        left.connection.abandon()
        assert await right.closes() is None
        assert right.heard == [answer(1)]
        assert left.connection.closed
        close(host)

    world.run(main)


def test_who_writes_to_the_dead_hears_of_the_end_and_of_what_came_before_it(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        right.connection.pause_reading()
        left.connection.send(answer(1))
        left.connection.pause_reading()
        left.connection.abandon()
        for number in range(10):
            right.connection.send(answer(number), [bytes(100_000)])
        await right.closes()
        assert right.heard == [answer(1)]
        close(host)

    world.run(main)


def test_a_connection_may_be_closed_inside_its_own_handler(world: World) -> None:
    async def main() -> None:
        left, right, host = await connected(world)
        heard: list[Any] = []

        def last_word(connection: Connection, message: list[Any], buffers: list[memoryview]) -> None:
            heard.append(message)
            connection.close()

        right.connection.on_message = last_word
        for number in range(10):
            left.connection.push(answer(number))
        left.connection.flush()
        assert await right.closes() is None
        await left.closes()
        assert heard == [answer(0)]
        close(host)

    world.run(main)


def test_a_listener_that_closes_sends_away_who_has_not_said_hello(world: World) -> None:
    async def main() -> None:
        host = Host(world.network())
        left = connect(world.network(), host)
        close(host)
        await left.closes()
        assert host.accepted.empty()

    world.run(main)
