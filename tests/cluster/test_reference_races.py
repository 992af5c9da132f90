"""References in orders of messages and threads that could go wrong, replayed; and in quantity."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import GetTimeoutError, RaySystemError, TaskCancelledError
from asyncray.wire import messages as m
from tests.cluster.doors import Doors, stand_at
from tests.cluster.tables import (
    BearerError,
    HeldBack,
    Tables,
    await_registration,
    counted,
    get,
    held_messages,
    keep,
    kept,
    own,
    recall,
    remote,
    remote_with,
    same,
    same_async,
    session,
    settled,
    settled_on,
    stash,
    unwrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.gates import Gates

LIMIT_S = 20
INLINE = 100 * 1024
SIZES = [10, 200 * 1024, 3_000_000]


@pytest.fixture
def tables() -> Iterator[Tables]:
    """A session of its own for each test, in which nothing is held at the end."""
    with counted() as made:
        yield made


@pytest.fixture
def gates(tables: Tables, gates: Gates) -> Gates:
    return gates


# ---- the order of messages, replayed ----


def test_a_result_dropped_before_it_is_registered_is_released_afterwards(tables: Tables) -> None:
    held = held_messages(m.BORROW)
    outer = own.remote("value")
    get(outer)
    held.wait_for(1)
    del outer
    assert tables.held()
    held.let_go()
    tables.settle()


def test_a_worker_holds_what_it_returned_until_its_caller_has_registered(tables: Tables) -> None:
    held = held_messages(m.BORROW)
    (inner,) = get(own.remote("value"))
    held.wait_for(1)
    (holder,) = tables.of_workers_that(lambda told: told.results_pinned == 1)
    held.let_go()
    await_registration(inner)
    settled(lambda: not tables.of_workers_that(lambda told: told.results_pinned > 0))
    assert tables.of_workers()[holder].objects_owned == 1
    assert get(inner) == "value"


def test_a_reference_that_comes_back_before_its_release_was_sent_stays_registered(tables: Tables) -> None:
    (inner,) = get(own.remote("value"))
    await_registration(inner)
    held = HeldBack(session().peers.borrowing, "release")
    pid = get(stash.remote("kept", [inner]))
    del inner
    held.wait_for(1)
    (back,) = get(recall.remote("kept"))
    await_registration(back)
    held.let_go()
    tables.forget_in(pid, "kept")
    assert get(back) == "value"
    del back
    tables.settle()


def test_the_news_that_an_object_of_many_references_is_there_lends_nothing(tables: Tables) -> None:
    """Its place, with all their addresses, is too long to come along unasked."""
    (inner,) = get(own.remote([bytes(SIZES[1]), [ray.put(number) for number in range(3000)]]))
    settled(inner.done)
    del inner
    tables.settle()


def test_the_registration_for_one_run_does_not_let_go_of_what_the_next_returned(
    tables: Tables, gates: Gates
) -> None:
    """The first run fails with a reference; the second, on the same worker, returns another."""
    gate = gates.new()

    @remote_with(max_retries=1, retry_exceptions=True, num_cpus=2)
    def second_time_lucky(gate: str) -> Any:
        keep("runs", (kept("runs") or 0) + 1)
        if kept("runs") == 1:
            raise BearerError([ray.put("first")])
        os.read(os.open(gate, os.O_RDONLY), 1)
        return [os.getpid(), ray.put("second")]

    unpins = held_messages(m.UNPIN)
    ref = second_time_lucky.remote(gate.path)
    unpins.wait_for(1)
    registrations = HeldBack(session().peers.borrowing, "register")
    gate.open()
    pid, inner = get(ref)
    registrations.wait_for(1)
    unpins.let_go()
    # Asked for on the same connection, after the first run's registration and before the second's.
    assert get(inner) == "second"
    assert tables.of_workers()[pid].results_pinned == 1
    registrations.let_go()
    settled(lambda: tables.of_workers()[pid].results_pinned == 0)


def test_a_value_is_held_until_the_references_inside_are_registered(tables: Tables) -> None:
    outer = get(nest.remote())[0]
    await_registration(outer)
    held = held_messages(m.BORROW)
    (inner,) = get(outer)
    held.wait_for(1)
    del outer
    session().owner.drain_dropped()
    get(same.remote(1))  # a message to the worker and back, behind whatever was said to it until now
    held.let_go()
    assert get(inner) == "value"


@remote
def nest() -> Any:
    return [ray.put([ray.put("value")])]


def test_a_reference_that_another_thread_finds_while_it_dies_is_counted_again(tables: Tables) -> None:
    """The thread that drops the last reference stands still in the middle of it."""
    ref = ray.put("value")
    address = session().references.address_of(ref)
    dying, found = threading.Event(), threading.Event()

    def trace(frame: Any, event: str, argument: Any) -> None:
        if frame.f_code is ray.ObjectRef.__del__.__code__ and not dying.is_set():
            dying.set()
            assert found.wait(LIMIT_S)

    def drop(refs: list[Any]) -> None:
        sys.settrace(trace)
        refs.clear()
        sys.settrace(None)

    refs = [ref]
    del ref
    thread = threading.Thread(target=drop, args=(refs,))
    thread.start()
    assert dying.wait(LIMIT_S)
    again = session().references.restore_ref(address)
    found.set()
    thread.join()
    session().owner.drain_dropped()
    assert get(again) == "value"
    assert get(unwrapped.remote([again])) == "value"


def test_a_thread_that_is_stopped_between_dropping_and_waking_keeps_nobody_from_waking(
    tables: Tables,
) -> None:
    """Two threads drop a reference each; the first is stopped before it can wake the loop."""
    refs = [[ray.put(0)], [ray.put(1)]]
    stopped, go_on = threading.Event(), threading.Event()
    settled(lambda: not session().references.drain_due)

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code is ray.ObjectRef.__del__.__code__ and event == "call":
            return trace
        if event == "line" and session().owner.dropped and not stopped.is_set():
            stopped.set()
            assert go_on.wait(LIMIT_S)
        return trace

    def drop() -> None:
        sys.settrace(trace)
        refs[0].clear()
        sys.settrace(None)

    thread = threading.Thread(target=drop)
    thread.start()
    assert stopped.wait(LIMIT_S)
    refs[1].clear()
    go_on.set()
    thread.join()
    tables.settle(1.0)


# ---- cancelling ----


def test_a_cancelled_task_keeps_its_arguments_until_it_has_ended(tables: Tables, gates: Gates) -> None:
    """It may catch the interrupt and go on."""
    started, gate = gates.new(), gates.new()

    @remote
    def stubborn(boxed: list[Any], started: str, gate: str) -> None:
        try:
            os.write(os.open(started, os.O_RDWR), b".")
            os.read(os.open(gate, os.O_RDONLY), 1)
        except KeyboardInterrupt:
            keep("read", [ray.get(boxed[0]), boxed])

    ref = stubborn.remote([ray.put("value")], started.path, gate.path)
    get(same.remote(started.ref()))
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        get(ref)
    (pid,) = settled_on(lambda: [pid for pid in tables.pids() if tables.has_kept(pid, "read")])
    assert tables.get_in(pid, "read", 0) == "value"
    assert tables.get_in(pid, "read", 1, 0) == "value"


def test_references_in_a_result_that_came_too_late_are_released(tables: Tables) -> None:
    """The task was cancelled while its result was on the way: its worker must be told to let go."""
    held = HeldBack(session().leases, "_on_results")
    refs = [own.remote(i) for i in range(3)]
    held.wait_for(1)
    ray.cancel(*refs)
    with pytest.raises(TaskCancelledError):
        get(refs)
    held.let_go()
    del refs
    tables.settle()


def test_references_in_a_result_that_nobody_wants_are_released(tables: Tables) -> None:
    for _ in range(20):
        own.remote("value")
    get(same.remote(1))
    tables.settle()


# ---- sessions of other kinds ----


def test_a_borrower_outlives_the_process_that_passed_the_reference_on() -> None:
    @remote
    def pass_on(boxed: list[Any]) -> list[int]:
        return [os.getpid(), ray.get(stash.remote("kept", boxed))]

    with counted(_system_config={"lease_keep_s": 0.0}) as tables:
        between, last = get(pass_on.remote([ray.put("value")]))
        assert between != last
        tables.await_idle(last)
        os.kill(between, signal.SIGKILL)
        settled(lambda: between not in tables.pids())
        assert tables.get_in(last, "kept", 0) == "value"


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_task_is_not_over_before_what_it_keeps_is_registered(size: int, direct: bool) -> None:
    @remote
    def keep_inner(value: Any) -> int:
        return keep("kept", value if isinstance(value[0], list) else ray.get(value[0]))

    with counted(num_cpus=1) as tables:
        pid = get(stash.remote("nothing", None))
        tables.hold_in(pid, m.BORROW)
        outer = ray.put([[ray.put("value")], bytes(size)])
        done = keep_inner.remote(outer if direct else [outer])
        tables.wait_for_held_in(pid, 1)
        del outer
        if size > INLINE and not direct:
            # The answer that told where the outer value lies has registered this holder of it.
            assert get(done) == pid
        else:
            with pytest.raises(GetTimeoutError):
                ray.get(done, timeout=0.1)
        tables.let_go_in(pid)
        assert get(done) == pid
        assert tables.get_in(pid, "kept", 0, 0) == "value"
        del done


def test_what_a_dead_caller_had_been_returned_is_released() -> None:
    """It was told of the references, and died before it had said that it holds them."""

    @remote
    def call_own() -> int:
        get(own.remote("value"))
        return os.getpid()

    with counted(num_cpus=1, _system_config={"lease_keep_s": 0.0}) as tables:
        caller = get(stash.remote("nothing", None))
        tables.hold_in(caller, m.UNPIN)
        assert get(call_own.remote()) == caller
        (callee,) = settled_on(lambda: tables.of_workers_that(lambda told: told.results_pinned == 1))
        assert callee != caller
        tables.await_idle(callee)
        os.kill(caller, signal.SIGKILL)
        settled(lambda: not tables.of_workers_that(lambda told: told.results_pinned > 0))


def test_an_idle_worker_is_not_retired_while_it_owns_something() -> None:
    @remote
    def own_too(value: str) -> Any:
        return [os.getpid(), ray.put(value), *ray.get(own_and_tell.remote("second"))]

    @remote
    def own_and_tell(value: str) -> Any:
        return [os.getpid(), ray.put(value)]

    with counted(num_cpus=1, _system_config={"lease_keep_s": 0.0, "worker_idle_s": 0.01}) as tables:
        first, ref, second, other = get(own_too.remote("first"))
        assert first != second
        del ref
        await_end(tables, first)
        assert second in tables.pids()
        assert get(other) == "second"
        del other


def test_a_worker_is_needed_as_long_as_a_task_of_its_own_that_returns_nothing(tmp_path: Path) -> None:
    doors = Doors(tmp_path)
    door = doors.new()

    @ray.remote(num_cpus=0, num_returns=0)
    def child(name: str) -> None:
        stand_at(name)

    @remote
    def call_for_it(name: str) -> bool:
        child.remote(name)
        needed = session().is_needed()
        settled(lambda: not session().is_needed())
        return needed

    with counted(num_cpus=1):
        needed = call_for_it.remote(door.name)
        door.arrival()
        door.let_in()
        assert get(needed)
        del needed
    doors.close()


def test_a_worker_that_pickled_a_reference_by_hand_is_not_retired() -> None:
    """Nobody knows where that is now."""

    @remote
    def by_hand() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [os.getpid(), pickle.dumps(ray.put("by hand"))]

    @remote
    def own_too() -> Any:
        return [os.getpid(), ray.put("counted"), *ray.get(by_hand.remote())]

    with counted(num_cpus=1, _system_config={"lease_keep_s": 0.0, "worker_idle_s": 0.01}) as tables:
        counting, ref, pickling, pickled = get(own_too.remote())
        assert tables.of_workers()[pickling].out_of_band == 1
        del ref
        await_end(tables, counting)
        assert get(pickle.loads(pickled)) == "by hand"
        os.kill(pickling, signal.SIGKILL)


def await_end(tables: Tables, pid: int) -> None:
    settled(lambda: pid not in tables.pids())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_worker_that_has_run_often_enough_stays_as_long_as_it_owns_something(is_async: bool) -> None:
    @remote_with(max_calls=1)
    def last_words(child: bool) -> Any:
        return [os.getpid(), same.remote("value") if child else ray.put("value")]

    @remote_with(max_calls=1)
    async def last_words_async(child: bool) -> Any:
        return [os.getpid(), same.remote("value") if child else ray.put("value")]

    function = last_words_async if is_async else last_words
    with counted(num_cpus=1) as tables:
        for child in (False, True):
            pid, ref = get(function.remote(child))
            assert get(same.remote(1)) == 1  # its CPU is free
            assert pid in tables.pids()
            assert get(ref) == "value"
            del ref
            await_end(tables, pid)


@pytest.fixture
def small_frames() -> Iterator[Tables]:
    with counted(_system_config={"max_frame_bytes": 1 << 20}) as made:
        yield made


def test_what_does_not_fit_into_one_frame_travels_in_several(small_frames: Tables) -> None:
    @remote
    def total(*parts: bytes) -> int:
        return sum(map(len, parts))

    @remote
    async def total_async(*parts: bytes) -> int:
        return sum(map(len, parts))

    @remote
    def make_many(count: int) -> list[Any]:
        return [ray.put(bytes(90_000)) for _ in range(count)]

    refs = [ray.put(bytes(60_000)) for _ in range(100)]
    assert get([total.remote(*refs), total_async.remote(*refs)]) == [6_000_000] * 2
    assert get([total_async.remote(bytes(90_000)) for _ in range(100)]) == [90_000] * 100
    assert sum(map(len, get([same.remote(bytes(90_000)) for _ in range(100)]))) == 9_000_000
    assert sum(map(len, get([same_async.remote(bytes(90_000)) for _ in range(100)]))) == 9_000_000
    made = get(make_many.remote(50))
    assert sum(map(len, get(made))) == 50 * 90_000
    assert get(total.remote(*made)) == 50 * 90_000


def use_no_store() -> None:
    """Keep values of any size in this process's own memory."""
    session().store.inline_bytes = sys.maxsize


def test_what_fits_into_no_frame_is_refused_where_it_comes_from(small_frames: Tables) -> None:
    """Where the object store has no part in it; there, there is room for values of any size."""

    @remote
    def make(size: int) -> bytes:
        use_no_store()
        return bytes(size)

    @remote_with(num_returns=2)
    def make_two(size: int) -> Any:
        use_no_store()
        return bytes(size), bytes(size)

    use_no_store()

    with pytest.raises(ValueError, match=r"arguments of 'same' take 2000.* at most 786432"):
        same.remote(bytes(2_000_000))
    with pytest.raises(ValueError, match=r"return value of .*make' is 2000.* at most 786432"):
        get(make.remote(2_000_000))
    returns: Any = make_two.remote(500_000)
    with pytest.raises(ValueError, match=r"what is returned of .*make_two' is 1000.* at most 786432"):
        get(returns)
    large = ray.put(bytes(2_000_000))
    assert len(get(large)) == 2_000_000
    with pytest.raises(RaySystemError, match=r"the value is 2000.* at most 786432"):
        get(same.remote(large))
    assert get(same.remote(1)) == 1


# ---- many ----


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def memory_kib(tables: Tables) -> dict[str, int]:
    pids = {"driver": os.getpid(), "node": session().facts["pid"]}
    pids |= {f"worker {pid}": pid for pid in tables.pids()}
    return {name: resident_kib(pid) for name, pid in pids.items()}


def test_nothing_grows_over_a_hundred_thousand_short_tasks(tables: Tables) -> None:
    def run(count: int) -> None:
        for _ in range(count // 1000):
            assert get([same.remote(i) for i in range(998)]) == list(range(998))
            assert get(get(same.remote([ray.put(1)]))[0]) == 1
            assert get(get(own.remote(2))[0]) == 2

    run(20_000)
    tables.settle()
    before = memory_kib(tables)
    run(100_000)
    tables.settle()
    grown = {name: kib - before[name] for name, kib in memory_kib(tables).items() if name in before}
    assert max(grown.values()) < 2048, grown
