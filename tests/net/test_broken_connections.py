"""A connection in use that breaks: who broke it is ended or told so, and the work is done all the same."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import LocalRayletDiedError, OwnerDiedError, WorkerCrashedError
from asyncray.process import current
from asyncray.wire import messages as m
from tests.cluster.doors import Doors, say_at, stand_at, wait_at
from tests.net.strangers import GARBAGE, LIMIT_S, frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncray.client.session import Session


def session() -> Session:
    found = current().session
    assert found is not None
    return found


@ray.remote
def same(value: Any) -> Any:
    return value


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    made = Doors(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def work_goes_on(ray_session: Any) -> Iterator[None]:
    """Whatever broke, tasks run after it."""
    yield
    assert ray.get([same.remote(position) for position in range(20)], timeout=LIMIT_S) == list(range(20))


def break_own(which: str, said: bytes) -> None:
    """Say something on a connection of the worker that runs this; what is said between frames."""
    ours = session()
    if which == "control":
        ours.control._sock.send(said)  # type: ignore[attr-defined]
        return
    worker = ours.on_task_connection.__self__  # type: ignore[union-attr]
    owners = worker._owners.values()
    for owner in owners:
        channel = getattr(owner, "channel", None) or owner.connection
        channel._sock.send(said)


def break_and_wait(which: str, said: bytes, mark: str, door: str) -> int:
    """Break a connection in the first attempt, and wait for the end; succeed in the second."""
    try:
        os.mkdir(mark)  # noqa: PTH102
    except FileExistsError:
        return os.getpid()
    say_at(door, str(os.getpid()))
    break_own(which, said)
    wait_at(door)
    return os.getpid()


SAID = {
    "garbage": (GARBAGE, "a frame announces"),
    "an unknown message": (frame([99]), "unknown message number 99"),
    "a message out of place": (frame([m.GET, [1], 0]), f"message number {m.GET}"),
    "a damaged message": (frame([m.RESULTS, [[1, 2]], 0.0]), "RESULTS"),
}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("which", ["control", "task"])
@pytest.mark.parametrize("what", SAID)
def test_a_worker_that_broke_its_connection_is_ended_and_its_task_runs_again(
    which: str, mode: str, what: str, doors: Doors, tmp_path: Path
) -> None:
    door, mark = doors.new(), str(tmp_path / "first")
    said, _ = SAID[what]

    async def as_coroutine() -> int:
        return await asyncio.to_thread(break_and_wait, which, said, mark, door.name)

    def as_function() -> int:
        return break_and_wait(which, said, mark, door.name)

    task = ray.remote(as_coroutine if mode == "async" else as_function)
    first = task.remote()
    pid = door.arrival()
    assert ray.get(first, timeout=LIMIT_S) != pid


@pytest.mark.parametrize("which", ["control", "task"])
@pytest.mark.parametrize("what", SAID)
def test_a_task_that_may_not_run_twice_hears_what_was_wrong(
    which: str, what: str, doors: Doors, tmp_path: Path
) -> None:
    said, why = SAID[what]
    task = ray.remote(max_retries=0)(break_and_wait)
    ref = task.remote(which, said, str(tmp_path / "first"), doors.new().name)
    with pytest.raises(WorkerCrashedError) as caught:
        ray.get(ref, timeout=LIMIT_S)
    assert "had broken" in str(caught.value)
    assert why in str(caught.value) or which == "control"


def test_a_worker_that_its_owner_talked_nonsense_to_is_ended_and_its_tasks_run_again(doors: Doors) -> None:
    door = doors.new()
    behind = [ray.remote(stand_at).remote(door.name), same.remote(2)]
    first = door.arrival()
    (link,) = [link for link in session().leases.links._links.values() if link.connection.peer.pid == first]
    link.connection._sock.send(frame([m.TASKS, [[1, 77, None, None, None]]]))  # type: ignore[attr-defined]
    door.let_in()  # the running task ends; then its worker reads on
    door.let_in()
    assert ray.get(behind, timeout=LIMIT_S)[1] == 2


def test_a_driver_that_talked_nonsense_to_its_node_hears_so_and_can_begin_anew(doors: Doors) -> None:
    door = doors.new()
    ref = ray.remote(stand_at).remote(door.name)
    door.arrival()
    session().control._sock.send(GARBAGE)  # type: ignore[attr-defined]
    with pytest.raises(LocalRayletDiedError, match="a frame announces"):
        ray.get(ref, timeout=LIMIT_S)
    ray.init(num_cpus=2)
    assert ray.get(same.remote(1), timeout=LIMIT_S) == 1


def test_an_owner_that_does_not_understand_a_peer_says_so_to_who_waits_and_goes_on(doors: Doors) -> None:
    """The worker owns an object that the driver waits for; their connection breaks, both live on."""
    door = doors.new()

    @ray.remote
    def own() -> Any:
        return [ray.remote(num_cpus=0)(stand_at).remote(door.name)]

    (inner,) = ray.get(own.remote(), timeout=LIMIT_S)
    door.arrival()
    inner.add_done_callback(lambda _: None)  # connects, to ask for the value
    driver = current().driver
    assert driver is not None
    peers = driver._portal.call(session().peers.connections)
    (owner,) = [peer for peer in peers if peer.peer.process_id == inner._record.home[0]]
    owner._sock.send(GARBAGE)  # type: ignore[attr-defined]
    with pytest.raises(
        OwnerDiedError, match="has broken: the other end closed the connection: a frame announces"
    ):
        ray.get(inner, timeout=LIMIT_S)
    (again,) = ray.get(own.remote(), timeout=LIMIT_S)
    door.let_in(2)
    assert ray.get(again, timeout=LIMIT_S) > 0
