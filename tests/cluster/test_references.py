"""A value is there while anybody holds a reference to it, in any process, and is freed when nobody does."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import asyncray as ray
from asyncray.exceptions import ObjectFreedError, OwnerDiedError
from tests.cluster.tables import (
    BearerError,
    Tables,
    await_registration,
    get,
    keep,
    own,
    own_async,
    remote,
    remote_with,
    same,
    same_async,
    session,
    settled,
    stash,
    stash_async,
    unwrapped,
)

if TYPE_CHECKING:
    from asyncray import ObjectRef
    from tests.cluster.gates import Gates

LIMIT_S = 20
#: Above the inline limit of 100 KiB, and so large that copies would show.
SIZES = [10, 200 * 1024, 3_000_000]


@pytest.fixture
def gates(tables: Tables, gates: Gates) -> Gates:
    return gates


def test_few_destroyed_references_wait_to_be_accounted_for_however_fast_calls_follow(tables: Tables) -> None:
    most = 0
    for number in range(300):
        assert get(same.remote(number)) == number
        most = max(most, len(session().owner.dropped))
    assert most <= 16


# ---- where references go ----


@pytest.mark.parametrize("making", [own, own_async])
def test_a_task_returns_a_reference_that_its_worker_owns(tables: Tables, making: Any) -> None:
    (inner,) = get(making.remote("value"))
    assert tables.held()["driver"].objects_borrowed == 1
    assert get(inner) == "value"
    assert get(unwrapped.remote([inner])) == "value"
    del inner
    tables.settle()


@pytest.mark.parametrize("passing", [same, same_async])
def test_a_reference_comes_back_as_the_very_same_object(tables: Tables, passing: Any) -> None:
    ref = ray.put("value")
    (back,) = get(passing.remote([ref]))
    assert back is ref
    (borrowed,) = get(own.remote("value"))
    (again,) = get(passing.remote([borrowed]))
    assert again is borrowed


def test_a_reference_that_was_dropped_meanwhile_comes_back_to_its_owner(tables: Tables) -> None:
    (back,) = get(same.remote([ray.put("value")]))
    assert get(back) == "value"


def test_a_reference_passes_through_four_processes(tables: Tables) -> None:
    @remote
    def onward(boxed: list[ObjectRef[Any]], hops: int) -> Any:
        if not hops:
            return [os.getpid(), boxed[0], ray.get(boxed[0])]
        return [os.getpid(), *ray.get(onward.remote(boxed, hops - 1))]

    *pids, ref, value = get(onward.remote([ray.put("value")], 3))
    assert len(set(pids)) == 4
    assert value == "value"
    assert get(ref) == "value"


def test_a_value_is_reached_through_references_inside_values_of_references(tables: Tables) -> None:
    ref: Any = ray.put("value")
    for _ in range(10):
        ref = ray.put([same.remote([ref])])
    assert get(unwrapped.remote([ref])) == "value"
    # Each step drops what leads there.
    while not isinstance(ref, str):
        ref = get(ref) if isinstance(ref, ray.ObjectRef) else ref[0]
    assert ref == "value"


def test_a_chain_of_references_inside_values_goes_at_once(tables: Tables) -> None:
    ref: Any = ray.put("value")
    for _ in range(200):
        ref = ray.put([ref])
    assert session().statistics().objects_owned == 201
    del ref
    assert settled(lambda: session().statistics().objects_owned == 0, 1.0) < 1.0


@pytest.mark.parametrize("keeping", [stash, stash_async])
def test_what_a_task_keeps_outlives_the_task_and_its_caller(tables: Tables, keeping: Any) -> None:
    pid = get(keeping.remote("kept", [ray.put("value"), own.remote("other")]))
    assert tables.get_in(pid, "kept", 0) == "value"
    assert tables.get_in(pid, "kept", 1, 0) == "other"


@pytest.mark.parametrize("keeping", [stash, stash_async])
@pytest.mark.parametrize("size", SIZES)
def test_what_a_task_keeps_of_a_resolved_argument_outlives_the_task(
    tables: Tables, keeping: Any, size: int
) -> None:
    """The references inside the value of a reference that was given directly."""
    for key, outer in [("put", ray.put([ray.put("value"), bytes(size)])), ("made", own.remote("value"))]:
        pid = get(keeping.remote(key, outer))
        del outer
        assert tables.get_in(pid, key, 0) == "value"


def test_what_a_thread_of_a_task_keeps_outlives_the_task(tables: Tables) -> None:
    @remote
    def begin(boxed: list[Any]) -> int:
        thread = threading.Thread(target=keep, args=("kept", boxed))
        thread.start()
        thread.join()
        return os.getpid()

    assert tables.get_in(get(begin.remote([ray.put("value")])), "kept", 0) == "value"


def test_what_a_dead_borrower_held_is_freed(tables: Tables) -> None:
    pid = get(stash.remote("kept", [ray.put("value")]))
    assert session().statistics().borrowers == 1
    os.kill(pid, signal.SIGKILL)
    tables.settle()


def test_a_child_that_nobody_waits_for_has_what_its_parent_was_given(tables: Tables, gates: Gates) -> None:
    gate = gates.new()

    @remote
    def parent(boxed: list[Any], gate: Any) -> None:
        keep("child", read_later.remote(boxed, gate))

    @remote
    def read_later(boxed: list[Any], passed: None) -> Any:
        return ray.get(boxed[0])

    get(parent.remote([ray.put("value")], [gate.ref()]))
    del parent
    gc.collect()
    gate.open()
    (pid,) = [pid for pid, told in tables.of_workers().items() if told.tasks or told.objects_owned]
    assert tables.get_in(pid, "child") == "value"


@pytest.mark.parametrize("count", [10_000])
def test_ten_thousand_references_travel_as_a_value_and_as_arguments(tables: Tables, count: int) -> None:
    @remote
    def add_up(*numbers: int) -> int:
        return sum(numbers)

    @remote
    def make(count: int) -> list[Any]:
        return [ray.put(number) for number in range(count)]

    @remote
    def add_up_refs(refs: list[Any]) -> int:
        return sum(ray.get(refs))

    expected = sum(range(count))
    refs = [ray.put(number) for number in range(count)]
    assert get(add_up.remote(*refs)) == expected
    assert get(add_up_refs.remote(refs)) == expected
    back = get(same.remote(refs))
    assert all(a is b for a, b in zip(refs, back, strict=True))
    del refs, back
    made = get(make.remote(count))
    assert sum(get(made)) == expected
    assert get(add_up.remote(*made)) == expected


def test_references_are_dropped_while_they_are_being_sent(tables: Tables) -> None:
    """Nothing but the call itself holds them."""
    refs = [unwrapped.remote([ray.put([same.remote([ray.put(i)])])]) for i in range(200)]
    assert get(refs) == list(range(200))


# ---- functions ----


def test_references_in_a_function_live_as_long_as_the_function(tables: Tables) -> None:
    def make(held: Any) -> Any:
        @remote
        def fetch(boxed: Any = (held,)) -> Any:
            return [ray.get(held), ray.get(boxed[0])]

        return fetch

    fetch = make(ray.put("value"))
    assert get([fetch.remote() for _ in range(4)]) == [["value", "value"]] * 4
    settled(lambda: session().statistics().objects_owned == 1)
    del fetch
    tables.settle()


@pytest.mark.parametrize("is_async", [False, True])
def test_references_in_a_function_that_calls_itself_go_with_it(tables: Tables, is_async: bool) -> None:
    def make(held: Any) -> Any:
        @remote
        def descend(levels: int) -> Any:
            return ray.get(descend.remote(levels - 1)) if levels else ray.get(held)

        @remote
        async def descend_async(levels: int) -> Any:
            return await descend_async.remote(levels - 1) if levels else await held

        return descend_async if is_async else descend

    descend = make(ray.put("value"))
    assert get(descend.remote(3)) == "value"
    del descend
    gc.collect()
    tables.settle()


def test_a_child_has_what_stood_in_its_parents_function(tables: Tables, gates: Gates) -> None:
    gate = gates.new()

    def make(held: Any) -> Any:
        @remote
        def read_later(boxed: list[Any], passed: None) -> Any:
            return ray.get(boxed[0])

        return remote(lambda gate: keep("child", read_later.remote([held], gate[0])))

    parent = make(ray.put("value"))
    pid = get(parent.remote([gate.ref()]))
    descriptor = weakref.ref(parent._bound[1])
    del parent
    settled(lambda: descriptor() is None)
    gate.open()
    assert tables.get_in(pid, "child") == "value"


def test_a_function_with_a_reference_and_a_large_array_in_it_is_counted(tables: Tables) -> None:
    def make(held: Any, array: Any) -> Any:
        return remote(lambda: [ray.get(held), int(array.sum())])

    fetch = make(ray.put("value"), np.arange(100_000))
    assert get(fetch.remote()) == ["value", sum(range(100_000))]
    del fetch
    tables.settle()


def test_functions_that_nobody_can_call_any_more_are_forgotten(tables: Tables) -> None:
    def make(number: int) -> Any:
        return remote(lambda *large: number)

    def known() -> set[int]:
        """Numbers of functions, here and in workers."""
        described = [link.described for link in session().leases.links._links.values()]
        return set(session().descriptors._alive).union(session().hints._seen, *described)

    get([same.remote(i) for i in range(10)])
    before = known()
    assert get([make(number).remote() for number in range(50)]) == list(range(50))
    assert get(make(50).remote(bytes(2_000_000))) == 50
    settled(lambda: not known() - before)


# ---- failures ----


@pytest.mark.parametrize("retries", [0, 1])
def test_references_in_an_exception_are_counted(tables: Tables, retries: int) -> None:
    @remote_with(max_retries=retries, retry_exceptions=True)
    def fail(boxed: list[Any]) -> None:
        raise BearerError([boxed[0], ray.put("own"), np.zeros(50_000)])

    with pytest.raises(BearerError) as caught:
        get(fail.remote([ray.put("given")]))
    given, own_, array = caught.value.refs
    assert [get(given), get(own_), array.sum()] == ["given", "own", 0]
    del given, own_, caught
    gc.collect()
    tables.settle()


def test_a_failure_is_carried_on_with_its_references(tables: Tables) -> None:
    @remote
    def fail() -> None:
        raise BearerError([ray.put("own")])

    @remote
    def waits(boxed: list[Any]) -> Any:
        return ray.get(boxed[0])

    failed = fail.remote()
    for ref in (failed, same.remote(failed), waits.remote([failed]), waits.remote([same.remote(failed)])):
        with pytest.raises(BearerError) as caught:
            get(ref)
        assert get(caught.value.refs) == ["own"]
        del caught


def test_what_a_failed_task_held_in_its_variables_is_freed(tables: Tables) -> None:
    @remote
    def fail(boxed: list[Any]) -> None:
        error = ValueError("in a variable of the frame that it points to")
        mine = [boxed, ray.put("mine"), error]
        raise error from (None if mine else error)

    with pytest.raises(ValueError, match="in a variable"):
        get(fail.remote([ray.put("given")]))
    gc.collect()
    tables.settle()


def test_a_reference_whose_owner_died_says_so(tables: Tables) -> None:
    @remote
    def own_and_tell() -> Any:
        return [os.getpid(), ray.put("value"), ray.put(ray.put("inner") and "other")]

    pid, fetched, not_fetched = get(own_and_tell.remote())
    assert get(fetched) == "value"
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OwnerDiedError):
        get(not_fetched)
    assert get(fetched) == "value"


# ---- how soon ----


def test_an_object_is_freed_within_a_tenth_of_a_second(tables: Tables) -> None:
    def seconds_until_freed() -> float:
        (inner,) = get(own.remote("value"))
        mine = ray.put([inner])
        await_registration(inner)
        pid = get(stash.remote("kept", [mine]))
        del inner, mine
        tables.forget_in(pid, "kept")
        return settled(lambda: not tables.held())

    assert min(seconds_until_freed() for _ in range(5)) < 0.1


# ---- threads, cycles, the end ----


def test_references_dropped_by_many_threads_are_all_counted(tables: Tables) -> None:
    def churn() -> None:
        for i in range(300):
            refs = [ray.put(i), same.remote([ray.put(i)])]
            refs += get(same.remote(refs[:1]))

    threads = [threading.Thread(target=churn) for _ in range(6)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
    finally:
        sys.setswitchinterval(before)
    tables.settle()
    session().owner.objects.validate()


def test_references_in_cycles_are_freed_when_the_cycle_is_collected(tables: Tables) -> None:
    @remote
    def tangle(boxed: list[Any]) -> None:
        boxed.append(boxed)
        knot = [boxed, ray.put("in a cycle")]
        knot.append(knot)

    ring: list[Any] = [ray.put("value"), get(same.remote([ray.put("sent")]))]
    ring.append(ring)
    get(tangle.remote([ray.put("given")]))
    del ring
    gc.collect()
    tables.clear_attics()
    tables.settle()


def test_a_reference_that_comes_back_to_life_in_a_destructor_says_what_has_become_of_it(
    tables: Tables,
) -> None:
    risen: list[Any] = []

    class Phoenix:
        def __init__(self, ref: Any) -> None:
            self.ref, self.myself = ref, self

        def __del__(self) -> None:
            risen.append(self.ref)

    Phoenix(ray.put("value"))
    gc.collect()
    settled(lambda: session().statistics().objects_owned == 0)
    with pytest.raises(ObjectFreedError):
        get(risen[0])


_EXITING = """
import asyncray as ray, threading

@ray.remote
def same(x): return x

class Late:
    def __init__(self, *refs): self.refs, self.me = refs, self
    def __del__(self): self.refs = None

ray.init(num_cpus=1)
kept = [ray.put(1), same.remote(2), ray.get(same.remote([ray.put(3)]))]
ray.get(kept[:2])
late = Late(*kept)
local = threading.local()
local.refs = list(kept)
def closure(refs=tuple(kept)): return refs
threading.Thread(target=lambda refs: threading.Event().wait(), args=(kept,), daemon=True).start()
{end}
"""


@pytest.mark.parametrize("end", ["", "ray.shutdown()", "ray.shutdown(); ray.init(num_cpus=1); ray.put(4)"])
def test_references_that_live_to_the_end_of_the_interpreter_end_quietly(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", _EXITING.format(end=end)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- pickled by hand ----


def test_a_reference_pickled_by_hand_is_kept_to_the_end_and_said_once(tables: Tables) -> None:
    ref, other = ray.put("value"), ray.put("other")
    with pytest.warns(UserWarning, match="nobody counts") as told:
        pickled, _ = pickle.dumps([ref]), pickle.dumps(other)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert session().statistics().out_of_band == 2
    assert pickle.loads(pickled)[0] is ref

    @remote
    def unpickle(data: bytes) -> Any:
        return keep("kept", pickle.loads(data))

    pid = get(unpickle.remote(pickled))
    del ref, other
    gc.collect()
    assert tables.get_in(pid, "kept", 0) == "value"
    session().references._pinned.clear()


def test_copying_a_reference_is_no_pickling(tables: Tables) -> None:
    ref = ray.put("value")
    assert copy.copy(ref) is ref
    assert copy.deepcopy([ref])[0] is ref
    assert session().statistics().out_of_band == 0


# ---- large values ----


@dataclass
class Parcel:
    """A value with references and an array in it."""

    array: Any
    refs: list[Any]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, np.zeros])
def test_values_of_any_size_are_fine_in_every_place(tables: Tables, kind: Any, size: int) -> None:
    value = kind(size)
    held = ray.put(value)

    @remote
    def measure(direct: Any, boxed: list[Any], plain: Any, *, named: Any) -> list[int]:
        inner = ray.get(boxed[0])
        return [len(part) for part in (direct, inner, plain, named, ray.get(held))]

    @remote
    def make(size: int) -> Any:
        return kind(size)

    @remote_with(num_returns=2)
    def two(first: Any) -> Any:
        return first, [ray.put(first)]

    made = make.remote(size)
    (owned_,) = get(own.remote(value))
    for ref in (held, made, owned_):
        assert len(get(ref)) == size
        assert get(measure.remote(ref, [ref], value, named=ref)) == [size] * 5
        returns: Any = two.remote(ref)
        first, (second,) = get(returns)
        assert [len(first), len(get(second))] == [size, size]
    parcel = get(same.remote(ray.put(Parcel(value, [made, owned_]))))
    assert [len(parcel.array), *(len(get(ref)) for ref in parcel.refs)] == [size] * 3
    del measure


def test_a_large_array_arrives_whole(tables: Tables) -> None:
    array = np.arange(500_000, dtype=np.int64).reshape(1000, 500)[::2]

    @remote
    def double(part: Any) -> Any:
        return 2 * part

    assert np.array_equal(get(double.remote(double.remote(ray.put(array)))), 4 * array)
    assert np.array_equal(get(double.remote(array)), 2 * array)
