"""A worker dies: what its tasks do, who pays for it with a retry, and what the caller hears."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import OwnerDiedError, TaskCancelledError, WorkerCrashedError

from . import processes
from .doors import Doors, say_at, stand_at, wait_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Sharing

pytestmark = pytest.mark.usefixtures("one_cpu")
#: Seconds for what must not hang.
SOON_S = 20.0


@pytest.fixture(scope="module")
def one_cpu(sharing: Sharing) -> Iterator[None]:
    """A session with one CPU, so that tasks queue behind each other."""
    with sharing(num_cpus=1):
        yield


@ray.remote
def at(door: str) -> int:
    return stand_at(door)


@ray.remote
def noted(path: str, text: str, how: str = "") -> str:
    """Note that this ran; then die in some way, or return."""
    with open(path, "a") as file:  # noqa: PTH123
        file.write(f"{text}\n")
    die(how)
    return text


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how.startswith("exit"):
        os._exit(int(how[4:]))


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=SOON_S)


def runs(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


# --- how often a task runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "expected"), [(0, 1), (1, 2), (2, 3)])
def test_a_task_that_kills_its_worker_runs_once_and_once_more_for_each_retry(
    tmp_path: Path, retries: int, expected: int
) -> None:
    path = tmp_path / "runs"
    with pytest.raises(WorkerCrashedError):
        get(noted.options(max_retries=retries).remote(str(path), "ran", "kill"))
    assert len(runs(path)) == expected


def test_three_retries_are_the_default(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with pytest.raises(WorkerCrashedError, match="after 4 attempts"):
        get(noted.remote(str(path), "ran", "kill"))
    assert len(runs(path)) == 4


def test_minus_one_retries_without_end(tmp_path: Path) -> None:
    path = tmp_path / "runs"

    @ray.remote(max_retries=-1)
    def dies_six_times() -> int:
        with path.open("a") as file:
            file.write("ran\n")
        if len(path.read_text().split()) <= 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return 7

    assert get(dies_six_times.remote()) == 7
    assert len(runs(path)) == 7


def test_only_the_running_task_pays_and_not_the_quick_ones_before_it(tmp_path: Path) -> None:
    """Results of quick tasks are reported together; their worker may die before that."""
    path = tmp_path / "runs"
    one_retry = noted.options(max_retries=1)
    get([one_retry.remote(str(tmp_path / "warm"), "quick") for _ in range(200)])
    refs = [one_retry.remote(str(path), str(i), "kill" if i % 10 == 9 else "") for i in range(50)]
    for i, ref in enumerate(refs):
        if i % 10 == 9:
            with pytest.raises(WorkerCrashedError):
                get(ref)
        else:
            assert get(ref) == str(i)
    for i in range(9, 50, 10):
        assert runs(path).count(str(i)) == 2


def test_a_task_behind_the_one_that_dies_has_not_started_and_does_not_pay(
    doors: Doors, tmp_path: Path
) -> None:
    door, path = doors.new(), tmp_path / "runs"
    first = at.options(max_retries=0).remote(door.name)
    behind = [noted.options(max_retries=0).remote(str(path), str(i)) for i in range(5)]
    processes.kill(door.arrival())
    with pytest.raises(WorkerCrashedError):
        get(first)
    assert get(behind) == ["0", "1", "2", "3", "4"]
    assert runs(path) == ["0", "1", "2", "3", "4"]


def test_a_task_whose_worker_dies_before_it_has_read_it_does_not_pay(doors: Doors) -> None:
    door = doors.new()
    never_twice = at.options(max_retries=0)
    door.let_in()
    worker = get(never_twice.remote(door.name))
    door.arrival()
    os.kill(worker, signal.SIGSTOP)  # it is leased still, so the next task is sent to it, and it cannot read
    ref = never_twice.remote(door.name)
    assert door.is_quiet()
    os.kill(worker, signal.SIGKILL)
    door.let_in()
    assert door.arrival() == get(ref) != worker


def test_a_worker_that_dies_while_it_reports_has_run_the_task(tmp_path: Path) -> None:
    path = tmp_path / "runs"

    class Deadly:
        def __reduce__(self) -> Any:
            if ray.get_runtime_context().get_task_name():
                os.kill(os.getpid(), signal.SIGKILL)
            return Deadly, ()

    @ray.remote(max_retries=1)
    def returns_it() -> Any:
        with path.open("a") as file:
            file.write("ran\n")
        return Deadly()

    with pytest.raises(WorkerCrashedError, match="returns_it"):
        get(returns_it.remote())
    assert len(runs(path)) == 2


def test_a_worker_that_is_killed_while_its_task_waits_for_another_pays_for_one(
    doors: Doors, tmp_path: Path
) -> None:
    outer_door, inner_door, path = doors.new(), doors.new(), tmp_path / "runs"

    @ray.remote(max_retries=1)
    def outer() -> Any:
        with path.open("a") as file:
            file.write("ran\n")
        child = at.remote(inner_door.name)
        say_at(outer_door.name, str(os.getpid()))
        return ray.get(child)

    ref = outer.remote()
    worker, child = outer_door.arrival(), inner_door.arrival()
    processes.kill(worker)
    again, second_child = outer_door.arrival(), inner_door.arrival()
    assert again != worker
    assert not processes.left_of([worker, child], within_s=5), "the child's caller is dead"
    inner_door.let_in()
    assert get(ref) == second_child
    assert len(runs(path)) == 2


def test_coroutines_share_a_worker_and_all_of_them_pay(doors: Doors) -> None:
    door = doors.new()

    @ray.remote(max_retries=1)
    async def stands() -> int:
        import asyncio

        return await asyncio.to_thread(stand_at, door.name)

    refs = [stands.remote() for _ in range(3)]
    (first,) = {door.arrival() for _ in refs}
    processes.kill(first)
    (second,) = {door.arrival() for _ in refs}
    assert second != first
    processes.kill(second)
    for ref in refs:
        with pytest.raises(WorkerCrashedError, match=f"stands.*after 2 attempts.*{second}.*SIGKILL"):
            get(ref)


# --- retry_exceptions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "raised", "expected"),
    [
        (False, KeyError, 1),
        (True, KeyError, 3),
        ([KeyError], KeyError, 3),
        ([LookupError, OSError], KeyError, 3),
        ([OSError], KeyError, 1),
    ],
)
def test_an_exception_is_retried_when_retry_exceptions_names_it(
    tmp_path: Path, wanted: Any, raised: type[Exception], expected: int
) -> None:
    path = tmp_path / "runs"

    @ray.remote(max_retries=2, retry_exceptions=wanted)
    def raises() -> None:
        with path.open("a") as file:
            file.write("ran\n")
        raise raised("no")

    with pytest.raises(raised):
        get(raises.remote())
    assert len(runs(path)) == expected


def test_a_crash_and_an_exception_pay_from_the_same_purse(tmp_path: Path) -> None:
    path = tmp_path / "runs"

    @ray.remote(max_retries=2, retry_exceptions=True)
    def alternates() -> None:
        with path.open("a") as file:
            file.write("ran\n")
        if len(path.read_text().split()) % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("second")

    with pytest.raises(WorkerCrashedError, match="after 3 attempts"):
        get(alternates.remote())
    assert len(runs(path)) == 3


# --- what the caller hears ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("kill", r"was killed by SIGKILL \(signal 9\)"),
        ("segv", r"was killed by SIGSEGV \(signal 11\)"),
        ("exit0", "exited with code 0"),
        ("exit7", "exited with code 7"),
    ],
)
def test_the_error_names_the_task_its_process_and_how_that_ended(how: str, told: str) -> None:
    with pytest.raises(WorkerCrashedError, match=f"'the culprit' died: process [0-9]+ {told}"):
        get(noted.options(name="the culprit", max_retries=0).remote(os.devnull, "", how))


def test_what_a_worker_had_written_before_it_died_is_still_shown(capfd: pytest.CaptureFixture[str]) -> None:
    @ray.remote(max_retries=0, name="last_words")
    def last_words() -> None:
        print("these are my last words")
        os._exit(3)

    with pytest.raises(WorkerCrashedError):
        get(last_words.remote())
    get(noted.remote(os.devnull, "what follows comes after it"))
    out = capfd.readouterr().out
    assert re.search(r"\(last_words pid=\d+\) these are my last words", out)


# --- what goes with it ----------------------------------------------------------------------------------


def test_children_that_a_task_has_started_die_with_its_worker(doors: Doors) -> None:
    door = doors.new()

    @ray.remote(max_retries=0)
    def starts_children() -> None:
        wait = "import os, sys; os.read(os.open(sys.argv[1], os.O_RDWR), 1)"
        child = subprocess.Popen([sys.executable, "-c", wait, f"{door.name}.passes"])
        forked = os.fork()
        if forked == 0:
            wait_at(door.name)
            os._exit(0)
        say_at(door.name, f"{child.pid} {forked} {os.getpid()}")
        wait_at(door.name)

    ref = starts_children.remote()
    pids = [int(pid) for pid in door.hear().split()]
    processes.kill(pids[-1])
    with pytest.raises(WorkerCrashedError):
        get(ref)
    assert not processes.left_of(pids, within_s=5)


def test_a_dead_owners_objects_are_lost_at_once(doors: Doors) -> None:
    door = doors.new()

    @ray.remote(max_retries=0)
    def owner() -> list[Any]:
        pending = at.options(num_cpus=0).remote(door.name)
        return [ray.put("fetched"), ray.put("never fetched"), pending, os.getpid()]

    fetched, never_fetched, pending, pid = get(owner.remote())
    assert get(fetched) == "fetched"
    door.arrival()
    processes.kill(pid)
    with pytest.raises(OwnerDiedError):
        get(pending)
    with pytest.raises(OwnerDiedError):
        get(never_fetched)
    assert get(fetched) == "fetched", "its value is here already"


def test_a_task_that_waits_for_a_dead_owners_object_fails_with_it(doors: Doors) -> None:
    door = doors.new()

    @ray.remote(max_retries=0)
    def owner() -> list[Any]:
        return [at.options(num_cpus=0).remote(door.name), os.getpid()]

    pending, pid = get(owner.remote())
    dependent = noted.remote(os.devnull, pending)
    door.arrival()
    processes.kill(pid)
    with pytest.raises(OwnerDiedError):
        get(dependent)


def test_a_task_blocked_on_a_dead_owners_object_hears_of_it(doors: Doors) -> None:
    door, blocked = doors.new(), doors.new()

    @ray.remote(max_retries=0)
    def owner() -> list[Any]:
        return [at.options(num_cpus=0).remote(door.name), os.getpid()]

    @ray.remote
    def borrower(refs: list[Any]) -> str:
        say_at(blocked.name, "about to block")
        try:
            ray.get(refs)
        except OwnerDiedError:
            return "heard"
        return "not heard"

    pending, pid = get(owner.remote())
    door.arrival()
    ref = borrower.remote([pending])
    blocked.hear()
    processes.kill(pid)
    assert get(ref) == "heard"


def test_a_dependent_task_never_runs_and_carries_the_first_failure(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    crashed = noted.options(max_retries=0, name="the first").remote(os.devnull, "", "kill")
    dependent = noted.remote(str(path), crashed)
    next_one = noted.remote(str(path), dependent)
    with pytest.raises(WorkerCrashedError, match="'the first'"):
        get(next_one)
    assert runs(path) == []


# --- force ----------------------------------------------------------------------------------------------


def test_force_kills_the_worker_of_a_cancelled_task_and_nothing_else_suffers(doors: Doors) -> None:
    door = doors.new()

    @ray.remote
    def stubborn() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        return stand_at(door.name)

    ref = stubborn.remote()
    behind = noted.options(max_retries=0).remote(os.devnull, "behind")
    worker = door.arrival()
    ray.cancel(ref, force=True)
    with pytest.raises(TaskCancelledError):
        get(ref)
    assert get(behind) == "behind"
    assert not processes.left_of([worker], within_s=5)


def test_force_ends_what_the_cancelled_task_has_called_for(doors: Doors) -> None:
    outer_door, inner_door = doors.new(), doors.new()

    @ray.remote
    def outer() -> Any:
        child = at.remote(inner_door.name)
        say_at(outer_door.name, str(os.getpid()))
        return ray.get(child)

    ref = outer.remote()
    pids = [outer_door.arrival(), inner_door.arrival()]
    ray.cancel(ref, force=True)
    with pytest.raises(TaskCancelledError):
        get(ref)
    assert not processes.left_of(pids, within_s=5)
    assert get(noted.remote(os.devnull, "the CPU is free again")) == "the CPU is free again"


# --- a task that does strange things to its own process -----------------------------------------------------


def test_a_child_that_a_task_forks_may_end_by_sys_exit() -> None:
    @ray.remote(max_retries=0)
    def forks() -> str:
        child = os.fork()
        if child == 0:
            sys.exit(5)
        return f"the child ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"

    assert get(forks.remote()) == "the child ended with 5"
    assert get(noted.remote(os.devnull, "next")) == "next"


def test_a_child_that_returns_from_the_task_reports_nothing_and_ends() -> None:
    @ray.remote(max_retries=0)
    def forks() -> str:
        child = os.fork()
        if child == 0:
            return "the child's"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return "the parent's"

    assert get([forks.remote() for _ in range(3)]) == ["the parent's"] * 3
    assert get(noted.remote(os.devnull, "next")) == "next"


def test_a_task_that_closes_every_descriptor_of_its_process_does_not_hang_its_caller() -> None:
    @ray.remote(max_retries=0)
    def closes_everything() -> None:
        os.closerange(3, 1000)

    with pytest.raises(WorkerCrashedError, match="closes_everything"):
        get(closes_everything.remote())
    assert get(noted.remote(os.devnull, "next")) == "next"


def test_a_task_that_raises_system_exit_fails_and_its_worker_lives() -> None:
    @ray.remote(max_retries=0)
    def leaves() -> None:
        sys.exit(3)

    with pytest.raises(ray.exceptions.RayTaskError, match="SystemExit: 3"):
        get(leaves.remote())
    assert get(noted.remote(os.devnull, "next")) == "next"
