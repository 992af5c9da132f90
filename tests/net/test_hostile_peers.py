"""Whatever a socket is told, its process lives on, says what was wrong, and gets its work done."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.net.stream import UnixNetwork
from asyncray.process import current
from asyncray.wire import messages as m
from asyncray.wire.handshake import (
    CONTROL,
    HELLO,
    HELLO_BYTES,
    PEER,
    PROTOCOL_VERSION,
    REFUSED,
    TASK,
    WELCOME,
    Credentials,
    Identity,
)
from tests.cluster.doors import Doors
from tests.net.strangers import GARBAGE, LIMIT_S, Stranger, announcing, frame, greeting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncray.client.session import Session

NOBODY_UID = 65534
NOT_MSGPACK = announcing(4) + b"\xc1" * 4
LISTENERS = ["driver", "sync worker", "async worker"]


def session() -> Session:
    found = current().session
    assert found is not None
    return found


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
def where_sync() -> str:
    return session().identity.address


@ray.remote
async def where_async() -> str:
    return session().identity.address


@pytest.fixture(autouse=True)
def work_goes_on(shared_ray: object) -> Iterator[None]:
    """Whatever a test has said, tasks run after it."""
    yield
    assert ray.get([same.remote(position) for position in range(20)], timeout=LIMIT_S) == list(range(20))


@pytest.fixture
def address(shared_ray: object, request: pytest.FixtureRequest) -> str:
    """Where the listener of the parameter listens."""
    if request.param == "driver":
        return session().identity.address
    task = where_sync if request.param == "sync worker" else where_async
    return str(ray.get(task.remote(), timeout=LIMIT_S))


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    made = Doors(tmp_path)
    yield made
    made.close()


def credentials() -> Credentials:
    return session().network.credentials  # type: ignore[attr-defined, no-any-return]


# --- the hello --------------------------------------------------------------------------------------------

HELLOS: dict[str, tuple[list[Any] | bytes, str]] = {
    "garbage": (GARBAGE, "a frame announces 6501401474 bytes; the limit is 4096"),
    "an oversized frame": (announcing(HELLO_BYTES + 1), f"a frame announces {HELLO_BYTES + 1} bytes"),
    "no msgpack": (NOT_MSGPACK, "a frame's header is not msgpack"),
    "no list": (announcing(1) + b"\x01", "a message is a list that begins with its number, not int"),
    "another message": ([m.STOP], f"must begin with a hello, not with message number {m.STOP}"),
    "another version": (
        [HELLO, PROTOCOL_VERSION + 1],
        f"speaks protocol version {PROTOCOL_VERSION + 1}; this",
    ),
    "no fields": ([HELLO, PROTOCOL_VERSION], "a hello has the wrong fields"),
    "an answer": ([WELCOME, PROTOCOL_VERSION], f"must begin with a hello, not with message number {WELCOME}"),
}


@pytest.mark.parametrize("address", LISTENERS, indirect=True)
@pytest.mark.parametrize("what", HELLOS)
def test_a_connection_that_does_not_begin_with_a_hello_is_closed_with_the_reason(
    address: str, what: str
) -> None:
    said, why = HELLOS[what]
    with Stranger(address, said) as stranger:
        assert why in stranger.refusal()


@pytest.mark.parametrize("address", LISTENERS, indirect=True)
@pytest.mark.parametrize("purpose", [PEER, TASK])
def test_a_wrong_token_and_another_session_are_refused(address: str, purpose: str) -> None:
    ours = credentials()
    for wrong, why in (
        (Credentials(ours.session_id, b"guess" * 8), "the peer's token is wrong"),
        (Credentials(ours.session_id, b""), "the peer's token is wrong"),
        (Credentials(b"another session", ours.token), "the peer belongs to another session"),
    ):
        # What follows the hello must have no effect.
        with Stranger(address, greeting(wrong, purpose), [m.BORROW, 1, [1]]) as stranger:
            assert stranger.refusal() == why


@pytest.mark.parametrize("address", LISTENERS, indirect=True)
def test_a_purpose_that_the_listener_does_not_serve_is_refused(address: str) -> None:
    with Stranger(address, greeting(credentials(), "gossip")) as stranger:
        assert "a connection's purpose is one of" in stranger.refusal()
    with Stranger(address, greeting(credentials(), CONTROL)) as stranger:
        assert stranger.refusal() == "this process takes no connections for 'control'"
    if address == session().identity.address:
        with Stranger(address, greeting(credentials(), TASK)) as stranger:
            assert stranger.refusal() == "this process takes no connections for 'task'"


@pytest.mark.parametrize("address", LISTENERS, indirect=True)
def test_who_says_nothing_or_half_a_hello_holds_nobody_up(address: str) -> None:
    good = frame(greeting(credentials(), PEER))
    with Stranger(address), Stranger(address, good[:5]), Stranger(address, good[:-1]) as slow:
        with Stranger(address, good) as quick:
            assert quick.hear() == [WELCOME, PROTOCOL_VERSION]
        slow.say(good[-1:])
        assert slow.hear() == [WELCOME, PROTOCOL_VERSION]


@pytest.mark.parametrize("said", [b"", announcing(100), announcing(100) + b"\x98"])
async def test_who_says_nothing_or_half_a_hello_is_not_waited_for_for_ever(said: bytes) -> None:
    identity = Identity(b"p" * 16, f"silent-{os.getpid()}", 1)
    network = UnixNetwork(asyncio.get_running_loop(), Credentials(b"s", b"t"), identity, 1 << 16)
    network.hello_timeout_s = 0.05
    listener = network.listen(lambda connection, purpose: connection.close())
    try:
        for more, heard in (
            (b"", frame([REFUSED, "no hello came within 0.05 s"])),
            (frame(greeting(network.credentials, PEER)), frame([WELCOME, PROTOCOL_VERSION])),
        ):
            reader, writer = await asyncio.open_unix_connection("\0" + listener.address)
            writer.write(more or said)
            assert await asyncio.wait_for(reader.read(), LIMIT_S) == heard
            writer.close()
            await writer.wait_closed()
    finally:
        listener.close()


FOREIGNER = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
os.setuid(int(sys.argv[1]))
sock.settimeout(20)
sock.connect("\\0" + sys.argv[2])
try:
    sock.sendall(bytes.fromhex(sys.argv[3]))
except BrokenPipeError:
    pass
heard = b""
try:
    while data := sock.recv(4096):
        heard += data
except ConnectionResetError:
    pass
sys.stdout.buffer.write(heard)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("address", LISTENERS, indirect=True)
def test_a_foreign_user_is_refused_even_with_the_right_token(address: str) -> None:
    good = frame(greeting(credentials(), PEER)).hex()
    command = [sys.executable, "-c", FOREIGNER, str(NOBODY_UID), address, good]
    heard = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=True).stdout
    assert f"is not for foreign uid {NOBODY_UID}".encode() in heard


# --- after the hello ---------------------------------------------------------------------------------------

#: What no peer may say to anybody.
TO_ANYBODY: list[tuple[list[Any] | bytes, str]] = [
    (GARBAGE, "a frame announces"),
    (NOT_MSGPACK, "a frame's header is not msgpack"),
    (announcing(2**32 - 1, 2**32 - 1), "a frame announces 8589934590 bytes; the limit is"),
    (announcing(1, 4) + b"\x90" + b"\xff" * 4, "a message is a list"),
    (announcing(2, 4) + b"\x91\x3f" + b"\xff" * 4, "no room for the 4294967295 sizes"),
    ([0], "does not send message number 0"),
    ([-5, 1], "does not send message number -5"),
    ([9], "does not send message number 9"),
    ([99], "unknown message number 99"),
    ([2**63], "unknown message number"),
    ([HELLO, PROTOCOL_VERSION], "does not send message number 1"),
    ([m.GET], "GET has 2 fields, not 0"),
    ([m.GET, [], 0, 1], "GET has 2 fields, not 3"),
    ([m.GET, {}, 0], "field 1 of GET cannot be dict"),
    ([m.GET, [None], 0], "GET carries something that is not a number"),
    ([m.GET, [1], -1], "GET carries something that is not a number"),
    ([m.BORROW, 1, [1, -2]], "BORROW carries something that is not a number"),
    ([m.BORROW, 1, [[1]]], "BORROW carries something that is not a number"),
    ([m.RELEASE, ["1"]], "RELEASE carries something that is not a number"),
    ([m.RELEASE, [1, 1, 2]], "RELEASE carries a number without how many notes are given up"),
    ([m.UNPIN, "1"], "field 1 of UNPIN cannot be str"),
    ([m.VALUES, [[1, 0]]], "a row of VALUES is not a list of 3"),
    ([m.VALUES, [["1", 0, 0]]], "a row of VALUES is not a list of 3"),
    ([m.VALUES, [[1, 9, 0]]], "a row of VALUES cannot have the status 9"),
    ([m.VALUES, [[1, [], 0]]], "a row of VALUES cannot have the status []"),
    ([m.VALUES, [[1, 1, 0]]], "a failure in VALUES comes as a pickled error, not as int"),
    ([m.VALUES, [[1, 0, {}]]], "a value cannot travel as dict"),
    ([m.VALUES, [[1, 0, [b"", 1, []]]]], "more buffers than its frame carries"),
    ([m.VALUES, [[1, 0, [b"", -1, []]]]], "more buffers than its frame carries"),
    ([m.VALUES, [[1, 0, [b"", 0, [[1, 2, 3]]]]]], "a reference is a process id, an address and a number"),
    (
        [m.VALUES, [[1, 0, [b"", 0, [[b"x", "y", -1]]]]]],
        "a reference is a process id, an address and a number",
    ),
    ([m.GRANT, 1, 1, "", b"", 1], "does not send message number 13"),
    ([m.STOP], "does not send message number 21"),
    ([m.TASKS, []], "does not send message number 41"),
    ([m.RESULTS, [], 0.0], "does not send message number 42"),
    ([m.CANCEL, 1, 1, 1], "field 2 of CANCEL cannot be int"),
]


@pytest.mark.parametrize("address", LISTENERS, indirect=True)
def test_a_peer_that_says_what_none_may_is_told_so(address: str) -> None:
    for said, why in TO_ANYBODY:
        with Stranger(address, greeting(credentials(), PEER), said, [m.GET, [1], 0]) as stranger:
            assert why in stranger.refusal(), said


@pytest.mark.parametrize("address", ["driver"], indirect=True)
@pytest.mark.parametrize("said", [[m.RECALL], [m.CANCEL, 1, True, True]])
def test_nobody_recalls_or_cancels_in_a_driver(address: str, said: list[Any]) -> None:
    with Stranger(address, greeting(credentials(), PEER), said) as stranger:
        assert "does not send message number" in stranger.refusal()


@pytest.mark.parametrize("address", LISTENERS, indirect=True)
def test_numbers_of_things_that_nobody_knows_change_nothing(address: str) -> None:
    unknown = 2**40
    with Stranger(address, greeting(credentials(), PEER)) as stranger:
        for message in (
            [m.UNPIN, unknown],
            [m.BORROWED, unknown],
            [m.RELEASE, [unknown, 1, unknown, 7]],
            [m.CANCEL_OBJECT, unknown, True, True],
            [m.VALUES, [[unknown, 0, None], [unknown, 5, None]]],
            [m.BORROW, 7, [unknown]],
        ):
            stranger.say(message, message)
        assert [stranger.hear() for _ in range(3)] == [[WELCOME, PROTOCOL_VERSION], *[[m.BORROWED, 7]] * 2]
        stranger.say([m.GET, [unknown], 0])
        kind, ((number, status, _),) = stranger.hear()
        assert (kind, number, status) == (m.VALUES, unknown, m.ERROR)


def test_a_borrower_that_ends_in_disorder_frees_what_it_borrowed(shared_ray: object) -> None:
    ref = ray.put([1])
    number = ref._record.number
    with Stranger(
        session().identity.address, greeting(credentials(), PEER), [m.BORROW, 1, [number]]
    ) as stranger:
        assert [stranger.hear()[0], stranger.hear()[0]] == [WELCOME, m.BORROWED]
        assert ref._record.borrowers == {b"stranger" * 2: 1}  # type: ignore[attr-defined]
        stranger.say(GARBAGE)
        assert "a frame announces" in stranger.refusal()
    driver = current().driver
    assert driver is not None
    assert not driver._portal.call(lambda: ref._record.borrowers)  # type: ignore[attr-defined]
    assert ray.get(ref) == [1]


#: What no owner may say to a worker.
TO_WORKERS: list[tuple[list[Any] | bytes, str]] = [
    (GARBAGE, "a frame announces"),
    (NOT_MSGPACK, "a frame's header is not msgpack"),
    ([0], "message number 0"),
    ([m.RECALL], "an owner does not send message number 60 to a worker"),
    ([m.TASKS, [[1, 1, None]]], "a row of TASKS is not a list of 5"),
    ([m.TASKS, [[1, 1, None, None, None]]], "function 1 was never described"),
    ([m.TASKS, [[1, [], None, None, None]]], "function [] was never described"),
    ([m.DESCRIBE, 1, b"", None, {}], "field 3 of DESCRIBE cannot be NoneType"),
    ([m.DESCRIBE, 1, b"", b"", {"returns": "two"}], "the option 'returns' of a function cannot be 'two'"),
    ([m.DESCRIBE, 1, b"", b"", {"returns": -1}], "the option 'returns' of a function cannot be -1"),
    ([m.DESCRIBE, 1, b"", b"", {"resources": []}], "the option 'resources' of a function cannot be []"),
    ([m.DESCRIBE, 1, b"", b"", {"refs": [1]}], "a reference is a process id, an address and a number"),
    ([m.FORGET, [-1]], "FORGET carries something that is not a number"),
]
#: And once it has described function 1.
TO_WORKERS_LATER: list[tuple[list[Any] | bytes, str]] = [
    ([m.TASKS, [[1, 1, 7, None, None]]], "arguments cannot travel as int"),
    ([m.TASKS, [[1, 1, {}, None, None]]], "arguments cannot travel as dict"),
    ([m.TASKS, [[1, 1, [[b"", 3, []]], None, None]]], "more buffers than its frame carries"),
    ([m.TASKS, [[1, 1, None, None, [7]]]], "the extras of a task are not values by name"),
    ([m.TASKS, [[1, 1, None, {}, None]]], "a task's dependencies are not a list"),
    ([m.TASKS, [[1, 1, None, [[0]], None]]], "a dependency is not a place and a value"),
    ([m.TASKS, [[1, 1, None, [[None, 1]], None]]], "a dependency is not a place and a value"),
    ([m.TASKS, [[1, 1, None, [[0, [7]]], None]]], "a reference is a process id, an address and a number"),
    ([m.TASKS, [[1, 1, None, [[0, {}]], None]]], "a value cannot travel as dict"),
]
DESCRIPTION = [m.DESCRIBE, 1, b"", b"", {}]


@pytest.mark.parametrize("address", LISTENERS[1:], indirect=True)
def test_an_owner_that_says_what_none_may_is_told_so(address: str) -> None:
    hello = greeting(credentials(), TASK)
    openings: list[tuple[list[Any], list[Any]]] = [(said, [hello]) for said in TO_WORKERS]  # type: ignore[misc]
    openings += [(said, [hello, DESCRIPTION]) for said in TO_WORKERS_LATER]  # type: ignore[misc]
    for (said, why), opening in openings:
        # Together with the hello, and after it was answered.
        with Stranger(address, *opening, said) as stranger:
            assert why in stranger.refusal(), said
        with Stranger(address, *opening) as stranger:
            stranger.hear()
            stranger.say(said)
            assert why in stranger.refusal(), said


@pytest.mark.parametrize("address", LISTENERS[1:], indirect=True)
def test_a_task_that_cannot_be_decoded_fails_alone(address: str) -> None:
    hello = greeting(credentials(), TASK)
    rows: list[Any] = [[1, 1, b"no pickle", None, None], [2, 1, None, [[7, 1]], None]]
    rows += [[3, 1, None, None, None], [3, 1, None, None, None]]
    with Stranger(address, hello, DESCRIPTION, [m.TASKS, rows]) as stranger:
        assert stranger.hear()[0] == WELCOME
        outcomes: dict[int, int] = {}
        while len(outcomes) < 3:
            kind, results, _ = stranger.hear()
            assert kind == m.RESULTS
            outcomes |= {number: status for number, status, _ in results}
        assert outcomes == dict.fromkeys((1, 2, 3), m.ERROR)
