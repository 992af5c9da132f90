"""The template dies: tasks run again on new workers. The node dies: everyone who waits hears of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import LocalRayletDiedError, OwnerDiedError, WorkerCrashedError
from asyncray.node.forks import TemplateLink
from asyncray.process import current

from . import processes
from .doors import Doors, say_at, stand_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

#: Seconds for what must not hang.
SOON_S = 20.0


@ray.remote
def at(door: str) -> int:
    return stand_at(door)


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
def adopt(refs: list[Any], door: str) -> str:
    """Wait for what another process owns."""
    say_at(door, str(os.getpid()))
    ray.get(refs)
    return "unreachable"


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=SOON_S)


@ray.remote(num_cpus=0)
def where() -> int:
    return os.getpid()


def template(killed: int = 0) -> int:
    """The template that new workers come from now; a worker of a killed one may still answer for a moment."""
    while True:
        parent = processes.parent_of(get(where.remote()))
        if parent != killed and processes.name(parent) == "asyncray-templ" and processes.state(parent) != "Z":
            return parent


@pytest.fixture
def dying_node(doors: Doors, ray_session: ModuleType) -> Iterator[DyingNode]:
    with processes.adopting_orphans():
        node = DyingNode(doors)
        yield node
        ray.shutdown()
        assert not processes.left_of(node.pids, within_s=1, reaping=[node.template])


class DyingNode:
    """A session with a task under way, one that waits for it, and a node that can be killed."""

    def __init__(self, doors: Doors) -> None:
        door = doors.new()
        self.running = at.remote(door.name)
        self.worker = door.arrival()
        self.dependent = same.remote(self.running)
        self.template = processes.parent_of(self.worker)
        self.pid = processes.node_pid()
        self.pids = [self.pid, *processes.descendants(self.pid)]
        self.address = current().session.identity.address  # type: ignore[union-attr]

    def kill(self) -> None:
        processes.kill(self.pid)

    def refs(self) -> list[Any]:
        return [self.running, self.dependent]


# --- the template ----------------------------------------------------------------------------------------


def test_tasks_run_again_on_new_workers_when_the_template_is_killed(
    doors: Doors, ray_session: ModuleType
) -> None:
    door = doors.new()
    refs = [at.remote(door.name) for _ in range(2)]
    first = {door.arrival() for _ in refs}
    before = template()
    processes.kill(before)
    second = {door.arrival() for _ in refs}
    assert template() != before
    door.let_in(2)
    assert set(get(refs)) == second
    assert not first & second
    assert not processes.left_of([before, *first], within_s=5)


def test_the_templates_death_costs_a_retry(doors: Doors, ray_session: ModuleType) -> None:
    door = doors.new()
    ref = at.options(max_retries=0, name="no second chance").remote(door.name)
    worker = door.arrival()
    processes.kill(template())
    with pytest.raises(WorkerCrashedError, match=f"'no second chance' died: process {worker} .*template"):
        get(ref)


def test_what_had_not_started_when_the_template_died_runs_once(doors: Doors, ray_session: ModuleType) -> None:
    door = doors.new()
    running = [at.options(max_retries=0).remote(door.name) for _ in range(2)]
    queued = [same.options(max_retries=0).remote(i) for i in range(10)]
    for _ in running:
        door.arrival()
    processes.kill(template())
    for ref in running:
        with pytest.raises(WorkerCrashedError):
            get(ref)
    assert get(queued) == list(range(10))


def test_nested_tasks_survive_the_template(doors: Doors, ray_session: ModuleType) -> None:
    door = doors.new()

    @ray.remote
    def outer() -> Any:
        return ray.get(at.remote(door.name))

    ref = outer.remote()
    door.arrival()
    processes.kill(template())
    again = door.arrival()
    door.let_in()
    assert get(ref) == again


def test_templates_may_die_again_and_again(ray_session: ModuleType) -> None:
    killed = 0
    for i in range(3):
        assert get(same.remote(i)) == i
        killed = template(killed)
        processes.kill(killed)
    assert get([same.remote(i) for i in range(20)]) == list(range(20))


def test_a_template_that_dies_while_it_is_idle_takes_nothing_along(ray_session: ModuleType) -> None:
    kept = ray.put("kept")
    processes.kill(template())
    assert get(same.remote(kept)) == "kept"


def test_a_worker_that_cannot_start_is_not_tried_for_ever(ray_session: ModuleType) -> None:
    impossible = same.options(runtime_env={"env_vars": {"PYTHONHASHSEED": "no number"}})
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="PYTHONHASHSEED"):
        get(impossible.remote(1))
    assert get(same.remote(1)) == 1


def test_a_setup_hook_that_ends_its_worker_is_not_tried_for_ever(ray_session: ModuleType) -> None:
    def hook() -> None:
        os._exit(7)

    broken = same.options(runtime_env={"worker_process_setup_hook": hook})
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="exited with code 7"):
        get(broken.remote(1))
    assert get(same.remote(1)) == 1


# --- the node --------------------------------------------------------------------------------------------


def says_who_died(node: DyingNode) -> Any:
    return pytest.raises(LocalRayletDiedError, match=f"node process {node.pid} .*died")


def test_get_raises_when_the_node_dies(dying_node: DyingNode) -> None:
    threading.Timer(0.05, dying_node.kill).start()
    with says_who_died(dying_node):
        get(dying_node.dependent)


def test_wait_tells_that_everything_is_done_when_the_node_dies(dying_node: DyingNode) -> None:
    threading.Timer(0.05, dying_node.kill).start()
    ready, rest = ray.wait(dying_node.refs(), num_returns=2, timeout=SOON_S)
    assert (len(ready), rest) == (2, [])
    for ref in ready:
        with says_who_died(dying_node):
            get(ref)


def test_as_completed_ends_when_the_node_dies(dying_node: DyingNode) -> None:
    threading.Timer(0.05, dying_node.kill).start()
    with says_who_died(dying_node):
        list(ray.util.as_completed(dying_node.refs()))
    assert len(list(ray.util.as_completed(dying_node.refs(), yield_obj_refs=True))) == 2


def test_every_thread_that_waits_hears_of_it(dying_node: DyingNode) -> None:
    started = threading.Barrier(9)

    def wait(ref: Any) -> BaseException | None:
        started.wait()
        try:
            get(ref)
        except LocalRayletDiedError as error:
            return error
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = [pool.submit(wait, dying_node.refs()[i % 2]) for i in range(8)]
        started.wait()
        dying_node.kill()
        assert all(isinstance(each.result(SOON_S), LocalRayletDiedError) for each in outcomes)


def test_every_coroutine_that_waits_hears_of_it(
    dying_node: DyingNode, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def in_all_ways() -> list[Any]:
        running, dependent = dying_node.refs()

        async def first_of_as_completed() -> Any:
            async for ref in aio.as_completed([running, dependent]):
                return await ref
            return None

        async def waits() -> Any:
            ready, _ = await aio.wait([running, dependent], num_returns=2)
            return await ready[0]

        async def awaits() -> Any:
            return await dependent

        ways = [awaits(), aio.get(running), aio.get([running, dependent]), waits(), first_of_as_completed()]
        tasks = [asyncio.ensure_future(way) for way in ways]
        asyncio.get_running_loop().call_later(0.05, dying_node.kill)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SOON_S)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        outcomes = runner.run(in_all_ways())
    assert [type(outcome) for outcome in outcomes] == [LocalRayletDiedError] * 5


def test_callbacks_are_called_when_the_node_dies(dying_node: DyingNode) -> None:
    called = threading.Event()
    dying_node.dependent.add_done_callback(lambda ref: called.set())
    dying_node.kill()
    assert called.wait(SOON_S)


def test_a_question_to_the_node_is_answered_by_its_death(dying_node: DyingNode) -> None:
    os.kill(dying_node.pid, signal.SIGSTOP)  # it hears the question, and will never answer
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ray.available_resources)
        while not current().session.questions._asked:  # type: ignore[union-attr]
            assert not answer.done()
        dying_node.kill()
        with says_who_died(dying_node):
            answer.result(SOON_S)


def test_what_a_worker_owned_is_lost_with_the_node(doors: Doors, ray_session: ModuleType) -> None:
    door = doors.new()

    @ray.remote
    def owner() -> list[Any]:
        return [at.options(num_cpus=0).remote(door.name)]

    (borrowed,) = get(owner.remote())
    door.arrival()
    node = processes.node_pid()
    processes.kill(node)
    with pytest.raises((LocalRayletDiedError, OwnerDiedError)):  # whichever of the two is seen first
        get(borrowed)


def test_calls_after_the_nodes_death_raise_at_once(dying_node: DyingNode) -> None:
    here = ray.put("here")
    dying_node.kill()
    with says_who_died(dying_node):
        get(dying_node.running)
    assert get(here) == "here", "its value is in this process"
    with says_who_died(dying_node):
        same.remote(1)
    with says_who_died(dying_node):
        same.remote(here)
    with says_who_died(dying_node):
        same.remote(dying_node.running)
    with says_who_died(dying_node):
        ray.put(1)
    with says_who_died(dying_node):
        ray.available_resources()
    assert not ray.is_initialized()


def test_a_later_init_starts_a_new_node(dying_node: DyingNode) -> None:
    dying_node.kill()
    with says_who_died(dying_node):
        get(dying_node.running)
    ray.init(num_cpus=1)
    assert get(same.remote("alive")) == "alive"
    with says_who_died(dying_node):
        get(dying_node.dependent)


def test_everything_goes_with_the_node(dying_node: DyingNode) -> None:
    session = dying_node.address.split("-")[1]
    assert len(processes.sockets_named(session)) > 1
    dying_node.kill()
    with says_who_died(dying_node):
        get(dying_node.running)
    below = [pid for pid in dying_node.pids if pid != dying_node.pid]
    assert not processes.left_of(below, within_s=1, reaping=[dying_node.template])
    assert set(processes.sockets_named(session)) == {f"@{dying_node.address}"}, (
        "and the driver's own goes last"
    )


def test_workers_hear_nothing_more_and_end_when_the_node_dies(doors: Doors, ray_session: ModuleType) -> None:
    inner, outer = doors.new(), doors.new()
    pending = at.remote(inner.name)
    blocked = adopt.remote([pending], outer.name)
    pids = [inner.arrival(), outer.arrival()]
    processes.kill(processes.node_pid())
    with pytest.raises(LocalRayletDiedError):
        get(blocked)
    assert not processes.left_of(pids, within_s=1)


def test_a_node_that_is_asked_to_terminate_dies_like_any_other(dying_node: DyingNode) -> None:
    os.kill(dying_node.pid, signal.SIGTERM)
    with says_who_died(dying_node):
        get(dying_node.running)


def test_shutdown_after_the_nodes_death_is_quiet(
    dying_node: DyingNode, capfd: pytest.CaptureFixture[str]
) -> None:
    dying_node.kill()
    with says_who_died(dying_node):
        get(dying_node.running)
    ray.shutdown()
    ray.shutdown()
    assert capfd.readouterr().err == ""


def test_a_template_may_be_killed_that_has_ended_and_was_reaped_before_the_loop_has_seen_it() -> None:
    # It ends just when the node has lost patience with it at a shutdown, which then waited for ever.
    loop = asyncio.new_event_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", ""]) as child, theirs:
        link = TemplateLink(loop, ours, child.pid, lambda kind, fields: None, lambda link: loop.stop())
        child.wait()
        link.kill()
    loop.run_forever()
    loop.close()
