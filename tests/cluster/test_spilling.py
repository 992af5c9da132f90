"""A store that is too small: objects go to disk and come back, and nothing is lost or left."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.client.spilling import Spilled
from asyncray.exceptions import ObjectLostError, ObjectStoreFullError, OutOfDiskError
from tests.cluster.tables import Tables, counted, own, recall, same, session, settled, stash

if TYPE_CHECKING:
    from collections.abc import Iterator

np = pytest.importorskip("numpy")

MIB = 1 << 20
STORE_BYTES = 75 * MIB
PIECE = 5 * MIB
LIMIT_S = 40


@pytest.fixture
def tables() -> Iterator[Tables]:
    with counted(object_store_memory=STORE_BYTES) as tables:
        yield tables


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


def piece(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, PIECE, "u1")


def on_disk(ref: Any) -> Any:
    """What stands for an object on disk."""
    value = ref._record.value
    assert type(value) is Spilled
    return value


def is_spilled(ref: Any) -> bool:
    return type(ref._record.value) is Spilled


@ray.remote
def made(seed: int) -> Any:
    return piece(seed)


@ray.remote
def total(array: Any) -> int:
    return int(array.sum())


@ray.remote
def total_inside(value: Any) -> int:
    return int(ray.get(value[0]).sum())


def test_a_working_set_of_three_stores_runs_through(tables: Tables) -> None:
    refs = [ray.put(piece(seed)) for seed in range(45)]
    assert sum(map(is_spilled, refs)) >= 30
    for seed, ref in enumerate(refs):
        assert (get(ref) == piece(seed)).all()
    assert get(ray.get([total.remote(ref) for ref in refs]) and total.remote(refs[0])) == piece(0).sum()


def test_results_that_do_not_fit_run_through(tables: Tables) -> None:
    refs = [made.remote(seed) for seed in range(45)]
    totals = [total.remote(ref) for ref in refs]
    for seed, ref in enumerate(refs):
        assert get(totals[seed]) == piece(seed).sum()
        assert (get(ref) == piece(seed)).all()


def test_a_spilled_object_is_read_by_tasks_and_from_inside_others(tables: Tables) -> None:
    first = ray.put(piece(1))
    rest = [ray.put(piece(seed)) for seed in range(2, 20)]
    assert is_spilled(first)
    assert get(total.remote(first)) == piece(1).sum()
    rest += [ray.put(piece(seed)) for seed in range(2, 20)]
    assert get(total_inside.remote([first])) == piece(1).sum()
    del rest


def test_what_was_used_last_stays(tables: Tables) -> None:
    refs = [ray.put(piece(seed)) for seed in range(7)]
    for _ in range(2):
        get(refs[0])
    refs += [ray.put(piece(seed)) for seed in range(7, 14)]
    settled(lambda: is_spilled(refs[1]))
    assert not is_spilled(refs[0])


def test_what_is_being_read_stays(tables: Tables) -> None:
    view = get(ray.put(piece(1)))
    kept = ray.put(piece(2))
    look = get(kept)
    rest = [ray.put(piece(seed)) for seed in range(3, 40)]
    assert not is_spilled(kept)
    assert (view == piece(1)).all()
    assert (look == piece(2)).all()
    del rest


def test_what_a_worker_keeps_is_not_spilled_under_it(tables: Tables) -> None:
    with_one = ray.put([piece(1)])
    get(stash.remote("kept", with_one))
    rest = [ray.put(piece(seed)) for seed in range(3, 40)]
    assert not is_spilled(with_one)
    del with_one, rest
    found = [value for value in get([recall.remote("kept") for _ in range(8)]) if value is not None]
    assert all((value[0] == piece(1)).all() for value in found)
    del found


def test_a_worker_spills_what_it_owns(tables: Tables) -> None:
    inner = [get(own.remote(piece(seed)))[0] for seed in range(4)]
    rest = [ray.put(piece(seed)) for seed in range(30)]
    for seed, ref in enumerate(inner):
        assert get(total.remote(ref)) == piece(seed).sum()
    del rest


def test_references_inside_spilled_objects_live(tables: Tables) -> None:
    outer = ray.put([piece(1), ray.put("inner"), same.remote([5])])
    rest = [ray.put(piece(seed)) for seed in range(30)]
    assert is_spilled(outer)
    array, inner, five = get(outer)
    assert (array == piece(1)).all()
    assert get([inner, five]) == ["inner", [5]]
    del rest


def test_freed_objects_give_the_disk_back(tables: Tables, tmp_path: Any) -> None:
    refs = [ray.put(piece(seed)) for seed in range(40)]
    spilling = session().store.spilling
    assert spilling is not None
    fd = spilling._file._fd
    before = os.fstat(fd).st_blocks * 512
    assert before >= 20 * PIECE
    # The oldest stay: they are on disk, whichever others are, so that the file is not closed meanwhile.
    del refs[10:]
    settled(lambda: os.fstat(fd).st_blocks * 512 <= 12 * PIECE)
    refs.clear()
    settled(lambda: spilling._file._fd < 0)


def test_nothing_has_a_name_on_disk(tmp_path: Any) -> None:
    with counted(object_store_memory=STORE_BYTES, object_spilling_directory=str(tmp_path)):
        refs = [ray.put(piece(seed)) for seed in range(30)]
        assert any(map(is_spilled, refs))
        assert list(tmp_path.iterdir()) == []
        refs.clear()


class _Keeper:
    """Reads what is inside a list, and keeps it."""

    def keep(self, value: list[Any]) -> bool:
        self.array = ray.get(value[0])
        return True

    def total(self) -> int:
        return int(self.array.sum())


Keeper = ray.remote(_Keeper)


def test_two_who_restore_one_object_at_once_are_told_the_same_place(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [ray.put(piece(seed)) for seed in range(30)]
    assert is_spilled(refs[0])
    spilling = session().store.spilling
    assert spilling is not None
    read, both = spilling._read, threading.Barrier(2)

    def read_together(spilled: Spilled, into: memoryview) -> None:
        read(spilled, into)
        both.wait(LIMIT_S)

    monkeypatch.setattr(spilling, "_read", read_together)
    readers = [Keeper.remote() for _ in range(2)]
    assert get([reader.keep.remote(refs[:1]) for reader in readers]) == [True, True]
    monkeypatch.undo()
    refs = [refs[0], *(ray.put(piece(seed)) for seed in range(100, 120))]
    assert get([reader.total.remote() for reader in readers]) == [piece(0).sum()] * 2
    refs.clear()


def test_bytes_that_changed_on_disk_are_not_handed_out(tables: Tables) -> None:
    refs = [ray.put(piece(seed)) for seed in range(30)]
    spilled = on_disk(refs[0])
    spilling = session().store.spilling
    assert spilling is not None
    os.pwrite(spilling._file._fd, b"changed", spilled.at + PIECE // 2)
    with pytest.raises(ObjectLostError, match="checksum"):
        get(refs[0])
    with pytest.raises(ObjectLostError, match="checksum"):
        get(total.remote(refs[0]))
    del spilled
    refs.clear()


def test_a_full_disk_is_named() -> None:
    config = {"disk_threshold": 1e-9, "store_patience_s": 0.0}
    with counted(object_store_memory=STORE_BYTES, _system_config=config):
        refs = [ray.put(piece(seed)) for seed in range(12)]
        with pytest.raises(OutOfDiskError, match="the disk would be more than"):
            refs += [ray.put(piece(seed)) for seed in range(14)]
        refs.clear()


def test_a_store_full_of_what_is_read_says_so() -> None:
    with counted(object_store_memory=STORE_BYTES, _system_config={"store_patience_s": 0.2}):
        views = [get(ray.put(piece(seed))) for seed in range(13)]
        with pytest.raises(ObjectStoreFullError, match="no room for"):
            ray.put(np.ones(20 * MIB, "u1"))
        views.clear()
        assert get(ray.put(np.ones(20 * MIB, "u1")))[-1] == 1


def test_a_folder_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="object_spilling_directory"):
        ray.init(object_spilling_directory="/nowhere/at/all")
