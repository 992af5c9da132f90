"""How actors end, are killed and start again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from tests.cluster.processes import left_of

if TYPE_CHECKING:
    from asyncray import ActorHandle

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Worker:
    """Tells what it is, and ends in every way there is."""

    def __init__(self, log: str = "") -> None:
        self.log = log
        self.calls = 0

    def pid(self) -> int:
        return os.getpid()

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        ray.actor.exit_actor()

    def again(self) -> bool:
        return ray.get_runtime_context().was_current_actor_reconstructed

    def me(self) -> ActorHandle[Any]:
        return ray.get_runtime_context().current_actor

    def identity(self) -> tuple[str | None, str | None]:
        context = ray.get_runtime_context()
        return context.get_actor_id(), context.get_actor_name()

    def on_stop(self) -> None:
        if self.log:
            with open(self.log, "a") as file:  # noqa: PTH123
                file.write("stopped\n")


Worker = ray.remote(_Worker)


# --- ends ---------------------------------------------------------------------------------------------------


def test_an_actor_ends_with_its_last_handle_after_what_it_was_called_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = Worker.remote(str(log))
    pid = ray.get(worker.pid.remote())
    refs = [worker.count.remote() for _ in range(100)]
    del worker
    assert ray.get(refs) == list(range(1, 101))
    assert left_of([pid], 10) == []
    assert log.read_text() == "stopped\n"


def test_an_actor_ends_with_the_last_handle_that_another_process_held() -> None:
    @ray.remote
    def pid_of(handles: list[ActorHandle[Any]]) -> int:
        value: int = ray.get(handles[0].pid.remote())
        return value

    worker = Worker.remote()
    ref = pid_of.remote([worker])
    del worker
    assert left_of([ray.get(ref)], 10) == []


def test_a_killed_actor_fails_its_calls_now_and_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = Worker.remote(str(log))
    pid = ray.get(worker.pid.remote())
    ray.kill(worker)
    with pytest.raises(exceptions.ActorDiedError, match="killed"):
        ray.get(worker.count.remote())
    assert left_of([pid], 10) == []
    assert not log.exists()


def test_a_crashed_actor_fails_its_calls_and_says_how_it_ended() -> None:
    worker = Worker.remote()
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        ray.get(worker.crash.remote())
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        ray.get(worker.count.remote())


def test_an_actor_can_leave_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = Worker.remote(str(log))
    pid = ray.get(worker.pid.remote())
    with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
        ray.get(worker.leave.remote())
    assert left_of([pid], 10) == []
    assert log.read_text() == "stopped\n"
    with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
        ray.get(worker.count.remote())


def test_calls_behind_the_one_that_leaves_fail() -> None:
    worker = Worker.options(max_restarts=5).remote()
    worker.leave.remote()
    with pytest.raises(exceptions.ActorDiedError):
        ray.get([worker.count.remote() for _ in range(10)])


def test_an_actor_is_asked_to_end_by_a_call() -> None:
    worker = Worker.remote()
    pid, counted = worker.pid.remote(), worker.count.remote()
    worker.__ray_terminate__.remote()
    assert ray.get(counted) == 1
    assert left_of([ray.get(pid)], 10) == []


async def test_an_actor_ends_with_its_block(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Worker.options(max_pending_calls=1).remote(str(log)) as worker:
        pid = await worker.pid.remote()
        worker.count.remote()  # another call would be one too many
    assert log.read_text() == "stopped\n"  # it has cleaned up
    with pytest.raises(exceptions.ActorDiedError):
        await worker.pid.remote()
    assert left_of([pid], 10) == []


# --- restarts -----------------------------------------------------------------------------------------------


def test_a_crashed_actor_starts_again_as_often_as_it_may() -> None:
    worker = Worker.options(max_restarts=1).remote()
    before = ray.get(worker.pid.remote())
    assert ray.get(worker.count.remote()) == 1
    assert ray.get(worker.again.remote()) is False
    with pytest.raises(exceptions.ActorUnavailableError):
        ray.get(worker.crash.remote())
    assert ray.get(worker.count.remote()) == 1
    assert ray.get(worker.pid.remote()) != before
    assert ray.get(worker.again.remote()) is True
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(worker.crash.remote())


def test_a_call_under_way_is_made_again_as_often_as_it_may(tmp_path: Path) -> None:
    class _Crashing:
        def work(self, path: str, crashes: int) -> int:
            with open(path, "a") as file:  # noqa: PTH123
                file.write(".")
            if os.path.getsize(path) <= crashes:  # noqa: PTH202
                os.kill(os.getpid(), signal.SIGKILL)
            return os.path.getsize(path)  # noqa: PTH202

    crashing = ray.remote(max_restarts=-1, max_task_retries=2)(_Crashing).remote()
    assert ray.get(crashing.work.remote(str(tmp_path / "a"), 2)) == 3
    with pytest.raises(exceptions.ActorUnavailableError):
        ray.get(crashing.work.remote(str(tmp_path / "b"), 9))


def test_kill_can_leave_the_restarts() -> None:
    worker = Worker.options(max_restarts=1).remote()
    before = ray.get(worker.pid.remote())
    ray.kill(worker, no_restart=False)
    assert left_of([before], 10) == []
    assert ray.get(worker.pid.options(max_task_retries=5).remote()) != before
    ray.kill(worker)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(worker.pid.remote())


def test_callers_in_other_processes_follow_an_actor_through_its_restarts() -> None:
    class _Caller:
        def __init__(self, worker: ActorHandle[Any]) -> None:
            self.worker = worker

        def call(self) -> int:
            value: int = ray.get(self.worker.pid.options(max_task_retries=9).remote())
            return value

    caller_class = ray.remote(_Caller)
    worker = Worker.options(max_restarts=-1).remote()
    callers = [caller_class.remote(worker) for _ in range(2)]
    pids = set()
    for _ in range(3):
        (pid,) = set(ray.get([caller.call.remote() for caller in callers]))
        pids.add(pid)
        with pytest.raises(exceptions.ActorUnavailableError):
            ray.get(worker.crash.remote())
    assert len(pids) == 3


# --- names --------------------------------------------------------------------------------------------------


def test_a_named_actor_is_found_by_its_name() -> None:
    worker = Worker.options(name="found").remote()
    assert ray.get(worker.count.remote()) == 1
    assert ray.get(ray.get_actor("found").count.remote()) == 2
    assert "found" in ray.util.list_named_actors()
    with pytest.raises(ValueError, match="found"):
        Worker.options(name="found").remote()
    again = Worker.options(name="found", get_if_exists=True).remote()
    assert ray.get(again.count.remote()) == 3
    ray.kill(worker)
    with pytest.raises(ValueError, match="found"):
        ray.get_actor("found")
    assert ray.get(Worker.options(name="found", get_if_exists=True).remote().count.remote()) == 1


def test_names_are_unique_in_their_namespace_only() -> None:
    here = Worker.options(name="twice").remote()
    there = Worker.options(name="twice", namespace="elsewhere").remote()
    assert here != there
    assert ray.get_actor("twice", namespace="elsewhere") == there
    assert {"name": "twice", "namespace": "elsewhere"} in ray.util.list_named_actors(all_namespaces=True)


async def test_coroutines_await_what_asks_the_node() -> None:
    with pytest.raises(RuntimeError, match="remote_async"):
        Worker.options(name="awaited").remote()
    worker = await Worker.options(name="awaited").remote_async()
    assert await ray.aio.get_actor("awaited") == worker
    assert "awaited" in await ray.aio.list_named_actors()
    with pytest.raises(exceptions.ActorAlreadyExistsError):
        await Worker.options(name="awaited").remote_async()


def test_an_actor_knows_itself() -> None:
    worker = Worker.options(name="self").remote()
    assert ray.get(worker.identity.remote()) == (worker._actor_id.hex(), "self")
    assert ray.get(worker.me.remote()) == worker


# --- detached -----------------------------------------------------------------------------------------------


class _Starter:
    """Makes a detached actor, and dies."""

    def start(self, name: str) -> int:
        worker = Worker.options(name=name, lifetime="detached").remote()
        pid: int = ray.get(worker.pid.remote())
        return pid

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@ray.remote
async def start_async(name: str) -> int:
    worker = await Worker.options(name=name, lifetime="detached").remote_async()
    pid: int = await worker.pid.remote()
    return pid


def test_a_detached_actor_lives_without_handles() -> None:
    pid = ray.get(Worker.options(name="free", lifetime="detached").remote().pid.remote())
    found = ray.get_actor("free")
    assert ray.get(found.pid.remote()) == pid
    ray.kill(found)
    assert left_of([pid], 10) == []


def test_a_detached_actor_outlives_the_process_that_made_it() -> None:
    starter = ray.remote(_Starter).remote()
    pid = ray.get(starter.start.remote("outlives"))
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(starter.crash.remote())
    found = ray.get_actor("outlives")
    assert ray.get(found.pid.remote()) == pid
    assert ray.get(start_async.remote("outlives too")) != pid
    assert {"outlives", "outlives too"} <= set(ray.util.list_named_actors())
    for name in ("outlives", "outlives too"):
        ray.kill(ray.get_actor(name))


# --- the end of a session -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_stop", "__ray_shutdown__"])
@pytest.mark.parametrize("is_async", [False, True])
def test_actors_clean_up_at_the_end_of_a_session(tmp_path: Path, hook: str, is_async: bool) -> None:
    log = str(tmp_path / "log")

    class Stopping:
        def ready(self) -> None: ...

    class AsyncStopping:
        async def ready(self) -> None: ...

    def stop(self: Any) -> None:
        with open(log, "a") as file:  # noqa: PTH123
            file.write("stopped\n")

    async def astop(self: Any) -> None:
        stop(self)

    cls: Any = AsyncStopping if is_async else Stopping
    setattr(cls, hook, astop if is_async else stop)
    actor = ray.remote(cls).remote()
    ray.get(actor.ready.remote())
    ray.shutdown()
    assert Path(log).read_text() == "stopped\n"
    ray.init(num_cpus=2)
