"""Calls that wait hold nobody up: deep nesting on few CPUs, and queues that move to workers that idle."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import OwnerDiedError
from tests.cluster.tables import session, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from tests.cluster.gates import Gates

LIMIT_S = 30


@pytest.fixture
def one_cpu() -> Iterator[ModuleType]:
    ray.init(num_cpus=1)
    yield ray
    ray.shutdown()


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
def increment(number: int) -> int:
    return number + 1


# ---- nesting ----


@pytest.mark.parametrize("cpus", [1, 2])
def test_calls_are_nested_two_hundred_deep(cpus: int) -> None:
    @ray.remote
    def descend(levels: int) -> int:
        return 1 + ray.get(descend.remote(levels - 1)) if levels else 0

    ray.init(num_cpus=cpus)
    try:
        assert get(descend.remote(200)) == 200
    finally:
        ray.shutdown()


def test_calls_are_nested_deep_on_one_cpu_with_work_beside_them(one_cpu: ModuleType) -> None:
    @ray.remote
    def descend(levels: int) -> Any:
        if not levels:
            return 0
        children = [descend.remote(levels - 1), *(same.remote(i) for i in range(5))]
        return 1 + ray.get(children)[0]

    @ray.remote
    async def descend_async(levels: int) -> int:
        return 1 + await descend_async.remote(levels - 1) if levels else 0

    assert get([descend.remote(20), descend_async.remote(20), descend.remote(20)]) == [20, 20, 20]


def test_an_argument_whose_owner_dies_fails_what_waits_for_it(ray_session: ModuleType, gates: Gates) -> None:
    gate = gates.new()

    @ray.remote
    def submit(boxed: list[Any]) -> Any:
        return [os.getpid(), increment.remote(boxed[0])]

    pid, ref = get(submit.remote([gate.ref(1)]))
    waiting = same.remote(ref)
    os.kill(pid, 9)
    with pytest.raises(OwnerDiedError):
        get(waiting)


# ---- queues that move ----


@ray.remote
def work(path: str, folder: str, number: int) -> int:
    """Run until a pipe has been written to, without giving the CPU back; note that it ran."""
    with open(f"{folder}/log", "a") as log:  # noqa: PTH123
        log.write(f"{number}\n")
    if path:
        os.read(os.open(path, os.O_RDONLY), 1)
    return os.getpid()


class Pipes:
    """Pipes that tasks read from, so that they keep their workers busy."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        (folder / "log").touch()
        self.paths = [str(folder / f"pipe {i}") for i in range(count)]
        for path in self.paths:
            os.mkfifo(path)
        self._fds = [os.open(path, os.O_RDWR) for path in self.paths]

    def open(self, index: int) -> None:
        os.write(self._fds[index], b".")

    def runs(self) -> Counter[int]:
        """How often each number ran."""
        return Counter(map(int, (self.folder / "log").read_text().split()))

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Pipes]:
    made = Pipes(tmp_path, 3)
    yield made
    made.close()


def make_quick(folder: Path) -> None:
    """Let `work` be known as a quick function, so that many calls of it are sent ahead."""
    quick = folder / "quick"
    quick.mkdir()
    for _ in range(3):
        get([work.remote("", str(quick), 0) for _ in range(200)])


def in_flight() -> list[int]:
    """How many calls each leased worker of the driver has."""
    with session().owner.lock:
        return sorted(len(lease.in_flight) for lease in session().leases._leases.values())


def test_what_waits_behind_a_long_task_moves_to_a_worker_that_idles(
    ray_session: ModuleType, pipes: Pipes
) -> None:
    make_quick(pipes.folder)
    folder = str(pipes.folder)
    long = [work.remote(pipes.paths[i], folder, i) for i in range(2)]
    short = [work.remote("", folder, 10 + i) for i in range(100)]
    settled(lambda: pipes.runs().keys() == {0, 1})
    pipes.open(1)
    pids = set(get(short))
    assert pids == {get(long[1])}
    assert not long[0].done()
    pipes.open(0)
    assert get(long[0]) not in pids
    assert pipes.runs() == Counter([0, 1, *range(10, 110)])


def test_what_waits_behind_several_long_tasks_moves_again(ray_session: ModuleType, pipes: Pipes) -> None:
    """The worker that the waiting calls have moved to meets a long one among them."""
    make_quick(pipes.folder)
    folder = str(pipes.folder)
    first = [work.remote(pipes.paths[i], folder, i) for i in range(2)]
    short = [work.remote("", folder, 10 + i) for i in range(20)]
    third = work.remote(pipes.paths[2], folder, 2)
    short += [work.remote("", folder, 30 + i) for i in range(20)]
    settled(lambda: pipes.runs().keys() == {0, 1})
    pipes.open(1)
    settled(lambda: pipes.runs()[2] == 1)
    pipes.open(0)
    get(short)
    assert not third.done()
    pipes.open(2)
    get([*first, third])
    assert set(pipes.runs().values()) == {1}
    assert len(pipes.runs()) == 43


def test_what_waits_behind_a_task_that_waits_moves(one_cpu: ModuleType, pipes: Pipes, gates: Gates) -> None:
    gate, folder = gates.new(), str(pipes.folder)

    @ray.remote
    def wait_or_not(boxed: list[Any]) -> int:
        ray.get(boxed)
        return os.getpid()

    for _ in range(3):
        get([wait_or_not.remote([]) for _ in range(200)])
    waiting = wait_or_not.remote([gate.ref()])
    behind = [wait_or_not.remote([]) for _ in range(100)]
    others = set(get(behind))
    assert not waiting.done()
    gate.open()
    assert get(waiting) not in others
    assert folder


def test_a_function_that_was_never_measured_has_nothing_queued_behind_it(
    ray_session: ModuleType, pipes: Pipes
) -> None:
    folder = str(pipes.folder)
    refs = [work.remote(pipes.paths[i], folder, i) for i in range(2)]
    last = work.remote("", folder, 2)
    settled(lambda: in_flight() == [1, 1])
    pipes.open(0)
    assert get(last) == get(refs[0])
    assert not refs[1].done()
    pipes.open(1)
    get(refs)


def test_what_moves_takes_its_arguments_along(ray_session: ModuleType, pipes: Pipes) -> None:
    @ray.remote
    def look(path: str, direct: Any, boxed: list[Any]) -> Any:
        if path:
            os.read(os.open(path, os.O_RDONLY), 1)
        return [direct, ray.get(boxed[0]) if path is None else boxed[0]]

    for _ in range(3):
        get([look.remote("", 1, [1]) for _ in range(200)])
    long = [look.remote(pipes.paths[i], i, [i]) for i in range(2)]
    short = [look.remote("", ray.put(i), [ray.put(i)]) for i in range(50)]
    pipes.open(1)
    assert [[direct, get(ref)] for direct, ref in get(short)] == [[i, i] for i in range(50)]
    pipes.open(0)
    get(long)
