"""Actors and large values: what they are made with, called with, return, put and keep, and how that ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio, util
from asyncray.wire.stored import Stored
from tests.cluster.doors import Doors, say_at, wait_at
from tests.cluster.tables import Tables, counted, remote, remote_with, session, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

np = pytest.importorskip("numpy")

MIB = 1 << 20
#: The smallest store there is.
STORE_BYTES = 75 * MIB
#: What a store of this size can hold at once.
MOST_BYTES = 70 * MIB
LIMIT_S = 30


@pytest.fixture
def tables() -> Iterator[Tables]:
    with counted(num_cpus=4, object_store_memory=STORE_BYTES) as tables:
        yield tables
        gc.collect()
        everything_is_free()


def everything_is_free() -> None:
    """Whatever was granted has come back, from actors that live too: nothing can be spilled to make room."""
    settled(lambda: session().statistics().stored == 0)
    whole = ray.put(np.ones(MOST_BYTES, "u1"))
    assert get(whole)[-1] == 1


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


def numbers(seed: int, size: int = 2 * MIB) -> Any:
    return np.full(size, seed, "u1")


def wait_for(door: str) -> None:
    """Say which process is here, and wait to be let in."""
    say_at(door, str(os.getpid()))
    wait_at(door)


class _Sync:
    """Calls one at a time."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays
        self.kept: Any = None

    def sums(self) -> list[int]:
        return [int(array.sum()) for array in self.arrays]

    def same(self, value: Any) -> Any:
        return value

    def keep(self, value: Any) -> None:
        self.kept = value

    def first_kept(self) -> int:
        return int(self.kept[0])

    def late(self, door: str) -> Any:
        wait_for(door)
        return numbers(1, 8 * MIB)

    def late_reference(self, door: str) -> Any:
        wait_for(door)
        return [ray.put(numbers(1, 8 * MIB))]


class _Async(_Sync):
    """Calls are coroutines; these do not hear that they are cancelled."""

    async def late(self, door: str) -> Any:
        await _deaf(door)
        return numbers(1, 8 * MIB)

    async def late_reference(self, door: str) -> Any:
        await _deaf(door)
        return [await aio.put(numbers(1, 8 * MIB))]

    async def call_self(self, itself: list[Any]) -> int:
        """Give and take large values in calls of this very actor."""
        (me,) = itself
        one = await me.same.remote(numbers(1))
        ref = await aio.put(numbers(2))
        two = await me.same.remote(ref)
        (three,) = await me.same.remote([await aio.put(numbers(3))])
        return int(one[0]) + int(two[0]) + int((await three)[0])

    async def results_of_self(self, itself: list[Any]) -> list[int]:
        """What its own results hold, when many are under way at once."""
        (me,) = itself
        made = await asyncio.gather(*(me.filled.remote(seed) for seed in range(12)))
        return [int(array.min()) if array.min() == array.max() else -1 for array in made]

    async def several(self, count: int) -> list[Any]:
        return [numbers(seed) for seed in range(count)]

    async def items(self, count: int) -> AsyncIterator[Any]:
        for seed in range(count):
            yield numbers(seed)

    async def filled(self, seed: int) -> Any:
        return numbers(seed)


async def _deaf(door: str) -> None:
    waiting = asyncio.get_running_loop().run_in_executor(None, wait_for, door)
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            continue


KINDS: dict[str, Callable[[], Any]] = {
    "sync": lambda: remote(_Sync),
    "threads": lambda: remote_with(max_concurrency=3)(_Sync),
    "coroutines": lambda: remote(_Async),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


@ray.remote
def caller(actor: list[Any], method: str, door: str) -> None:
    """Say which process this is, and be killed during a call."""
    say_at(door, str(os.getpid()))
    ray.get(getattr(actor[0], method).remote(door))


# --- results whose caller is dead ---------------------------------------------------------------------------


def _let_caller_die(actor: Any, method: str, doors: Doors) -> None:
    door = doors.new()
    calling = caller.options(max_retries=0).remote([actor], method, door.name)
    pids = [door.arrival(), door.arrival()]
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        get(calling)
    door.let_in()


def test_a_result_whose_caller_has_died_is_freed(kind: Any, tables: Tables, doors: Doors) -> None:
    actor = kind.remote()
    _let_caller_die(actor, "late", doors)
    get(actor.sums.remote())
    everything_is_free()


def test_a_result_whose_caller_has_died_holds_no_references(kind: Any, tables: Tables, doors: Doors) -> None:
    actor = kind.remote()
    _let_caller_die(actor, "late_reference", doors)
    get(actor.sums.remote())
    everything_is_free()


# --- actors that call themselves ----------------------------------------------------------------------------


def test_an_actor_gives_itself_large_values(tables: Tables) -> None:
    actor = remote(_Async).remote()
    for _ in range(3):
        assert get(actor.call_self.remote([actor])) == 6
    everything_is_free()


def test_what_an_actor_returns_to_itself_is_not_written_over(tables: Tables) -> None:
    actor = remote(_Async).remote()
    for _ in range(3):
        assert get(actor.results_of_self.remote([actor])) == list(range(12))
    everything_is_free()


# --- a store that is full -----------------------------------------------------------------------------------


def test_more_large_arguments_than_the_store_holds_wait_for_a_busy_actor(
    tables: Tables, doors: Doors
) -> None:
    """What is called for and not at hand of the actor yet can be spilled, as tasks' arguments can."""
    actor = remote(_Sync).remote()
    door = doors.new()
    first = actor.late.remote(door.name)
    pid = door.arrival()
    results = [actor.same.remote(numbers(seed, 8 * MIB)) for seed in range(20)]
    # Held back here or not: it waits for its turn there.
    assert f"queued at the worker with pid {pid}" in str(util.explain(results[-1]))
    shared = ray.put(numbers(20, 8 * MIB))
    results += [actor.same.remote(shared) for _ in range(20)]
    door.let_in()
    assert [int(get(result)[-1]) for result in results] == [*range(20), *[20] * 20]
    get(first)
    del results, first, shared
    everything_is_free()


@pytest.mark.parametrize(("kind", "most"), [(_Sync, 2), (_Async, 1)], ids=["threads", "coroutines"])
def test_more_large_arguments_than_the_store_holds_wait_for_an_actor_of_several_calls(
    kind: Any, most: int, tables: Tables, doors: Doors
) -> None:
    """They are at the actor, which has their names until it starts them."""
    actor = remote_with(max_concurrency=most)(kind).remote()
    entered = [doors.new() for _ in range(most)]
    first = [actor.late.remote(door.name) for door in entered]
    for door in entered:
        door.arrival()
    results = [actor.same.remote(numbers(seed, 8 * MIB)) for seed in range(20)]
    shared = ray.put(numbers(20, 8 * MIB))
    results += [actor.same.remote(shared) for _ in range(20)]
    for door in entered:
        door.let_in()
    assert [int(get(result)[-1]) for result in results] == [*range(20), *[20] * 20]
    # Nothing waits any more, and places go along again.
    assert int(get(actor.same.remote(shared))[-1]) == 20
    get(first)
    del results, first, shared
    everything_is_free()


def test_large_returns_and_items_of_coroutines_are_stored(tables: Tables) -> None:
    actor = remote(_Async).remote()
    refs = actor.several.options(num_returns=3).remote(3)
    assert [int(get(ref)[-1]) for ref in refs] == [0, 1, 2]
    assert all(type(ref._record.value) is Stored for ref in refs)
    for seed, ref in enumerate(actor.items.options(num_returns="streaming").remote(3)):
        assert int(get(ref)[-1]) == seed
        assert type(ref._record.value) is Stored
    del ref, refs
    everything_is_free()
