"""Objects that a task made and that are lost on disk are made again by running the task again."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.client.spilling import Spilled
from asyncray.exceptions import ObjectLostError, ObjectReconstructionFailedError
from tests.cluster.tables import Tables, remote, remote_with, session, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

np = pytest.importorskip("numpy")

MIB = 1 << 20
STORE_BYTES = 75 * MIB
PIECE = 5 * MIB
LIMIT_S = 40


#: Options of the session that the tests share.
SESSION = {"object_store_memory": STORE_BYTES}


@pytest.fixture
def tables(shared_ray: object) -> Iterator[Tables]:
    """What the session holds; at the end of the test that must be nothing."""
    tables = Tables()
    yield tables
    gc.collect()
    tables.clear_attics()
    tables.settle()
    assert len(session().owner.objects.lineage) == 0
    assert not session().owner.remaking.running


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


def piece(seed: int) -> Any:
    return np.full(PIECE, seed % 251, "u1")


def spill(*refs: Any) -> list[Any]:
    """Put objects on disk by making others; returns those others."""
    others: list[Any] = []
    while not all(type(ref._record.value) is Spilled for ref in refs):
        assert len(others) < 60
        others.append(ray.put(piece(0)))
    return others


def damage(*refs: Any) -> None:
    """Change what objects have on disk."""
    del spill(*refs)[:]
    spilling = session().store.spilling
    assert spilling is not None
    for ref in refs:
        spilled = ref._record.value
        assert type(spilled) is Spilled
        os.pwrite(spilling._file._fd, b"changed", spilled.at + PIECE // 2)


def runs(path: Path) -> int:
    """How often a task has noted that it ran."""
    return len(path.read_text()) if path.exists() else 0


def note(path: Path) -> None:
    with path.open("a") as file:
        file.write("x")


@remote
def made(path: Any, seed: int) -> Any:
    note(path)
    return piece(seed)


@remote
def plus(path: Any, array: Any, more: int) -> Any:
    note(path)
    return array + np.uint8(more)


@remote
def first(array: Any) -> int:
    return int(array[0])


@remote
def first_inside(values: Any) -> int:
    return int(ray.get(values[0])[0])


def test_who_reads_gets_the_value_of_a_second_run(tables: Tables, tmp_path: Path) -> None:
    ref = made.remote(tmp_path / "runs", 7)
    assert get(first.remote(ref)) == 7
    damage(ref)
    value = get(ref)
    assert (value == 7).all()
    assert runs(tmp_path / "runs") == 2


def test_an_argument_is_made_again_for_the_worker_that_asks(tables: Tables, tmp_path: Path) -> None:
    ref = made.remote(tmp_path / "runs", 8)
    get(first.remote(ref))
    damage(ref)
    assert get([first.remote(ref), first.remote(ref)]) == [8, 8]
    assert get(first_inside.remote([ref])) == 8
    assert runs(tmp_path / "runs") == 2


def test_arguments_that_nobody_holds_are_made_first(tables: Tables, tmp_path: Path) -> None:
    ref = made.remote(tmp_path / "first", 1)
    for step in range(2, 4):
        ref = plus.remote(tmp_path / str(step), ref, step)
    assert get(first.remote(ref)) == 6
    damage(ref)
    assert get(ref)[0] == 6
    assert [runs(tmp_path / name) for name in ("first", "2", "3")] == [2, 2, 2]


def test_an_argument_that_is_lost_too_is_made_again(tables: Tables, tmp_path: Path) -> None:
    one = made.remote(tmp_path / "one", 1)
    two = plus.remote(tmp_path / "two", one, 2)
    assert get(first.remote(two)) == 3
    damage(one, two)
    assert get(two)[0] == 3
    assert get(one)[0] == 1
    assert [runs(tmp_path / name) for name in ("one", "two")] == [2, 2]


def test_what_was_put_is_lost_and_says_why(tables: Tables) -> None:
    ref = ray.put(piece(1))
    damage(ref)
    for _ in range(2):
        with pytest.raises(ObjectLostError, match=r"checksum.*cannot be made again.*`put`"):
            get(ref)
    with pytest.raises(ObjectLostError, match="checksum"):
        get(first.remote(ref))


def test_a_task_that_may_not_run_twice_is_named(tables: Tables, tmp_path: Path) -> None:
    ref = made.options(max_retries=0).remote(tmp_path / "runs", 1)
    get(first.remote(ref))
    damage(ref)
    with pytest.raises(ObjectReconstructionFailedError, match=r"checksum.*'made'.*max_retries=0"):
        get(ref)
    assert runs(tmp_path / "runs") == 1


def test_each_run_costs_a_retry(tables: Tables, tmp_path: Path) -> None:
    ref = made.options(max_retries=1).remote(tmp_path / "runs", 1)
    get(first.remote(ref))
    damage(ref)
    assert get(first.remote(ref)) == 1
    damage(ref)
    with pytest.raises(ObjectReconstructionFailedError, match=r"'made'.*retries are used up"):
        get(ref)


def test_one_of_several_returns_is_made_again_and_the_others_stay(tables: Tables, tmp_path: Path) -> None:
    path = tmp_path / "runs"

    @remote_with(num_returns=3)
    def three() -> Any:
        note(path)
        return piece(runs(path)), piece(10 + runs(path)), "small"

    one, two, small = three.remote()
    assert get([first.remote(one), first.remote(two), small]) == [1, 11, "small"]
    damage(one)
    assert get(one)[0] == 2
    assert get(two)[0] == 11
    assert get(small) == "small"


def test_what_a_short_file_has_lost_is_made_again(tables: Tables, tmp_path: Path) -> None:
    refs = [made.remote(tmp_path / "runs", seed) for seed in (1, 2)]
    get([first.remote(ref) for ref in refs])
    del spill(*refs)[:]
    spilling = session().store.spilling
    assert spilling is not None
    os.ftruncate(spilling._file._fd, 0)
    assert [int(value[0]) for value in get(refs)] == [1, 2]


def test_many_threads_and_tasks_that_read_wait_for_one_run(tables: Tables, tmp_path: Path) -> None:
    ref = made.remote(tmp_path / "runs", 5)
    get(first.remote(ref))
    damage(ref)
    calls = [first.remote(ref) for _ in range(4)] + [first_inside.remote([ref]) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: int(get(ref)[0]), range(8)))
    assert values == [5] * 8
    assert get(calls) == [5] * 8
    assert runs(tmp_path / "runs") == 2


def test_a_worker_that_dies_before_it_has_told_of_a_result_loses_nothing(
    tables: Tables, tmp_path: Path
) -> None:
    @remote
    def dies_once(path: Path) -> Any:
        note(path)
        value = piece(runs(path))
        if runs(path) == 1:
            # The value is in the store, and nobody has been told.
            session().store.encode(value)
            os._exit(1)
        return value

    assert get(dies_once.remote(tmp_path / "runs"))[0] == 2


def test_the_maker_of_a_lost_object_may_be_dead(tables: Tables, tmp_path: Path) -> None:
    @remote
    def made_by(path: Path) -> tuple[int, Any]:
        note(path)
        return os.getpid(), piece(3)

    ref = made_by.remote(tmp_path / "runs")
    pid = get(ref)[0]
    os.kill(pid, signal.SIGKILL)
    settled(lambda: pid not in tables.pids())
    damage(ref)
    other, value = get(ref)
    assert other != pid
    assert value[0] == 3
    assert runs(tmp_path / "runs") == 2


def test_a_coroutine_that_reads_waits_too(tables: Tables, tmp_path: Path) -> None:
    @remote
    async def read(refs: Any) -> int:
        value = await refs[0]
        return int(value[0])

    async def main() -> list[int]:
        values = await asyncio.gather(ref, ray.aio.get([ref]), read.remote([ref]))
        return [int(values[0][0]), int(values[1][0][0]), values[2]]

    ref = made.remote(tmp_path / "runs", 9)
    get(first.remote(ref))
    damage(ref)
    assert asyncio.run(main()) == [9, 9, 9]
    assert runs(tmp_path / "runs") == 2


def test_an_item_of_a_stream_is_made_again(tables: Tables, tmp_path: Path) -> None:
    @remote_with(num_returns="streaming")
    def items(path: Path) -> Iterator[Any]:
        note(path)
        for seed in range(3):
            yield piece(seed)

    refs = list(items.remote(tmp_path / "runs"))
    assert get([first.remote(ref) for ref in refs]) == [0, 1, 2]
    damage(refs[1])
    assert get(refs[1])[0] == 1
    assert runs(tmp_path / "runs") == 2


def test_references_inside_a_value_that_is_made_again_are_new(tables: Tables, tmp_path: Path) -> None:
    @remote
    def with_own(path: Path) -> Any:
        note(path)
        return [piece(1), ray.put(runs(path))]

    ref = with_own.remote(tmp_path / "runs")
    array, inner = get(ref)
    assert get(inner) == 1
    del array
    damage(ref)
    _, again = get(ref)
    assert (get(inner), get(again)) == (1, 2)


def test_small_tasks_leave_no_lineage(tables: Tables) -> None:
    @remote
    def small(value: int) -> int:
        return value

    for _ in range(5):
        assert get([small.remote(number) for number in range(2000)])[-1] == 1999
    assert len(session().owner.objects.lineage.specs) == 0
