"""`explain` and `wait_graph` over real processes: stacks, kills, who does not answer, loops and threads."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import util
from tests.cluster.beacons import Beacon, light
from tests.cluster.cancellable import block_the_loop, hold, linger, stubborn
from tests.cluster.gates import LIMIT_S, Gate, Gates, run_on, same, seconds
from tests.cluster.patience import eventually
from tests.cluster.processes import node_pid, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from asyncray import ObjectRef
    from tests.cluster.gates import Factory


@pytest.fixture
def beacon(tmp_path: Path) -> Iterator[Beacon]:
    made = Beacon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gates = Gates(tmp_path)
    yield gates.new()
    gates.close()


@ray.remote
def held(beacon: str, gate: str) -> Any:
    """Begin, and wait for a child that waits for the gate."""
    return ray.get(hold.remote(beacon, gate))


@ray.remote
def keep(beacon: str, gate: str) -> list[Any]:
    """Own a task that waits for the gate."""
    return [hold.remote(beacon, gate)]


@ray.remote
def opened(box: list[ObjectRef[Any]]) -> Any:
    """Wait for what is in the box; the pipe tells when this has begun."""
    return ray.get(box[0])


def text(ref: ObjectRef[Any], **options: Any) -> str:
    return str(util.explain(ref, **options))


# --- what it says -------------------------------------------------------------------------------------------


def test_a_running_task_tells_where_its_code_stands(
    ray_session: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    ref = hold.remote(beacon.path, gate.path)
    beacon.next()
    explanation = util.explain(ref, stack=True)
    assert explanation.state == "running"
    assert explanation.pid not in (None, os.getpid())
    assert explanation.stack is not None
    first, *_ = explanation.stack.splitlines()
    assert first.endswith("in hold")
    assert str(explanation).startswith("'hold' has been running for ")
    assert util.explain(ref).stack is None
    gate.open()
    assert ray.get(ref) == "held"
    assert util.explain(ref).state == "done"


def test_a_coroutine_tells_where_its_code_stands(ray_session: ModuleType, gate: Gate, beacon: Beacon) -> None:
    ref = linger.remote(beacon.path)
    beacon.next()
    stack = util.explain(ref, stack=True).stack
    assert stack is not None
    assert stack.splitlines()[0].endswith("in linger")
    ray.cancel(ref)


def test_waits_are_followed_through_processes(ray_session: ModuleType, beacon: Beacon, gate: Gate) -> None:
    ref = same.remote(held.remote(beacon.path, gate.path))
    beacon.next()
    explanation = util.explain(ref, stack=True)
    states = [explanation.state]
    while explanation.waits_for:
        (explanation,) = explanation.waits_for
        states.append(explanation.state)
    assert states == ["arguments", "blocked", "running"]
    assert "ray.get(hold.remote(beacon, gate))" in text(ref, stack=True)
    gate.open()
    assert ray.get(ref) == "held"


def test_a_task_behind_another_one_says_so(beacon: Beacon, gate: Gate) -> None:
    ray.init(num_cpus=1, _system_config={"recall_after_s": LIMIT_S})
    try:
        ray.get(
            [same.remote(number) for number in range(50)]
        )  # its worker takes several at a time from now on
        slow = same.options(name="slow").remote(0)
        ray.get(slow)
        refs = [sleeper.remote(beacon.path, gate.path), *(sleeper.remote(None, None) for _ in range(3))]
        beacon.next()
        explanation = util.explain(refs[-1])
        assert explanation.state in ("sent", "resources")
        assert explanation.queue is not None
        assert explanation.queue.names == {"sleeper": explanation.queue.ahead}
        gate.open()
        ray.get(refs)
    finally:
        ray.shutdown()


@ray.remote
def sleeper(beacon: str | None, gate: str | None) -> None:
    """Wait for a gate, if there is one."""
    if beacon and gate:
        light(beacon)
        with Path(gate).open("rb") as opened:
            opened.read(1)


def test_a_cancelled_task_that_goes_on_is_said_to(ray_session: ModuleType, beacon: Beacon) -> None:
    ref = stubborn.remote(beacon.path)
    beacon.next()
    ray.cancel(ref)
    explanation = util.explain(ref)
    assert explanation.state in ("stopping", "failed")
    ray.cancel(ref, force=True)


def test_a_reference_of_another_process_is_explained(
    ray_session: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    (ref,) = ray.get(keep.remote(beacon.path, gate.path))
    beacon.next()
    assert text(ref).startswith("'hold' has been running for ")
    gate.open()
    ray.get(ref)


def test_what_is_done_is_said_to_be_done(ray_session: ModuleType) -> None:
    assert text(ray.put(1)).endswith(" is done: its value is there.")
    with pytest.raises(TypeError, match="explain takes references, not 'x' of type str"):
        util.explain("x")  # type: ignore[arg-type]


def test_a_reference_of_an_earlier_session_is_refused() -> None:
    ray.init(num_cpus=1)
    ref = ray.put(1)
    ray.shutdown()
    with pytest.raises(ray.exceptions.SessionClosedError):
        util.explain(ref)


# --- who asks -----------------------------------------------------------------------------------------------


def test_a_coroutine_asks_on_any_loop(
    ray_session: ModuleType, beacon: Beacon, gate: Gate, loop_factory: Factory
) -> None:
    ref = hold.remote(beacon.path, gate.path)
    beacon.next()

    async def main() -> None:
        assert (await ray.aio.explain(ref)).state == "running"
        assert "hold" in {node.name for node in (await ray.aio.wait_graph()).nodes}
        with pytest.raises(RuntimeError, match=r"use `await asyncray\.aio\.explain\(ref\)` instead"):
            util.explain(ref)
        with pytest.raises(RuntimeError, match=r"use `await asyncray\.aio\.wait_graph\(\)` instead"):
            util.wait_graph()

    run_on(loop_factory, main())
    gate.open()


def test_many_threads_ask_at_once(ray_session: ModuleType, beacon: Beacon, gate: Gate) -> None:
    ref = same.remote(held.remote(beacon.path, gate.path))
    beacon.next()
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.append(util.explain(ref).state)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert states == ["arguments"] * 16
    gate.open()


def test_a_task_asks(ray_session: ModuleType, beacon: Beacon, gate: Gate) -> None:
    @ray.remote
    def asks(box: list[Any]) -> str:
        return text(box[0])

    @ray.remote
    async def asks_too(box: list[Any]) -> str:
        return str(await ray.aio.explain(box[0]))

    ref = hold.remote(beacon.path, gate.path)
    beacon.next()
    for task in (asks, asks_too):
        assert ray.get(task.remote([ref])).startswith("'hold' has been running for ")
    gate.open()


def test_asking_in_the_middle_of_much_work_holds_nothing_up(ray_session: ModuleType) -> None:
    refs = [same.remote(number) for number in range(5000)]
    refs += [same.remote(ref) for ref in refs]
    known = {"done", "failed", "arguments", "resources", "queued", "starting", "sent", "running", "blocked"}
    for ref in refs[::500]:
        assert util.explain(ref, stack=True).state in known
        assert util.wait_graph().cycles == ()
    assert ray.get(refs) == [*range(5000), *range(5000)]


# --- who does not answer ------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_is_named(beacon: Beacon, gate: Gate) -> None:
    ray.init(num_cpus=2, _system_config={"explain_timeout_s": 0.3})
    try:
        ref = hold.remote(beacon.path, gate.path)
        beacon.next()
        pid = util.explain(ref).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: state(pid), "T")
            told = f"'hold' was sent to the worker with pid {pid}; the worker has not answered within 0.3 s."
            assert text(ref) == told
            graph = util.wait_graph()
            assert graph.missing == (f"The process with pid {pid} has not answered within 0.3 s.",)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert util.explain(ref).state == "running"
        gate.open()
        assert ray.get(ref) == "held"
    finally:
        ray.shutdown()


def test_a_coroutine_that_blocks_its_loop_is_named(beacon: Beacon) -> None:
    ray.init(num_cpus=2, _system_config={"explain_timeout_s": 0.3})
    try:
        ref = block_the_loop.remote(beacon.path)
        beacon.next()
        assert util.explain(ref).state == "unknown"
        ray.cancel(ref, force=True)
    finally:
        ray.shutdown()


def test_a_worker_that_dies_while_it_is_asked_is_no_obstacle(
    ray_session: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    ref = hold.options(max_retries=0).remote(beacon.path, gate.path)
    beacon.next()
    pid = util.explain(ref).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    explanations: list[Any] = []
    thread = threading.Thread(target=lambda: explanations.append(util.explain(ref)))
    thread.start()
    os.kill(pid, signal.SIGKILL)
    assert seconds(lambda: thread.join(LIMIT_S)) < LIMIT_S
    assert explanations[0].state in ("lost", "failed")
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(ref)
    assert util.explain(ref).state == "failed"


def test_explaining_while_workers_die_always_ends(
    ray_session: ModuleType, beacon: Beacon, gate: Gate
) -> None:
    refs = [same.remote(held.options(max_retries=-1).remote(beacon.path, gate.path)) for _ in range(3)]
    for _ in range(10):
        pid = int(beacon.next())
        threads = [threading.Thread(target=text, args=(ref,)) for ref in refs]
        for thread in threads:
            thread.start()
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()
    ray.cancel(*refs)


def test_the_death_of_the_node_ends_it(gate: Gate, beacon: Beacon) -> None:
    ray.init(num_cpus=1)
    try:
        ref = hold.remote(beacon.path, gate.path)
        beacon.next()
        os.kill(node_pid(), signal.SIGKILL)
        with pytest.raises(ray.exceptions.LocalRayletDiedError):
            ray.get(ref)
        assert util.explain(ref).state == "failed"
    finally:
        ray.shutdown()


# --- circles ------------------------------------------------------------------------------------------------


class Warned(logging.Handler):
    """Tells a beacon what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.heard.set()


@pytest.fixture
def warned() -> Iterator[Warned]:
    handler = Warned()
    logging.getLogger("asyncray").addHandler(handler)
    yield handler
    logging.getLogger("asyncray").removeHandler(handler)


@ray.remote(resources={"slot": 1}, num_cpus=0)
def modest() -> int:
    """Need a slot."""
    return 1


@ray.remote(resources={"slot": 1}, num_cpus=0)
def greedy() -> Any:
    """Hold a slot, and wait for somebody who needs it."""
    return ray.get(modest.remote())


@ray.remote
def letter(path: str) -> list[Any]:
    """Deliver what is written to a pipe: a pickled reference."""
    with Path(path).open("rb") as pipe:
        return [pickle.load(pipe)]


@ray.remote
def reads(box: list[ObjectRef[Any]]) -> Any:
    """Wait for a letter, and then for what it holds."""
    (ref,) = ray.get(box[0])
    return ray.get(ref)


@pytest.mark.filterwarnings("ignore:an ObjectRef was pickled by other means")
@pytest.mark.parametrize("factory", [None, asyncio.new_event_loop], ids=["blocking", "aio"])
def test_two_tasks_that_wait_for_each_other_are_warned_of_once(
    warned: Warned, tmp_path: Path, factory: Factory | None
) -> None:
    ray.init(num_cpus=3, _system_config={"wait_check_s": 0.1})
    try:
        path = str(tmp_path / "letter")
        os.mkfifo(path)
        one = reads.options(name="one").remote([letter.remote(path)])
        two = opened.options(name="two").remote([one])
        with Path(path).open("wb") as pipe:
            pickle.dump(two, pipe)
        assert warned.heard.wait(LIMIT_S)
        graph = run_on(factory, ray.aio.wait_graph()) if factory else util.wait_graph()
        (circle,) = graph.cycles
        told = graph.describe_cycle(circle)
        assert "'one' (pid " in told
        assert "'two' (pid " in told
        ray.cancel(one)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(two)
        assert util.wait_graph().cycles == ()
        assert len(warned.texts) == 1
    finally:
        ray.shutdown()


def test_a_parent_that_holds_what_its_child_needs_is_warned_of(warned: Warned) -> None:
    ray.init(num_cpus=2, resources={"slot": 1}, _system_config={"wait_check_s": 0.1})
    try:
        ref = greedy.remote()
        assert warned.heard.wait(LIMIT_S)
        (told,) = warned.texts
        assert "waits for slot, which " in told
        assert "waits for resources: it needs slot: 1, and free are slot: 0 of 1." in text(ref)
        ray.cancel(ref)
    finally:
        ray.shutdown()
