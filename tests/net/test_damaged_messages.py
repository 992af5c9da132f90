"""Messages that are well framed and wrong: only a ProtocolError comes of them, and nothing is lost."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from asyncray.client import actors
from asyncray.exceptions import ProtocolError
from asyncray.state.actors import ALIVE
from asyncray.wire import messages as m
from tests.net.actor_rigs import SHAPE, ActorsRig, HostRig, Plain, generator
from tests.net.damage import (
    FROM_HOST,
    FROM_WORKER,
    PEERS,
    TO_DRIVER,
    TO_HOST,
    TO_NODE,
    TO_WORKER,
    WORKERS_PEERS,
    said_on,
)
from tests.net.rigs import PAGE, PEER, UNITS, AsyncRig, NodeRig, SessionRig, SyncRig, Wire, loop_of_a_process

SETTINGS = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def say(connections: list[Wire], said: tuple[int, list[Any], list[bytes], bool]) -> None:
    """Say one thing on one of the connections, once or twice."""
    which, message, buffers, twice = said
    connection = connections[which % len(connections)]
    for _ in range(2 if twice else 1):
        connection.arrive(message, buffers)
    assert connection.error is None or isinstance(connection.error, ProtocolError)


# --- the receivers --------------------------------------------------------------------------------------


@SETTINGS
@given(said_on(TO_NODE, TO_NODE, TO_NODE))
def test_a_node_lives_through_anything_and_keeps_its_books(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = NodeRig(loop)
        rig.register_all()
        rig.driver.arrive([m.WANT, 0, ["sync", {"CPU": UNITS}, b"", True], 3, "task"])
        for one in said:
            say(rig.connections(), one)
            rig.node.scheduler.validate()
        if rig.driver.closed or rig.node._stopping is not None:
            return
        for process in list(rig.node.pool.processes.values()):
            rig.node.pool.kill(process, "killed", "by the test")
            rig.node.scheduler.validate()
        grants = len(rig.driver.sent)
        rig.driver.arrive([m.WANT, 77, ["sync", {}, b"", True], 1, "after"])
        rig.register_all()
        assert m.GRANT in {message[0] for message in rig.driver.sent[grants:]}


@SETTINGS
@given(said_on(TO_DRIVER, FROM_WORKER, PEERS))
def test_a_driver_lives_through_anything_and_loses_no_task(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = SessionRig(loop)
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
            assert rig.unreachable() == []
        rig.session.close()
        assert all(ref.done() for ref in rig.refs)


async def turns() -> None:
    """Let what was posted run."""
    import asyncio

    for _ in range(3):
        await asyncio.sleep(0)


def describe_all(owner: Wire, function: Any) -> None:
    """Tell a worker of a function, an actor's class, a method of it, and a generator."""
    owner.arrive([m.DESCRIBE, 1, b"", pickle.dumps(function), {"resources": {}}])
    owner.arrive([m.DESCRIBE, 2, b"", pickle.dumps(Plain), {"constructs": True}])
    owner.arrive([m.DESCRIBE, 3, b"", b"", {"method": "m"}])
    owner.arrive([m.DESCRIBE, 4, b"", pickle.dumps(generator), {"stream": 2}])


async def coroutine(*args: Any) -> Any:
    return args


@SETTINGS
@given(said_on(TO_WORKER, WORKERS_PEERS))
def test_an_async_worker_lives_through_anything(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = AsyncRig(loop)
        describe_all(rig.owner, coroutine)
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
        rig.session.close()


@SETTINGS
@given(said_on(TO_WORKER, WORKERS_PEERS))
def test_a_sync_worker_lives_through_anything(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = SyncRig(loop)
        describe_all(rig.owner, str)
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
            rig.run_all()
        rig.session.close()


@SETTINGS
@given(said_on(TO_DRIVER, FROM_WORKER, FROM_HOST, PEERS))
def test_an_owner_of_actors_lives_through_anything_and_loses_no_call(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = ActorsRig(loop)
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
            assert rig.unreachable() == []
        rig.session.close()
        loop.run_until_complete(turns())
        assert all(ref.done() for ref in rig.refs)


@SETTINGS
@given(said_on(TO_HOST, TO_HOST, WORKERS_PEERS))
def test_a_host_of_light_actors_lives_through_anything_and_keeps_its_books(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = HostRig(loop)
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
        rig.end()
        loop.run_until_complete(turns())
        assert rig.left() == []


# --- those that once did harm ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [[m.GRANT, -1, 9, "", b"", 1], [m.GRANT, 5, 9, "", b"", 1], [m.DENIED, -1, "no"]]
)
def test_a_class_that_does_not_exist_is_not_taken_for_another(message: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = SessionRig(loop)
        rig.control.arrive(message)
        assert "which does not exist" in str(rig.control.error)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([3, m.MANY, [1]], "has 2 returns, not the 1 of its result"),
        ([3, m.MANY, [1, 2, 3]], "has 2 returns, not the 3 of its result"),
        ([3, m.OK, 1], "has 2 returns, not the 1 of its result"),
        ([1, m.MANY, [1]], "has 1 returns, not the 1 of its result"),
        ([1, m.ERROR, 7], "a failure in RESULTS comes as a pickled error, not as int"),
        ([1, 9, None], "cannot have the status 9"),
    ],
)
def test_a_result_that_does_not_fit_leaves_its_task_to_run_again(row: list[Any], why: str) -> None:
    with loop_of_a_process() as loop:
        rig = SessionRig(loop)
        before = {number for lease in rig.session.leases._leases.values() for number in lease.in_flight}
        assert row[0] in before
        rig.link.arrive([m.RESULTS, [row], 0.0])
        assert why in str(rig.link.error)
        assert rig.unreachable() == []
        loop.run_until_complete(turns())
        assert [m.KILL, 1] in rig.control.sent
        rig.control.arrive([m.LOST, 1, "killed", "by its caller's wish", -1])
        assert rig.unreachable() == []
        rig.control.arrive([m.GRANT, 0, 2, "worker", b"v" * 16, 2])
        again = {
            task[0] for message in rig.network.made[-1].sent if message[0] == m.TASKS for task in message[1]
        }
        assert again == before


def test_a_lease_that_is_granted_twice_is_an_error() -> None:
    with loop_of_a_process() as loop:
        rig = SessionRig(loop)
        rig.control.arrive([m.GRANT, 0, 1, "worker", b"w" * 16, 2])
        assert str(rig.control.error) == "lease 1 was granted twice"


def test_a_worker_cannot_register_as_another() -> None:
    with loop_of_a_process() as loop:
        rig = NodeRig(loop)
        first, second = rig.connections()[1:]
        first.arrive([m.REGISTER, 1, "there", b"o" * 16])
        assert "with an id that is none, or another's" in str(first.error)
        second.arrive([m.REGISTER, 1, "there", b"1" * 16])
        assert str(second.error) == "worker 2 registers as worker 1"
        assert not rig.driver.closed


@pytest.mark.parametrize("message", [[m.STOP], [m.LOGGED, 5]])
def test_a_worker_cannot_speak_for_the_driver(message: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = NodeRig(loop)
        rig.register_all()
        worker = rig.connections()[1]
        worker.arrive(message)
        assert str(worker.error) == "a worker sends what only a driver may"
        assert len(rig.node.pool.processes) == 1


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ([m.ACTOR_LEAVES, "bye"], "says that it is an actor"),
        ([m.HANDBACK, [14], m.RECALLED], "hands calls back"),
        ([m.LIGHT_GONE, [9], False], "turned away a light actor that was to be made"),
        ([m.LIGHT_ENDED, [[6, "x", "why"]]], "told by its number, its life and a reason"),
        ([m.LIGHT_ENDED, [[6, 0, 7]]], "told by its number, its life and a reason"),
        ([m.LIGHT_ENDED, []], "answers what it was not told"),
        ([m.LIGHT_GONE, [], False], "answers what it was not asked"),
    ],
)
def test_a_host_that_says_what_cannot_be_loses_its_connection_and_no_call(
    message: list[Any], why: str
) -> None:
    with loop_of_a_process() as loop:
        rig = ActorsRig(loop)
        rig.of_host.arrive(message)
        loop.run_until_complete(turns())
        assert why in str(rig.of_host.error)
        assert rig.unreachable() == []


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ([m.HOST_AT, b"", 0, "there", b"x" * 16, 7], "of which it was not asked"),
        ([m.HOST_AT, b"", 7, "there", b"x" * 16, 7], "of which it was not asked"),
        ([m.HOST_DENIED, b"", 0, "no"], "of which it was not asked"),
        ([m.HOST_DENIED, b"", 7, "no"], "of which it was not asked"),
        ([m.HOST_LOST, b"", "died", "why"], "and not which"),
        ([m.GRANT, 1, 9, "there", b"h" * 16, 7], "was said to be another one"),
        ([m.EXTENTS, 1, [[0, 2 * PAGE << 20]]], "no part of a store"),
        ([m.EXTENTS, 1, [[-PAGE, PAGE]]], "no part of a store"),
        ([m.EXTENTS, 1, [[0, PAGE], [0, PAGE]]], "grants a part of the store twice"),
    ],
)
def test_a_node_that_says_what_cannot_be_ends_the_session(message: list[Any], why: str) -> None:
    with loop_of_a_process() as loop:
        rig = ActorsRig(loop)
        rig.control.arrive(message)
        assert why in str(rig.control.error)
        assert all(ref.done() for ref in rig.refs)


@pytest.mark.parametrize("state", [[], {}, 1.5, "ALIVE", 9])
def test_a_light_actor_is_in_a_state_that_there_is(state: Any) -> None:
    with loop_of_a_process() as loop:
        rig = ActorsRig(loop)
        rig.peer.arrive([m.LIGHT_AT, [[5, state, None]]])
        assert str(rig.peer.error) == "a light actor cannot stand like that"
        assert rig.unreachable() == []


def test_an_actor_is_not_where_another_one_is() -> None:
    with loop_of_a_process() as loop:
        rig = ActorsRig(loop)
        rig.peer.arrive([m.ACTOR_AT, 6, 1, ALIVE, "there", b"w" * 16, 7, None])
        assert "was said to be another one" in str(rig.peer.error)
        assert rig.unreachable() == []


def test_calls_that_wait_when_the_connection_with_the_actors_owner_breaks_are_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actors, "_CONNECT_AGAIN_S", 0.0)
    with loop_of_a_process() as loop:
        rig = ActorsRig(loop)
        assert [m.ACTOR_WHERE, 6] in rig.peer.sent
        rig.peer.arrive([m.ACTOR_AT, 6, 1, 99, "", b"", 0, None])
        assert rig.peer.error is not None
        loop.run_until_complete(turns())
        assert [m.ACTOR_WHERE, 6] in rig.network.made[-1].sent


@pytest.mark.parametrize("kind", [m.ACTOR_WHERE, m.LIGHT_WHERE])
def test_a_task_that_has_failed_is_no_actor_of_which_somebody_can_ask(kind: int) -> None:
    with loop_of_a_process() as loop:
        rig = SessionRig(loop)
        failure = [pickle.dumps(ValueError("x")), 0, [[PEER.process_id, "peer", 9]]]
        rig.link.arrive([m.RESULTS, [[1, m.ERROR, failure]], 0.0])
        rig.peer.arrive([m.ACTOR_WHERE, 1] if kind == m.ACTOR_WHERE else [m.LIGHT_WHERE, [1], b""])
        answer = rig.peer.sent[-1]
        assert rig.peer.error is None
        assert answer[0] == kind + 1


@pytest.mark.parametrize(
    "extras",
    [
        None,
        {"actor": {"where": [b"q" * 16, "peer", 1], "life": 0, "name": None}},
        {"actor": {"shape": SHAPE.to_wire(), "where": [b"q" * 16], "life": 0, "name": None}},
        {"actor": {"shape": SHAPE.to_wire(), "where": [b"q" * 16, "peer", 1], "life": "0", "name": None}},
        {"actor": {"shape": SHAPE.to_wire(), "where": [b"q" * 16, "peer", 1], "life": 0, "name": ["a"]}},
    ],
)
def test_a_constructor_that_does_not_say_which_actor_makes_none(extras: Any) -> None:
    with loop_of_a_process() as loop:
        rig = AsyncRig(loop)
        describe_all(rig.owner, coroutine)
        rig.owner.arrive([m.TASKS, [[1, 2, None, None, extras]]])
        assert isinstance(rig.owner.error, ProtocolError)
        loop.run_until_complete(turns())
        assert rig.session.hosting.shape is None


@pytest.mark.parametrize(
    "shape",
    [
        ["A", {}, True, 0, {}, b""],
        ["A", {}, True, 1, {"io": "many"}, b""],
        ["A", {}, True, 1, {"io": 0}, b""],
        ["A", {}, True, 1, {2: 2}, b""],
        ["A", {"m": 3}, True, 1, {}, b""],
        ["A", {}, True, True, {}, b""],
    ],
)
def test_a_class_with_impossible_groups_is_not_taken(shape: Any) -> None:
    with loop_of_a_process() as loop:
        rig = HostRig(loop)
        rig.owner.arrive([m.DESCRIBE, 9, b"", pickle.dumps(Plain), {"light": shape}])
        assert isinstance(rig.owner.error, ProtocolError)


def test_a_call_that_waits_at_its_light_actor_is_not_taken_twice() -> None:
    with loop_of_a_process() as loop:
        rig = HostRig(loop)
        for light in (1, 2):  # the first is busy: what comes waits
            rig.owner.arrive([m.TASKS, [[8, 3, None, None, {"light": light}]]])
        for number in (3, 4, 5, 8):
            loop.run_until_complete(turns())
            rig.peer.arrive([m.CANCEL, number, False, True])
        loop.run_until_complete(turns())
        rows = [row[0] for message in rig.owner.sent if message[0] == m.RESULTS for row in message[1]]
        assert rows.count(8) == 1


def test_the_numbers_that_a_host_gives_itself_are_not_for_callers() -> None:
    with loop_of_a_process() as loop:
        rig = HostRig(loop)
        rig.owner.arrive([m.TASKS, [[-1, 3, None, None, {"light": 2}]]])
        assert str(rig.owner.error) == "a call cannot have the number -1"


@pytest.mark.parametrize(
    "message",
    [
        [m.NEED, 1, 0, 1],
        [m.NEED, 1, PAGE, 0],
        [m.NEED, 1, PAGE, 2**63],
        [m.TOLD, 1, []],
        [m.TOLD, 1, ["x"]],
        [m.TOLD, 1, [1, [b"id", 3, "store", 1, [7], ""]]],
        [m.TOLD, 1, [0, [b"id", 3, "store", 1, [], ""]]],
        [m.HOST_WANTED, b"\xc1", 0],
        [m.HOST_WANTED, b"", -1],
    ],
)
def test_a_worker_that_asks_for_what_cannot_be_leaves_no_trace_in_the_books(message: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = NodeRig(loop)
        rig.register_all()
        worker = rig.connections()[1]
        worker.arrive(message)
        assert isinstance(worker.error, ProtocolError)
        assert rig.node.hosts._hosts == {}
        assert rig.node.grants.usage().taken == 0


def test_a_call_that_waits_at_its_actor_is_not_taken_twice() -> None:
    with loop_of_a_process() as loop:
        rig = AsyncRig(loop)
        describe_all(rig.owner, coroutine)
        rig.owner.arrive([m.TASKS, [[1, 3, None, None, None], [1, 1, None, None, None]]])
        loop.run_until_complete(turns())
        made = {"shape": ["Plain", {}, True, 2, {}, b""], "where": [PEER.process_id, "peer", 1], "life": 0}
        rig.owner.arrive([m.TASKS, [[2, 2, None, None, {"actor": {**made, "name": None}}]]])
        loop.run_until_complete(turns())
        rows = [row[0] for message in rig.owner.sent if message[0] == m.RESULTS for row in message[1]]
        assert sorted(rows) == [1, 2]


@pytest.mark.parametrize("answer", [None, 1, b"x", {}, {"processes": []}, {"processes": [1]}])
def test_a_node_that_answers_what_is_no_answer_ends_the_session(answer: Any) -> None:
    with loop_of_a_process() as loop:
        rig = SessionRig(loop)
        rig.control.arrive([m.STALLED])
        (asked,) = [message for message in rig.control.sent if message[0] == m.ASK]
        rig.control.arrive([m.ANSWER, asked[1], answer])
        assert isinstance(rig.control.error, ProtocolError)
        assert all(ref.done() for ref in rig.refs)
