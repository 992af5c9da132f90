"""The store under load and under kills: what is read is right, and at the end all of it is free."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import RayError
from tests.cluster.tables import Tables, counted, keep, kept, remote, remote_with, same, session, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

np = pytest.importorskip("numpy")

KIB = 1 << 10
MIB = 1 << 20
STORE_BYTES = 75 * MIB
LIMIT_S = 50
CYCLES = int(os.environ.get("ASYNCRAY_REUSE_CYCLES", "5000"))


@pytest.fixture
def tables() -> Iterator[Tables]:
    with counted(num_cpus=3, object_store_memory=STORE_BYTES) as tables:
        yield tables
        everything_is_free(tables)


def everything_is_free(tables: Tables) -> None:
    """There is room for a value as large as the store."""
    tables.clear_attics()
    settled(lambda: session().statistics().stored == 0, 10)
    whole = ray.put(np.ones(70 * MIB, "u1"))
    assert ray.get(whole)[-1] == 1
    del whole


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


def workers(tables: Tables) -> list[int]:
    """The workers that exist already: one that is being forked has no pid yet."""
    return [pid for pid in tables.pids() if pid]


def kill(pids: list[int]) -> None:
    """Kill those who are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def signed(seed: int) -> Any:
    """Bytes of some size that tell whether they are whole: their checksum stands in front."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, int(rng.integers(110 * KIB, 2 * MIB)), "u1")
    array[:4] = np.frombuffer(zlib.crc32(array[4:]).to_bytes(4, "big"), "u1")
    return array


def is_whole(array: Any) -> bool:
    return int.from_bytes(bytes(array[:4]), "big") == zlib.crc32(array[4:])


@remote
def made(seed: int) -> Any:
    return signed(seed)


@remote
def checked(key: int, *arrays: Any) -> bool:
    """Look at the arguments, and at what the last calls here have kept of theirs."""
    older = kept("views") or []
    fine = all(map(is_whole, arrays)) and all(map(is_whole, older))
    # A few: with all that three workers and the driver hold on to, there must be room for what comes.
    keep("views", [*older[-3:], *arrays] if key % 3 else [])
    return fine


@remote
def passed_on(array: Any, boxed: list[Any]) -> Any:
    """A result that refers to what this worker owns, and to what it was given."""
    return [ray.put(array), boxed[0], signed(int(array[5]))]


def test_many_processes_read_and_free_at_once(tables: Tables) -> None:
    rng = random.Random(5)
    held: list[Any] = []
    views: list[Any] = []
    for step in range(250):
        value = signed(step)
        held.append(rng.choice((ray.put(value), value, made.remote(step))))
        arguments = rng.sample(held, min(len(held), 3))
        told = checked.remote(step, *arguments)
        if step % 5 == 0:
            views.append(get(made.remote(step)))
            assert get(told)
        if step % 7 == 0:
            boxed = get(passed_on.remote(arguments[0], [ray.put(signed(step))]))
            assert all(is_whole(get(part) if isinstance(part, ray.ObjectRef) else part) for part in boxed)
        rng.shuffle(held)
        del held[8:], views[:-4]
        assert all(map(is_whole, views))
    assert get(told)
    held.clear()
    views.clear()
    del arguments, told, boxed


def test_threads_of_one_process_put_read_and_free_at_once(tables: Tables) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        mine: list[Any] = []
        for step in range(60):
            mine.append(ray.put(signed(1000 * number + step)))
            view = get(rng.choice(mine))
            if rng.random() < 0.5:
                mine.pop(0)
            if not is_whole(view):
                wrong.append(step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.timeout(60 + CYCLES // 1000)
def test_contents_are_exact_after_many_cycles_of_reuse(tables: Tables) -> None:
    """For a thorough look: ASYNCRAY_REUSE_CYCLES=3000000 pytest -o faulthandler_timeout=0."""
    sizes = (110 * KIB, 150 * KIB, 400 * KIB)
    patterns = [np.random.default_rng(step).integers(0, 256, sizes[step % 3], "u1") for step in range(48)]
    refs: list[Any] = [ray.put(pattern) for pattern in patterns[:16]]
    views: list[Any] = [get(ref) for ref in refs]
    holds = list(range(16))
    made_here = [remote(lambda value: value).remote(ref) for ref in refs[:4]]
    for step in range(16, 16 + CYCLES):
        place, which = step % 16, step * 7 % 48
        assert np.array_equal(views[place], patterns[holds[place]])
        refs[place], holds[place] = ray.put(patterns[which]), which
        views[place] = get(refs[place])
        if step % 100 == 0:
            # The pages of a worker's, too.
            assert all(np.array_equal(get(ref), patterns[at]) for at, ref in enumerate(made_here))
            made_here = [same.remote(patterns[at]) for at in range(4)]
    assert all(np.array_equal(view, patterns[at]) for view, at in zip(views, holds, strict=True))
    usage = session().questions.blocking("store")
    assert usage["grown"] < 60 * MIB
    refs.clear()
    views.clear()
    made_here.clear()


def test_workers_that_are_killed_at_any_moment_cost_nothing(tables: Tables) -> None:
    rng = random.Random(11)
    held: list[Any] = []
    looks: list[Any] = []
    for step in range(60):
        held.append(made.options(max_retries=-1).remote(step))
        told = checked.options(max_retries=-1).remote(step, *rng.sample(held, min(3, len(held))))
        looks.append(told)
        if step % 4 == 0:
            kill(workers(tables)[:1])
        if step % 3 == 0:
            assert get(told)
            assert is_whole(get(rng.choice(held)))
        del held[:-6]
    assert all(is_whole(get(ref)) for ref in held)
    # One that still ran would keep its views beyond the end of this test.
    assert all(map(get, looks))
    held.clear()
    del told


def test_owners_that_are_killed_take_their_objects_and_nothing_else(tables: Tables) -> None:
    views: list[Any] = []
    for step in range(12):
        try:
            boxed = get(passed_on.remote(signed(step), [ray.put(signed(step))]))
            views += [get(boxed[0]), get(boxed[1]), boxed[2]]
        except RayError:
            continue
        kill(workers(tables))
        del views[:-9], boxed
        assert all(map(is_whole, views))
    views.clear()


STEPS = {
    "while it writes": ("Arena.write", "before"),
    "when it has written": ("Arena.write", "after"),
    "when it has sealed": ("Store.hand_over", "after"),
    "while it reads": ("Store.load", "before"),
    "when it has read": ("Store.load", "after"),
    "when it frees": ("Supply.recycle", "before"),
    "when it has given back": ("Supply.give", "after"),
    "when it is asked who uses what": ("Store._gone", "before"),
    "when it spills": ("SpillFile.write", "after"),
}


@remote_with(max_retries=0)
def die_at(where: str, when: str, array: Any) -> Any:
    """Arrange for this process's death at one step, then make it take that step."""
    from asyncray.client.store import Store
    from asyncray.client.supply import Supply
    from asyncray.store.arena import Arena
    from asyncray.store.spill_file import SpillFile

    owner, _, name = where.partition(".")
    kind: Any = {"Arena": Arena, "Store": Store, "Supply": Supply, "SpillFile": SpillFile}[owner]
    real = getattr(kind, name)

    def deadly(*args: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args)
        os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(kind, name, deadly)
    mine = ray.put(signed(1))
    get(mine)
    del mine
    ray.put(signed(2))
    for seed in range(40):
        keep(seed, ray.put(np.full(4 * MIB, seed)))
    return array


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_a_step_leaves_nothing_and_spoils_nothing(tables: Tables, step: str) -> None:
    mine = ray.put(signed(7))
    view = get(made.remote(8))
    ref = die_at.remote(*STEPS[step], mine)
    ray.wait([ref], timeout=LIMIT_S)
    assert is_whole(get(mine))
    assert is_whole(view)
    for seed in range(10):
        assert is_whole(get(made.remote(seed)))
    del ref, mine, view


def test_a_dead_driver_s_memory_goes_with_it(tmp_path: Path) -> None:
    """Nothing is left of a session whose driver was killed while it held and spilled objects."""
    import subprocess
    import sys

    script = f"""
import asyncray as ray, os, signal, numpy as np
ray.init(num_cpus=1, object_store_memory={STORE_BYTES}, object_spilling_directory={str(tmp_path)!r})
refs = [ray.put(np.full(5 << 20, i % 256, "u1")) for i in range(30)]
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=LIMIT_S)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


class Haunted:
    """Something that puts when the garbage collector finds it: in the middle of anything."""

    def __init__(self, graves: list[Any]) -> None:
        self.me, self.graves = self, graves

    def __del__(self) -> None:
        self.graves.append(ray.put(signed(len(self.graves) % 7)))
        del self.graves[:-3]


def test_destructors_may_put_in_the_middle_of_anything(tables: Tables) -> None:
    graves: list[Any] = []
    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    try:
        for seed in range(400):
            Haunted(graves)
            assert is_whole(get(ray.put(signed(seed % 5))))
    finally:
        gc.set_threshold(*before)
        gc.collect()
    assert all(is_whole(get(ref)) for ref in graves)
    graves.clear()
