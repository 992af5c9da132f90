"""What the machine has comes to its end: memory, processes, open files, resources that nobody has."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import ActorUnavailableError, OutOfMemoryError, TaskUnschedulableError

from .doors import Doors, stand_at

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
#: Seconds for what must not hang.
SOON_S = 20.0
MIB = 1 << 20


@contextmanager
def session(num_cpus: int = 2, **config: Any) -> Iterator[None]:
    ray.init(num_cpus=num_cpus, _system_config=config)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def little_memory(mib: int = 200) -> Iterator[None]:
    """A session that may use so much memory for all its workers."""
    with session(memory_limit_bytes=mib * MIB, memory_poll_s=0.01):
        yield


@ray.remote
def hold(mib: int, door: str) -> int:
    """Take some memory, say so, and keep it until the door opens."""
    held = b"x" * (mib * MIB)
    stand_at(door)
    return len(held) // MIB


@ray.remote
def same(value: Any) -> Any:
    return value


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=SOON_S)


# --- memory ---------------------------------------------------------------------------------------------


def test_a_task_that_takes_too_much_memory_is_killed_and_retried_and_then_fails(tmp_path: Path) -> None:
    path = tmp_path / "runs"

    @ray.remote(max_retries=2, name="the hog")
    def hog() -> None:
        with path.open("a") as file:
            file.write("ran\n")
        held = b"x" * (300 * MIB)
        wait_for_ever()
        assert held

    told = r"'the hog' was killed: memory ran out: \d+ MiB of 200 MiB were in use, .* \d+ MiB"
    with little_memory(), pytest.raises(OutOfMemoryError, match=told):
        get(hog.remote())
    assert len(path.read_text().split()) == 3


def wait_for_ever() -> None:
    import threading

    threading.Event().wait()


def test_a_retried_task_that_takes_less_succeeds(doors: Doors, tmp_path: Path) -> None:
    path = tmp_path / "runs"

    @ray.remote(max_retries=1)
    def modest_at_second_try() -> str:
        first = not path.exists()
        path.touch()
        if first:
            held = b"x" * (300 * MIB)
            wait_for_ever()
            assert held
        return "modest"

    with little_memory():
        assert get(modest_at_second_try.remote()) == "modest"


def test_the_newest_task_is_the_one_that_goes(doors: Doors) -> None:
    old_door, new_door = doors.new(), doors.new()
    with little_memory():
        warm = [same.remote(i) for i in range(20)]  # both workers have been leased before
        get(warm)
        old = hold.options(max_retries=0).remote(80, old_door.name)
        old_door.arrival()
        new = hold.options(max_retries=0, name="new").remote(200, new_door.name)
        with pytest.raises(OutOfMemoryError, match="'new'"):
            get(new)
        old_door.let_in()
        assert get(old) == 80


def test_a_newer_task_on_an_older_lease_is_still_the_newest(doors: Doors) -> None:
    early, old_door, new_door = doors.new(), doors.new(), doors.new()
    with little_memory():
        first = hold.remote(1, early.name)
        early.arrival()
        old = hold.remote(60, old_door.name)
        old_door.arrival()
        early.let_in()
        get(first)  # its lease is older than that of the old task, and is used again
        new = hold.options(max_retries=1).remote(200, new_door.name)
        with pytest.raises(OutOfMemoryError):
            get(new)
        old_door.let_in()
        assert get(old) == 60
        assert old_door.is_quiet(), "it ran once"


def test_a_retriable_task_goes_before_a_newer_one_that_is_not(doors: Doors) -> None:
    old_door, new_door = doors.new(), doors.new()
    with little_memory():
        retriable = hold.options(max_retries=1).remote(100, old_door.name)
        old_door.arrival()
        precious = hold.options(max_retries=0).remote(80, new_door.name)
        new_door.arrival()
        with pytest.raises(OutOfMemoryError):
            get(retriable)
        new_door.let_in()
        assert get(precious) == 80


def test_what_is_killed_for_memory_is_not_a_crash_of_its_neighbours(doors: Doors) -> None:
    door = doors.new()
    with little_memory():
        hog = hold.options(max_retries=0).remote(300, door.name)
        small = [same.options(max_retries=0).remote(i) for i in range(50)]
        assert get(small) == list(range(50))
        with pytest.raises(OutOfMemoryError):
            get(hog)


class _Hog:
    """Takes memory when it is asked to."""

    def hold(self, mib: int, door: str) -> int:
        held = b"x" * (mib * MIB)
        stand_at(door)
        return len(held) // MIB

    def lives(self) -> bool:
        return ray.get_runtime_context().was_current_actor_reconstructed


def test_an_actor_that_takes_too_much_memory_is_killed_and_its_calls_say_so(doors: Doors) -> None:
    door = doors.new()
    with little_memory():
        hog = ray.remote(_Hog).remote()
        ref = hog.hold.remote(300, door.name)
        with pytest.raises(OutOfMemoryError, match="the actor '_Hog' is dead: memory ran out"):
            get(ref)
        with pytest.raises(OutOfMemoryError):
            get(hog.lives.remote())


def test_an_actor_killed_for_its_memory_starts_again_where_it_may(doors: Doors) -> None:
    door = doors.new()
    with little_memory():
        hog = ray.remote(max_restarts=1)(_Hog).remote()
        with pytest.raises(ActorUnavailableError, match="memory ran out"):
            get(hog.hold.remote(300, door.name))
        assert get(hog.lives.remote())


# --- processes ------------------------------------------------------------------------------------------

FEW = {"worker_memory_estimate_bytes": 1 << 50}  # as few workers as there can be: eight


@ray.remote
def nest(level: int) -> int:
    """Wait for a task that waits for a task, so many levels deep."""
    if level == 0:
        return 0
    return 1 + ray.get(nest.options(name=f"level {level - 1}").remote(level - 1))


def test_a_chain_of_waiting_tasks_that_needs_too_many_processes_fails_by_name() -> None:
    with session(1, **FEW):
        with pytest.raises(TaskUnschedulableError, match=r"level 20 -> level 19 -> .* -> level 12"):
            get(nest.options(name="level 20").remote(20))
        assert get(nest.remote(5)) == 5


def test_more_tasks_than_processes_wait_their_turn(doors: Doors) -> None:
    door = doors.new()
    with session(20, **FEW):
        standing = [hold.remote(0, door.name) for _ in range(20)]
        first = {door.arrival() for _ in range(8)}
        assert door.is_quiet()
        door.let_in(20)
        assert get(standing) == [0] * 20
        assert len(first) == 8


def test_tasks_without_cpus_that_wait_for_others_need_no_process_each() -> None:
    @ray.remote(num_cpus=0)
    def child(number: int) -> list[int]:
        return [os.getpid(), number]

    @ray.remote(num_cpus=0)
    def parent(number: int) -> list[int]:
        return ray.get(child.remote(number))

    with session(2):
        pids, numbers = zip(*get([parent.remote(number) for number in range(1000)]), strict=True)
    assert list(numbers) == list(range(1000))
    assert len(set(pids)) < 500


def test_a_chain_waits_while_somebody_else_may_still_free_a_process(doors: Doors) -> None:
    door = doors.new()
    with session(8, **FEW):
        standing = [hold.remote(0, door.name) for _ in range(6)]
        for _ in standing:
            door.arrival()
        chain = nest.remote(4)  # needs five, and there are two
        door.let_in(6)
        assert get(chain) == 4
        assert get(standing) == [0] * 6


def test_idle_workers_make_room_for_others() -> None:
    with session(8, **FEW):
        assert get([same.remote(i) for i in range(50)]) == list(range(50))
        other = same.options(runtime_env={"env_vars": {"COLOUR": "blue"}})
        assert get([other.remote(i) for i in range(20)]) == list(range(20))

        @ray.remote
        async def on_a_loop() -> str:
            return "on a loop"

        assert get(on_a_loop.remote()) == "on a loop"


def test_a_machine_that_cannot_fork_says_so() -> None:
    ray.init(num_cpus=1, preload=["tests.cluster.no_forks"])
    try:
        with pytest.raises(TaskUnschedulableError, match=r"no process can be forked: .*unavailable"):
            get(same.remote(1))
    finally:
        ray.shutdown()


def test_a_machine_that_can_fork_again_is_used_again(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = tmp_path / "forbidden"
    door = doors.new()
    monkeypatch.setenv("NO_FORKS_WHILE", str(forbidden))
    ray.init(num_cpus=1, preload=["tests.cluster.some_forks"])
    try:
        first = ray.remote(_Hog).remote()
        assert get(first.lives.remote()) is False
        forbidden.touch()
        hogs = [ray.remote(_Hog).remote() for _ in range(5)]
        held = [hog.hold.remote(0, door.name) for hog in hogs]
        ready, waiting = ray.wait([hog.lives.remote() for hog in hogs], num_returns=5, timeout=0.5)
        assert len(ready) < 5, "there is no room for them"
        forbidden.unlink()
        pids = {door.arrival() for _ in hogs}
        door.let_in(5)
        assert get([*held, *waiting]) == [*[0] * 5, *[False] * len(waiting)]
        assert len(pids) == 5
    finally:
        ray.shutdown()


@pytest.mark.parametrize("num_cpus", [1, 200])
def test_a_limit_on_open_files_is_an_error_and_no_hang(tmp_path: Path, num_cpus: int) -> None:
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import asyncray as ray
from tests.cluster.test_limits import nest
ray.init(num_cpus={num_cpus})
try:
    ray.get(nest.remote(60), timeout=20)
except ray.exceptions.TaskUnschedulableError as error:
    assert "open files" in str(error), error
    assert ray.get(nest.remote(5)) == 5
    print("told")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.stdout, done.stderr) == ("told\n", "")


class Echo:
    """Answers what it is told."""

    async def call(self, value: int) -> int:
        return value


def test_actors_beyond_the_limit_on_open_files_wait_and_the_user_hears_why() -> None:
    program = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import asyncray as ray
from tests.cluster.test_limits import _Hog
ray.init(num_cpus=2, _system_config={"wait_check_s": 0.2})
hogs = [ray.remote(_Hog).remote() for _ in range(12)]
lives = [hog.lives.remote() for hog in hogs]
assert len(ray.wait(lives, num_returns=8, timeout=20)[0]) == 8
assert len(ray.wait(lives, num_returns=9, timeout=1)[0]) == 8
hogs.clear()
assert ray.get(lives, timeout=20) == [False] * 12
print("all were made in turn")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    told = "'_Hog.__init__' waits for a worker process: 8 exist, as many as the limit of 64 open files .*"
    assert done.stdout == "all were made in turn\n", done.stderr
    assert re.fullmatch(told, done.stderr.strip()), done.stderr


def test_a_node_without_descriptors_says_so_and_lives_on() -> None:
    program = """
import os, resource
import asyncray as ray
from asyncray.process import current
from tests.cluster.test_limits import Echo, _Hog, same
ray.init(num_cpus=1, _system_config={"wait_check_s": 0.2})
ray.get(same.remote(1))
node = current().driver._node.pid
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.prlimit(node, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{node}/fd")) + 5, most))
hogs = [ray.remote(_Hog).remote() for _ in range(3)]
lives = [hog.lives.remote() for hog in hogs]
assert ray.get(lives[0], timeout=20) is False
assert ray.wait(lives, num_returns=2, timeout=1) == ([lives[0]], lives[1:])
try:
    ray.get(ray.remote(Echo).options(isolation="shared").remote().call.remote(1), timeout=20)
except ray.exceptions.RuntimeEnvSetupError as error:
    print(error)
hogs.clear()
assert ray.get(lives, timeout=20) == [False] * 3
print("lives")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    why = "and no process can be started: [Errno 24] Too many open files"
    assert done.stdout == f"a host of light actors cannot be started: {why}\nlives\n", done.stderr
    assert done.stderr.startswith(f"'_Hog.__init__' waits for a worker process: 1 exist, {why}")


def test_a_driver_without_descriptors_says_so_and_goes_on_when_it_has_some() -> None:
    program = """
import os, resource
import asyncray as ray
from tests.cluster.test_limits import same
with ray.init(num_cpus=1):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    filling = [os.dup(0) for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(filling), most))
    try:
        ray.get(same.remote(1), timeout=20)
    except ray.exceptions.RaySystemError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(ray.get(same.remote(2), timeout=20))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    told = "the task 'same' cannot be sent to a worker: [Errno 24] Too many open files"
    assert (done.stdout, done.stderr) == (f"{told}\n2\n", "")


def test_more_workers_than_a_socket_takes_requests_for_all_start() -> None:
    with session(300):
        assert get([same.remote(i) for i in range(300)]) == list(range(300))


# --- resources ------------------------------------------------------------------------------------------


def test_what_nobody_has_stays_pending_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with session(), caplog.at_level(logging.WARNING, logger="asyncray"):
        impossible = [same.options(num_cpus=64, name="greedy").remote(i) for i in range(3)]
        assert get(same.remote("possible")) == "possible"
        assert not any(ref.done() for ref in impossible)
        (warning,) = [record.getMessage() for record in caplog.records]
        assert "'greedy'" in warning
        assert "64" in warning
        assert "'CPU': 2" in warning
        ray.cancel(impossible[0])
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(impossible[0])


def test_a_task_that_waits_for_what_nobody_has_can_be_given_up() -> None:
    with session():
        impossible = same.options(resources={"unobtainium": 1}).remote(1)
        dependent = same.remote(impossible)
        ray.cancel(impossible)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            get(dependent)
