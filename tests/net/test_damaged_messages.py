"""Messages that are well framed and wrong: only a ProtocolError comes of them, and nothing is lost."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncray.exceptions import ProtocolError
from asyncray.wire import messages as m
from tests.net.rigs import PEER, UNITS, AsyncRig, NodeRig, SessionRig, SyncRig, Wire, loop_of_a_process

SETTINGS = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])

# --- anything, and what is almost right ---------------------------------------------------------------------

NUMBERS = st.integers(-2, 9) | st.sampled_from([2**31, 2**63 - 1, 2**64 - 1, -(2**63)])
ATOMS = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
ANYTHING = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PROCESSES = st.sampled_from([b"", b"o" * 16, PEER.process_id, b"w" * 16, b"0000000000000001", b"x"])
ADDRESSES = st.tuples(PROCESSES, st.sampled_from(["", "peer"]), NUMBERS).map(list) | ANYTHING
PICKLED: list[Any] = [1, ([], {}), ([1], {}), ValueError("x"), (1, 2, 3)]
PICKLES = st.sampled_from(
    [
        b"",
        b"junk",
        *(pickle.dumps(value, 5) for value in PICKLED),
    ]
)
PAYLOADS = (
    ANYTHING | PICKLES | st.tuples(PICKLES, st.integers(-1, 2), st.lists(ADDRESSES, max_size=2)).map(list)
)
ARGUMENTS = ANYTHING | PAYLOADS | PAYLOADS.map(lambda payload: [payload])
PLACES = st.lists(
    st.tuples(st.integers(-3, 3) | st.text(max_size=2) | ANYTHING, PAYLOADS | ARGUMENTS).map(list), max_size=2
)
EXTRAS = ANYTHING | st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2)
ROWS = {
    "TASKS": st.tuples(NUMBERS, st.integers(1, 3) | ANYTHING, ARGUMENTS, PLACES | ANYTHING, EXTRAS),
    "RESULTS": st.tuples(NUMBERS, st.integers(0, 6) | ANYTHING, PAYLOADS | st.lists(PAYLOADS, max_size=3)),
    "VALUES": st.tuples(NUMBERS, st.integers(0, 6) | ANYTHING, PAYLOADS),
}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "returns": st.integers(0, 2) | ANYTHING,
        "max_calls": st.integers(0, 2) | ANYTHING,
        "retry": st.booleans() | PICKLES | ANYTHING,
        "resources": st.dictionaries(st.text(max_size=3), st.floats(), max_size=2) | ANYTHING,
        "refs": st.lists(ADDRESSES, max_size=2) | ANYTHING,
        "name": st.text(max_size=3) | ANYTHING,
    },
)
UNITS_BY_NAME = st.dictionaries(
    st.sampled_from(["CPU", "GPU", "x"]),
    st.sampled_from([0, 1, UNITS, 2 * UNITS, 15_000, -1]) | ATOMS,
    max_size=2,
)
DESCRIPTIONS = st.tuples(
    st.sampled_from(["sync", "async", "other"]) | ANYTHING,
    UNITS_BY_NAME | ANYTHING,
    st.sampled_from([b"", b"\x80", b"\xc1", b"\x81\xa8env_vars\x90"]) | ANYTHING,
    st.booleans() | ANYTHING,
).map(list)
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    str: st.sampled_from(["", "worker", "runtime_env: bad", "available_resources", "stdout"]),
    bytes: PROCESSES | PICKLES,
    bool: st.booleans(),
    dict: OPTIONS | st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2),
    list: DESCRIPTIONS | st.lists(NUMBERS | ANYTHING, max_size=3),
    object: ANYTHING,
    m._NUMBER: st.floats(0, 10) | NUMBERS,
    m._SIGNED: st.floats() | NUMBERS,
    m._SIGNED_OR_NONE: st.floats() | NUMBERS | st.none(),
    (list, type(None)): DESCRIPTIONS | st.none(),
    (bytes, type(None)): PICKLES | st.none(),
}


def lists_of(name: str) -> st.SearchStrategy[Any]:
    """Rows as the message has them, and others."""
    rows = ROWS[name].map(list) if name in ROWS else NUMBERS
    return (
        st.lists(rows | ANYTHING, max_size=3)
        if name not in ROWS
        else st.lists(rows, max_size=3) | FIELDS[list]
    )


def message_of(number: int) -> st.SearchStrategy[list[Any]]:
    """A message with fields of the right types."""
    name, types = m.SCHEMAS[number]
    fields = [lists_of(name) if kind is list else FIELDS[kind] for kind in types]
    return st.tuples(st.just(number), *fields).map(list)


WELL_TYPED = st.sampled_from(sorted(m.SCHEMAS)).flatmap(message_of)
MESSAGES = (
    WELL_TYPED | st.tuples(st.integers(-1, 80)).map(list) | st.lists(ANYTHING).map(lambda rest: [3, *rest])
)
PEERS = [m.GET, m.VALUES, m.BORROW, m.BORROWED, m.RELEASE, m.UNPIN, m.CANCEL_OBJECT, m.RECALL, m.CANCEL]
TO_NODE = [m.WANT, m.RANK, m.RETURN, m.KILL, m.BLOCKED, m.KEEP, m.ASK, m.LOGGED, m.REGISTER, m.BROKEN]
TO_DRIVER = [m.GRANT, m.LOST, m.WANTED, m.DENIED, m.ANSWER]
TO_WORKER = [m.DESCRIBE, m.TASKS, m.FORGET]


def said_on(*expected: list[int]) -> st.SearchStrategy[Any]:
    """Things to say, each on one of several connections: mostly a message that is expected there."""

    def on(which: int) -> st.SearchStrategy[Any]:
        message = st.sampled_from(expected[which]).flatmap(message_of)
        buffers = st.lists(st.binary(max_size=3), max_size=2)
        return st.tuples(st.just(which), message | message | message | MESSAGES, buffers, st.booleans())

    return st.lists(st.integers(0, len(expected) - 1).flatmap(on), max_size=12)


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
@given(said_on(TO_DRIVER, [m.RESULTS, m.HANDBACK], PEERS))
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


@SETTINGS
@given(said_on(TO_WORKER, PEERS))
def test_an_async_worker_lives_through_anything(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = AsyncRig(loop)
        rig.owner.arrive([m.DESCRIBE, 1, b"", pickle.dumps(coroutine), {"resources": {}}])
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
        rig.session.close()


@SETTINGS
@given(said_on(TO_WORKER, PEERS))
def test_a_sync_worker_lives_through_anything(said: list[Any]) -> None:
    with loop_of_a_process() as loop:
        rig = SyncRig(loop)
        rig.owner.arrive([m.DESCRIBE, 1, b"", pickle.dumps(str), {"resources": {}}])
        for one in said:
            say(rig.connections(), one)
            loop.run_until_complete(turns())
            rig.run_all()
        rig.session.close()


async def coroutine(*args: Any) -> Any:
    return args


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
