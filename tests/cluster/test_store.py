"""Large values lie in shared memory: one copy in, none out, freed with their last use and never before."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import ObjectStoreFullError, OwnerDiedError, WorkerCrashedError
from asyncray.wire.stored import Stored
from tests.cluster.doors import Doors, stand_at
from tests.cluster.tables import Tables, counted, own, recall, same, session, settled, stash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

np = pytest.importorskip("numpy")

MIB = 1 << 20
#: The smallest store there is.
STORE_BYTES = 75 * MIB
LIMIT_S = 30
#: Rooms for what a store of this size can hold at once.
MOST_BYTES = 70 * MIB


@pytest.fixture
def tables() -> Iterator[Tables]:
    with counted(object_store_memory=STORE_BYTES) as tables:
        yield tables
        everything_comes_back(tables)


@pytest.fixture
def impatient() -> Iterator[Tables]:
    """A store that soon says that it is full."""
    with counted(object_store_memory=STORE_BYTES, _system_config={"store_patience_s": 0.2}) as tables:
        yield tables
        everything_comes_back(tables)


def everything_comes_back(tables: Tables) -> None:
    """Whatever was granted: there is room for a value as large as the store."""
    gc.collect()
    tables.clear_attics()
    whole = ray.put(np.ones(MOST_BYTES, "u1"))
    assert ray.get(whole)[-1] == 1
    del whole


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


def numbers(seed: int, size: int = MIB) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size, "u1")


def is_stored(ref: Any) -> bool:
    return type(ref._record.value) is Stored


def place(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@ray.remote
def made(seed: int, size: int = MIB) -> Any:
    return numbers(seed, size)


@ray.remote
def total(*arrays: Any) -> int:
    return sum(int(array.sum()) for array in arrays)


@ray.remote
def is_writable(array: Any) -> bool:
    return bool(array.flags.writeable)


# --- one copy in, none out ----------------------------------------------------------------------------------


def test_a_large_value_is_put_once_and_read_where_it_lies(tables: Tables) -> None:
    array = numbers(1)
    ref = ray.put(array)
    assert is_stored(ref)
    first, second = get(ref), get(ref)
    assert place(first) == place(second) != place(array)
    assert (first == array).all()


def test_a_small_value_stays_with_its_owner(tables: Tables) -> None:
    assert not is_stored(ray.put(numbers(1, 100_000)))
    assert is_stored(ray.put(numbers(1, 110_000)))


def test_what_is_put_does_not_change_with_the_original(tables: Tables) -> None:
    array = numbers(1)
    ref = ray.put(array)
    array[:] = 0
    assert (get(ref) == numbers(1)).all()


def test_nobody_can_write_to_what_is_stored(tables: Tables) -> None:
    ref = ray.put(numbers(1))
    with pytest.raises(ValueError, match="read-only"):
        get(ref)[0] = 1
    assert not get(is_writable.remote(ref))
    assert not get(is_writable.remote(numbers(2)))
    assert not get(made.remote(3)).flags.writeable


def test_buffers_lie_at_multiples_of_a_cache_line(tables: Tables) -> None:
    arrays = [numbers(seed, 20_001 + seed) for seed in range(20)]
    loaded = get(ray.put(arrays))
    assert all(place(array) % 64 == 0 for array in loaded)
    assert all((one == other).all() for one, other in zip(arrays, loaded, strict=True))


@pytest.mark.parametrize(
    "value",
    [
        b"x" * MIB,
        bytearray(b"y" * MIB),
        "z" * MIB,
        "ä" * MIB,
        list(range(100_000)),
        {"a": [b"b" * 300_000] * 3},
    ],
    ids=["bytes", "bytearray", "text", "more text", "list", "nested"],
)
def test_values_of_every_kind_come_back_equal(tables: Tables, value: Any) -> None:
    ref = ray.put(value)
    assert is_stored(ref)
    assert get(ref) == value
    assert get(same.remote(ref)) == value
    assert get(same.remote(value)) == value


def test_results_and_arguments_are_stored_too(tables: Tables) -> None:
    ref = made.remote(1)
    assert (get(ref) == numbers(1)).all()
    assert is_stored(ref)
    expected = int(numbers(1).sum()) + int(numbers(2).sum()) + int(numbers(3).sum())
    assert get(total.remote(ref, numbers(2), ray.put(numbers(3)))) == expected


def test_several_large_returns_are_stored(tables: Tables) -> None:
    @ray.remote(num_returns=3)
    def three() -> Any:
        return numbers(1), 2, numbers(3)

    refs: Any = three.remote()
    first, second, third = refs
    assert (get(first) == numbers(1)).all()
    assert get(second) == 2
    assert (get(third) == numbers(3)).all()


def test_keywords_and_references_go_along_with_large_arguments(tables: Tables) -> None:
    @ray.remote
    def gathered(one: Any, two: Any, *, three: Any, four: Any) -> list[int]:
        return [int(one[0]), two, int(three[0]), four]

    two, four = ray.put(22), same.remote(44)
    call = gathered.remote(np.full(MIB, 1), two, three=np.full(MIB, 3), four=four)
    assert get(call) == [1, 22, 3, 44]


def test_references_inside_a_stored_value_keep_their_objects(tables: Tables) -> None:
    outer = ray.put([numbers(1), ray.put(numbers(2)), same.remote(5)])
    assert is_stored(outer)
    array, inner, five = get(same.remote(outer))
    del outer
    gc.collect()
    assert (array == numbers(1)).all()
    assert (get(inner) == numbers(2)).all()
    assert get(five) == 5


def test_a_stored_object_may_hold_many_references(tables: Tables) -> None:
    refs = [ray.put(number) for number in range(3000)]
    outer = ray.put([refs, numbers(1)])
    assert is_stored(outer)
    del refs
    assert get(get(outer)[0]) == list(range(3000))

    @ray.remote
    def added(value: list[Any]) -> int:
        return sum(ray.get(value[0]))

    assert get(added.remote(outer)) == sum(range(3000))


# --- freed with the last use, and not before ----------------------------------------------------------------


def test_pages_are_used_again(tables: Tables) -> None:
    places = set()
    for seed in range(50):
        ref = ray.put(numbers(seed))
        places.add(place(get(ref)))
        del ref
    assert len(places) <= 4


def test_results_of_half_the_store_follow_each_other_without_waiting() -> None:
    """Each finds the pages of the last one; nobody asks the node, and nothing goes to disk."""
    config = {"store_patience_s": LIMIT_S, "spill_threshold": 1.0}
    with counted(num_cpus=1, object_store_memory=STORE_BYTES, _system_config=config):
        places = set()
        for seed in range(30):
            array = get(made.remote(seed, 30 * MIB))
            assert array[-1] == numbers(seed, 30 * MIB)[-1]
            places.add(place(array))
            del array
        assert len(places) <= 2
        spilling = session().store.spilling
        assert spilling is not None
        assert not spilling.spilled_objects


def test_who_asked_for_memory_gets_it_although_others_want_it_back(tables: Tables) -> None:
    """The node asks for what is free here before the thread that waits has taken what was granted."""
    supply = session().store.supply
    real, asked = supply._answered, []

    def answered(number: int, error: Any = None) -> None:
        asked.append(number)
        supply.give_surplus(0)
        real(number, error)

    supply._answered = answered  # type: ignore[method-assign]
    ref = ray.put(numbers(1, 20 * MIB))
    del supply._answered
    assert len(asked) == 1
    assert (get(ref) == numbers(1, 20 * MIB)).all()


def test_memory_is_taken_back_from_a_worker_that_runs(doors: Doors) -> None:
    """What is free reaches its maker on the way of its calls, which it does not read while it runs one."""
    with counted(num_cpus=1, object_store_memory=STORE_BYTES):
        array = get(made.remote(1, 40 * MIB))
        door = doors.new()
        told = ray.remote(stand_at).remote(door.name)
        door.arrival()
        leases = session().leases
        # As to an actor that runs a call of somebody else.
        links = leases.links
        links.idle_link = links._links.get  # type: ignore[method-assign, assignment]
        del array
        assert (get(ray.put(numbers(2, 60 * MIB))) == numbers(2, 60 * MIB)).all()
        door.let_in()
        get(told)
        del told


def test_what_processes_keep_free_is_not_room_that_objects_must_make(tables: Tables) -> None:
    """Four fifths of the store are granted, but most of that is only kept: nothing goes to disk."""
    refs = [ray.put(numbers(1, 10 * MIB))]
    get(made.remote(1, 40 * MIB))
    refs += [ray.put(numbers(seed, MIB)) for seed in range(12)]
    settled(lambda: session().questions.blocking("store")["taken"] < 40 * MIB)
    assert all(map(is_stored, refs))
    refs.clear()


def test_a_view_outlives_its_reference_here(tables: Tables) -> None:
    view = get(ray.put(numbers(1)))[100:]
    for seed in range(2, 30):
        ray.put(numbers(seed))
    assert (view == numbers(1)[100:]).all()
    assert session().statistics().stored >= 1


def test_a_view_of_a_result_outlives_its_reference(tables: Tables) -> None:
    view = get(made.remote(1))[100:]
    for seed in range(2, 30):
        get(made.remote(seed))
    assert (view == numbers(1)[100:]).all()


@pytest.mark.parametrize(
    "make",
    [lambda: ray.put([numbers(1)]), lambda: [numbers(1)], lambda: same.remote([numbers(1)])],
    ids=["put", "argument", "result"],
)
def test_a_view_that_a_worker_keeps_holds_its_pages(make: Callable[[], Any]) -> None:
    """The driver drops the object; what the worker has kept of it stays as it was."""
    with counted(num_cpus=1, object_store_memory=STORE_BYTES):
        get(stash.remote("kept", make()))
        for seed in range(2, 30):
            get(same.remote(ray.put(numbers(seed))))
        assert (get(recall.remote("kept"))[0] == numbers(1)).all()


def test_an_object_is_freed_a_tenth_of_a_second_after_its_last_use(tables: Tables) -> None:
    makes: list[Callable[[], Any]] = [
        lambda: ray.put(numbers(1)),
        lambda: made.remote(2),
        lambda: same.remote(numbers(3)),
    ]
    for make in makes:
        value = make()
        assert (get(value) == get(same.remote(value))).all()
        settled(lambda: session().statistics().stored == 1)
        del value
        # A second, because the machine may be busy; it is a fiftieth of one mostly.
        assert settled(lambda: session().statistics().stored == 0) < 1


def test_a_result_that_nobody_wants_is_freed(tables: Tables, doors: Doors) -> None:
    @ray.remote
    def late(door: str) -> Any:
        stand_at(door)
        return numbers(1, 60 * MIB)

    door = doors.new()
    ref = late.remote(door.name)
    door.arrival()
    ray.cancel(ref)
    del ref
    for _ in range(3):
        get(made.remote(1, 60 * MIB))


def test_a_call_that_fails_gives_its_arguments_back(tables: Tables) -> None:
    @ray.remote
    def failing(array: Any) -> None:
        raise ValueError("no")

    for seed in range(5):
        with pytest.raises(ValueError, match="no"):
            get(failing.remote(numbers(seed, 30 * MIB)))


def test_a_value_that_cannot_be_pickled_takes_nothing(tables: Tables) -> None:
    import threading

    with pytest.raises(TypeError, match="cannot pickle"):
        ray.put([numbers(1), threading.Lock()])


# --- full ---------------------------------------------------------------------------------------------------


def test_a_full_store_says_so_with_its_sizes(impatient: Tables) -> None:
    # Views: what is read cannot be put on disk.
    kept = [get(ray.put(numbers(seed, 30 * MIB))) for seed in range(2)]
    with pytest.raises(
        ObjectStoreFullError, match=r"no room for 41943\d\d\d bytes: \d+ of the object store's"
    ):
        ray.put(numbers(3, 40 * MIB))
    with pytest.raises(ObjectStoreFullError, match="no room for"):
        ray.put(numbers(3, STORE_BYTES + 1))
    del kept[0]
    assert get(ray.put(numbers(3, 30 * MIB)))[0] == numbers(3, 30 * MIB)[0]


def test_a_full_store_fails_the_task_whose_result_has_no_room(impatient: Tables) -> None:
    kept = get(ray.put(numbers(1, 60 * MIB)))
    with pytest.raises(ObjectStoreFullError, match="no room for"):
        get(made.remote(1, 30 * MIB))
    del kept
    assert get(made.remote(1, 30 * MIB)).nbytes == 30 * MIB


def test_what_other_processes_keep_free_is_taken_from_them(tables: Tables) -> None:
    for seed in range(20):
        get(made.remote(seed, 8 * MIB))
    assert get(ray.put(np.ones(MOST_BYTES, "u1"))).sum() == MOST_BYTES


# --- deaths -------------------------------------------------------------------------------------------------


def test_what_a_dead_worker_wrote_stays_as_long_as_it_is_used(tables: Tables) -> None:
    ref = made.remote(1)
    kept = get(ref)
    for pid in filter(None, tables.pids()):
        os.kill(pid, signal.SIGKILL)
    for seed in range(2, 20):
        get(made.remote(seed))
    assert (get(ref) == numbers(1)).all()
    del ref
    for seed in range(2, 20):
        get(made.remote(seed))
    assert (kept == numbers(1)).all()


@ray.remote
def die_owning() -> None:
    ray.put(numbers(1, 20 * MIB))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_worker_had_not_sealed_goes_back_when_it_dies(tables: Tables) -> None:
    for _ in range(6):
        with pytest.raises(WorkerCrashedError):
            get(die_owning.options(max_retries=0).remote())


def test_a_view_of_a_dead_owner_s_object_stays(tables: Tables) -> None:
    [inner] = get(own.remote(numbers(1)))
    view = get(inner)
    borrowed = Tables().of_workers_that(lambda told: told.objects_owned > 0)
    for pid in borrowed:
        os.kill(pid, signal.SIGKILL)
    settled(lambda: not set(borrowed) & set(tables.pids()))
    for seed in range(2, 30):
        ray.put(numbers(seed))
        get(made.remote(seed))
    assert (view == numbers(1)).all()
    del inner, view


def test_an_object_whose_owner_died_unread_is_lost(tables: Tables) -> None:
    [inner] = get(own.remote(numbers(1)))
    borrowed = Tables().of_workers_that(lambda told: told.objects_owned > 0)
    for pid in borrowed:
        os.kill(pid, signal.SIGKILL)
    settled(lambda: not set(borrowed) & set(tables.pids()))
    with pytest.raises(OwnerDiedError):
        get(inner)


def test_a_reader_that_dies_lets_go(tables: Tables) -> None:
    ref = ray.put(numbers(1, 60 * MIB))
    get(stash.remote("kept", ref))
    for pid in filter(None, tables.pids()):
        os.kill(pid, signal.SIGKILL)
    del ref
    settled(lambda: session().statistics().stored == 0)


# --- coroutines -------------------------------------------------------------------------------------------


async def test_a_coroutine_puts_without_holding_up_its_loop(tables: Tables) -> None:
    ref = await ray.aio.put(numbers(1, 20 * MIB))
    assert is_stored(ref)
    assert (await ref == numbers(1, 20 * MIB)).all()
    del ref


async def test_a_coroutine_waits_for_room_and_hears_when_there_is_none(impatient: Tables) -> None:
    kept = await (await ray.aio.put(numbers(1, 60 * MIB)))
    with pytest.raises(ObjectStoreFullError, match="no room"):
        await ray.aio.put(numbers(1, 60 * MIB))
    del kept
    assert await (await ray.aio.put(np.ones(60 * MIB, "u1"))) is not None


async def test_an_async_worker_stores_its_large_results(tables: Tables) -> None:
    @ray.remote
    async def made_async(seed: int) -> Any:
        return numbers(seed, 2 * MIB)

    refs = [made_async.remote(seed) for seed in range(4)]
    for seed, ref in enumerate(refs):
        assert (await ref == numbers(seed, 2 * MIB)).all()
        assert is_stored(ref)
    del refs, ref


async def test_a_put_that_is_cancelled_takes_nothing(tables: Tables) -> None:
    putting = asyncio.ensure_future(ray.aio.put(numbers(1, 60 * MIB)))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting


# --- streams ----------------------------------------------------------------------------------------------


def test_large_items_of_a_stream_are_stored_and_freed(tables: Tables) -> None:
    @ray.remote
    def pieces(count: int) -> Any:
        for seed in range(count):
            yield numbers(seed, 8 * MIB)

    for seed, ref in enumerate(pieces.remote(30)):
        assert is_stored(ref)
        assert (get(ref) == numbers(seed, 8 * MIB)).all()
        del ref
    forgotten = pieces.remote(30)
    assert (get(next(forgotten)) == numbers(0, 8 * MIB)).all()
    del forgotten


async def test_large_items_of_an_async_generator_arrive(tables: Tables) -> None:
    @ray.remote
    async def pieces(count: int) -> Any:
        for seed in range(count):
            yield [numbers(seed, 2 * MIB), ray.put(seed)]

    seed = 0
    async for ref in pieces.remote(6):
        array, inner = await ref
        assert (array == numbers(seed, 2 * MIB)).all()
        assert await inner == seed
        seed += 1
    assert seed == 6
    del ref, array, inner
