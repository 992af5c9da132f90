"""Memory of the store that nobody uses any more goes back to the system; what is used or read stays."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from tests.cluster.tables import Tables, counted, session, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

np = pytest.importorskip("numpy")

MIB = 1 << 20
STORE_BYTES = 200 * MIB
IDLE_S = 0.2


@pytest.fixture
def tables() -> Iterator[Tables]:
    with counted(object_store_memory=STORE_BYTES, _system_config={"store_idle_s": IDLE_S}) as tables:
        yield tables


@ray.remote
def made(seed: int) -> Any:
    return np.full(20 * MIB, seed, "u1")


def memory() -> int:
    """Bytes that the store takes, as the system counts them."""
    for file in Path(f"/proc/{session().facts['pid']}/fd").iterdir():
        with suppress(FileNotFoundError):  # one that the node has just closed
            if "asyncray-store" in str(file.readlink()):
                return file.stat().st_blocks * 512
    raise AssertionError("the node has no store")


def grown() -> int:
    """The same, as the node reckons it."""
    return int(session().questions.blocking("store")["grown"])


def test_an_empty_store_takes_no_memory(tables: Tables) -> None:
    refs = [ray.put(np.full(12 * MIB, seed, "u1")) for seed in range(5)] + [
        made.remote(seed) for seed in (5, 6)
    ]
    assert all(ray.get(ref)[-1] == seed for seed, ref in enumerate(refs))
    assert memory() >= 100 * MIB
    refs.clear()
    settled(lambda: memory() == 0, 10)
    assert grown() == 0
    assert "0.0 MiB of memory used" in ray.util.memory_summary()


def test_what_is_used_or_read_keeps_its_memory(tables: Tables) -> None:
    refs = [ray.put(np.full(10 * MIB, seed, "u1")) for seed in range(8)]
    view = ray.get(refs[3])
    result = ray.get(made.remote(9))
    kept = refs[6]
    refs.clear()
    # The rooms of two of ten MiB and one of twenty.
    settled(lambda: grown() <= 46 * MIB, 10)
    # Huge pages may stand over.
    assert 40 * MIB <= memory() <= 60 * MIB
    assert (view == 3).all()
    assert (ray.get(kept) == 6).all()
    assert (result == 9).all()
    more = [ray.put(np.full(10 * MIB, seed, "u1")) for seed in range(10, 18)]
    assert all((ray.get(ref) == seed).all() for seed, ref in enumerate(more, 10))
    assert (view == 3).all()
    del kept, more, view, result


def test_a_loop_that_puts_and_frees_keeps_its_memory(tables: Tables) -> None:
    """Also one that goes on for longer than what lies unused stays."""
    array = np.ones(20 * MIB, "u1")
    ray.put(array)
    least = memory()
    assert least >= 20 * MIB
    clock = session().clock
    end = clock() + 5 * IDLE_S
    while clock() < end:
        ray.put(array)
        assert memory() >= least
    settled(lambda: memory() == 0, 10)
