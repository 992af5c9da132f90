"""wait and get: order, counts, timeouts, failures; what they leave and cost."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import GetTimeoutError, RayTaskError, TaskCancelledError
from tests.cluster.gates import LIMIT_S, Gates, fail, least, passed_on, same, seconds, waiters, watchers

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncray import ObjectRef

pytestmark = pytest.mark.usefixtures("shared_ray")

Refs = list["ObjectRef[Any]"]


@pytest.fixture
def gates(shared_ray: object, gates: Gates) -> Gates:
    return gates


def finished(count: int) -> Refs:
    """References that are done; the values are the numbers from 0."""
    return [ray.put(i) for i in range(count)]


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a call on a thread of its own; the list gets what it returns or raises."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def until_somebody_waits(look: Callable[[], list[Any]]) -> None:
    """Return when a thread has registered itself; it cannot be told otherwise that it is about to park."""
    end = time.monotonic() + LIMIT_S
    while not look():
        assert time.monotonic() < end, "nobody began to wait"
        time.sleep(0)  # only lets the other thread run


class TestWait:
    def test_gives_one_unless_told_otherwise(self) -> None:
        refs = finished(3)
        assert ray.wait(refs) == ([refs[0]], refs[1:])

    def test_keeps_the_order_of_the_list_in_both_parts(self, gates: Gates) -> None:
        late = [gates.pending() for _ in range(3)]
        done = finished(3)
        refs = [late[0], done[2], late[1], done[0], done[1], late[2]]
        ready, rest = ray.wait(refs, num_returns=3)
        assert ready == [done[2], done[0], done[1]]
        assert rest == late

    def test_keeps_the_order_of_the_list_whatever_finished_first(self, gates: Gates) -> None:
        held = [gates.new() for _ in range(3)]
        refs = [gate.ref(i) for i, gate in enumerate(held)]
        for i in (2, 0, 1):
            held[i].open()
            assert refs[i].result(LIMIT_S) == i
        assert ray.wait(refs, num_returns=3, timeout=LIMIT_S) == (refs, [])

    def test_never_gives_more_than_asked_for(self) -> None:
        refs = finished(100)
        ready, rest = ray.wait(refs, num_returns=7)
        assert ready == refs[:7]
        assert rest == refs[7:]

    def test_does_not_change_the_list_that_it_is_given(self) -> None:
        refs = finished(100)
        before = list(refs)
        _, rest = ray.wait(refs)
        kept = list(rest)
        ray.wait(rest, num_returns=5)
        assert refs == before
        assert rest == kept

    @pytest.mark.parametrize("timeout", [None, 0, 0.0, 5])
    def test_on_nothing_returns_at_once(self, timeout: float | None) -> None:
        assert ray.wait([], timeout=timeout) == ([], [])

    def test_gives_fewer_when_the_time_is_over(self, gates: Gates) -> None:
        late, done = gates.pending(), ray.put(1)
        assert ray.wait([late, done], num_returns=2, timeout=0.02) == ([done], [late])
        assert ray.wait([late], timeout=0.02) == ([], [late])

    def test_with_timeout_zero_only_looks(self, gates: Gates) -> None:
        late, done = gates.pending(), ray.put(1)
        assert ray.wait([late, done], num_returns=2, timeout=0) == ([done], [late])
        assert ray.wait([late], timeout=0) == ([], [late])

    def test_returns_as_soon_as_enough_are_done(self, gates: Gates) -> None:
        held = [gates.new() for _ in range(3)]
        refs = [gate.ref() for gate in held]
        thread, outcome = in_thread(lambda: ray.wait(refs, num_returns=2, timeout=LIMIT_S))
        until_somebody_waits(watchers)
        held[2].open()
        assert refs[2].result(LIMIT_S) is None
        assert thread.is_alive(), "one is not enough"
        held[0].open()
        thread.join(LIMIT_S)
        assert outcome == [([refs[0], refs[2]], [refs[1]])]

    def test_is_not_misled_by_what_else_finishes(self, gates: Gates) -> None:
        gate = gates.new()
        refs = [gate.ref(0), gate.ref(1)]
        thread, outcome = in_thread(lambda: ray.wait(refs, num_returns=2, timeout=LIMIT_S))
        until_somebody_waits(watchers)
        ray.get([same.remote(i) for i in range(300)])
        assert thread.is_alive()
        gate.open()
        thread.join(LIMIT_S)
        assert outcome == [(refs, [])]

    def test_counts_failed_and_cancelled_tasks_as_ready(self, gates: Gates) -> None:
        failed, cancelled = fail.remote("no"), gates.pending()
        ray.cancel(cancelled)
        ready, rest = ray.wait([failed, cancelled], num_returns=2, timeout=LIMIT_S)
        assert ready == [failed, cancelled]
        assert rest == []

    def test_does_not_use_references_up(self) -> None:
        refs = [same.remote(i) for i in range(3)]
        ready, _ = ray.wait(refs, num_returns=3)
        assert ray.get(ready) == [0, 1, 2]
        assert ray.wait(refs, num_returns=3) == (refs, [])

    @pytest.mark.parametrize("fetch_local", [True, False])
    def test_in_a_task_sees_what_the_caller_makes(self, gates: Gates, *, fetch_local: bool) -> None:
        @ray.remote
        def look(refs: Refs) -> list[list[int]]:
            ready, rest = ray.wait(refs, num_returns=2, timeout=LIMIT_S, fetch_local=fetch_local)
            return [[refs.index(ref) for ref in part] for part in (ready, rest)]

        large = ray.put(b"x" * 1_000_000)
        assert ray.get(look.remote([gates.pending(), large, same.remote(1)]), timeout=LIMIT_S) == [
            [1, 2],
            [0],
        ]

    @pytest.mark.parametrize("count", [2, 40])
    def test_refuses_a_reference_that_stands_there_twice(self, count: int) -> None:
        refs = finished(count)
        with pytest.raises(ValueError, match=r"stands there 2 times"):
            ray.wait([*refs, refs[1]])

    def test_looks_again_at_a_rest_that_was_changed(self) -> None:
        _, rest = ray.wait(finished(100))
        with pytest.raises(ValueError, match=r"stands there 2 times"):
            ray.wait([*rest, rest[0]])
        rest.append(rest[0])
        with pytest.raises(ValueError, match=r"stands there 2 times"):
            ray.wait(rest)
        rest[-1] = 17  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"the list holds 17 of type int"):
            ray.wait(rest)
        del rest[-1]
        rest[5] = ray.put("another")
        assert ray.wait(rest, num_returns=99) == (rest, [])

    def test_takes_a_rest_again_and_again(self) -> None:
        refs = finished(100)
        _, rest = ray.wait(refs)
        assert [ray.wait(rest) for _ in range(3)] == [([refs[1]], refs[2:])] * 3

    def test_takes_a_rest_from_two_threads(self) -> None:
        refs = finished(200)
        _, rest = ray.wait(refs)

        def drain() -> list[Any]:
            left, found = rest, []
            while left:
                ready, left = ray.wait(left)
                found += ready
            return found

        running = [in_thread(drain) for _ in range(4)]
        for thread, outcome in running:
            thread.join(LIMIT_S)
            assert outcome == [refs[1:]]

    @pytest.mark.parametrize("num_returns", [0, -1, 4])
    def test_refuses_an_impossible_number(self, num_returns: int) -> None:
        with pytest.raises(ValueError, match=rf"num_returns.*{num_returns}"):
            ray.wait(finished(3), num_returns=num_returns)

    @pytest.mark.parametrize("num_returns", [True, 1.0, "1", None])
    def test_refuses_a_number_of_the_wrong_type(self, num_returns: Any) -> None:
        with pytest.raises(TypeError, match=r"num_returns must be a whole number"):
            ray.wait(finished(3), num_returns=num_returns)

    def test_refuses_what_is_no_list_of_references(self) -> None:
        one = ray.put(1)
        wrong: list[Any] = [one, (one,), {one}, iter([one]), None, [one, 1], [None], [[one]]]
        for refs in wrong:
            with pytest.raises(TypeError, match=r"wait takes"):
                ray.wait(refs)

    def test_refuses_an_impossible_timeout(self) -> None:
        for timeout in (-1, -0.001, float("nan")):
            with pytest.raises(ValueError, match=r"timeout must be None or >= 0"):
                ray.wait(finished(1), timeout=timeout)
        wrong: list[Any] = ["1", True, [1]]
        for timeout in wrong:
            with pytest.raises(TypeError, match=r"timeout must be None or a number"):
                ray.wait(finished(1), timeout=timeout)

    def test_on_a_loop_works_where_it_need_not_wait_and_names_the_remedy_where_it_must(
        self, gates: Gates
    ) -> None:
        late, done = gates.pending(), ray.put(1)

        async def on_a_loop() -> None:
            assert ray.wait([done]) == ([done], [])
            assert ray.wait([late], timeout=0) == ([], [late])
            with pytest.raises(RuntimeError, match=r"await asyncray\.aio\.wait\(refs\)"):
                ray.wait([late])
            with pytest.raises(RuntimeError, match=r"await asyncray\.aio\.wait\(refs\)"):
                ray.wait([late], timeout=1)

        asyncio.run(on_a_loop())

    def test_leaves_nobody_waiting(self, gates: Gates) -> None:
        late = gates.pending()
        for timeout in (0, 0.001):
            ray.wait([late], timeout=timeout)
        ray.wait([late, ray.put(1)])
        assert waiters(late) == []
        assert watchers() == []


class TestDraining:
    """One at a time, as every Ray program does it."""

    @pytest.mark.parametrize("count", [10, 500])
    @pytest.mark.parametrize("order", ["forwards", "backwards", "at random"])
    def test_gives_each_reference_once(self, count: int, order: str) -> None:
        refs = [same.remote(i) for i in range(count)]
        put_in_order(refs, order)
        left, values = refs, []
        while left:
            ready, left = ray.wait(left, timeout=LIMIT_S)
            values += ray.get(ready)
        assert sorted(values) == list(range(count))

    def test_takes_several_at_a_time(self) -> None:
        refs = [same.remote(i) for i in range(1000)]
        left, values = refs, []
        while left:
            ready, left = ray.wait(left, num_returns=min(7, len(left)), timeout=LIMIT_S)
            values += ray.get(ready)
        assert sorted(values) == list(range(1000))

    @pytest.mark.slow
    def test_ten_thousand_finished_ones_takes_less_than_a_second(self) -> None:
        refs = finished(10_000)
        assert least(lambda: seconds(lambda: drain(refs))) < 1

    @pytest.mark.slow
    @pytest.mark.parametrize("order", ["forwards", "backwards", "at random"])
    def test_ten_thousand_that_are_finishing_takes_less_than_a_second_beyond_their_work(
        self, order: str
    ) -> None:
        def submitted() -> Refs:
            refs = [same.remote(i) for i in range(10_000)]
            put_in_order(refs, order)
            return refs

        work = least(lambda: seconds(lambda: ray.get(submitted())))
        assert least(lambda: seconds(lambda: drain(submitted()))) < work + 1

    @pytest.mark.slow
    def test_costs_little_for_what_finishes_late_among_ten_thousand_that_are_pending(
        self, gates: Gates
    ) -> None:
        late = gates.pending()
        refs = [passed_on.remote(late, i) for i in range(10_000)]
        places = random.Random(5).sample(range(10_000), 50)

        def look() -> None:
            for place in places:
                one = same.remote(place)
                ready, rest = ray.wait([*refs[:place], one, *refs[place:]], timeout=LIMIT_S)
                assert ready == [one]
                assert rest == refs

        assert least(lambda: seconds(look)) < 1


def drain(refs: Refs) -> None:
    while refs:
        _, refs = ray.wait(refs)


def put_in_order(refs: Refs, order: str) -> None:
    if order == "backwards":
        refs.reverse()
    elif order == "at random":
        random.Random(3).shuffle(refs)


class TestGet:
    def test_returns_values_in_the_order_of_the_list(self, gates: Gates) -> None:
        first, second = gates.new(), gates.new()
        refs = [second.ref("second"), first.ref("first"), ray.put("put")]
        thread, outcome = in_thread(lambda: ray.get(refs, timeout=LIMIT_S))
        first.open()
        ray.get(refs[1], timeout=LIMIT_S)
        second.open()
        thread.join(LIMIT_S)
        assert outcome == [["second", "first", "put"]]

    def test_takes_a_reference_twice(self) -> None:
        one = same.remote(1)
        assert ray.get([one, one]) == [1, 1]

    def test_of_nothing_is_nothing(self) -> None:
        assert ray.get([]) == []

    def test_can_be_repeated(self) -> None:
        one = same.remote({"a": 1})
        first = ray.get(one)
        first["a"] = 2
        assert ray.get(one) == {"a": 1}

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_raises_the_first_failure_without_waiting_for_the_rest(self, gates: Gates, place: int) -> None:
        late = [gates.pending(), gates.pending()]
        gate = gates.new()
        refs = list(late)
        refs.insert(place, gate.ref(ValueError("at once")))
        thread, outcome = in_thread(lambda: ray.get(refs, timeout=LIMIT_S))
        until_somebody_waits(lambda: waiters(late[0]))
        gate.open()
        thread.join(LIMIT_S)
        assert isinstance(outcome[0], ValueError)
        assert isinstance(outcome[0], RayTaskError)
        assert [waiters(ref) for ref in late] == [[], []], "nobody waits for the rest any more"

    def test_raises_a_failure_that_is_there_already(self, gates: Gates) -> None:
        failed = fail.remote("there already")
        ray.wait([failed])
        with pytest.raises(ValueError, match="there already"):
            ray.get([gates.pending(), failed], timeout=LIMIT_S)

    def test_raises_the_first_of_the_list_when_several_have_failed(self) -> None:
        refs = [same.remote(1), fail.remote("one"), fail.remote("two")]
        ray.wait(refs, num_returns=3)
        with pytest.raises(ValueError, match="one"):
            ray.get(refs)

    def test_raises_that_a_task_was_cancelled_at_once(self, gates: Gates) -> None:
        late = gates.pending()
        thread, outcome = in_thread(lambda: ray.get(late, timeout=LIMIT_S))
        until_somebody_waits(lambda: waiters(late))
        ray.cancel(late)
        thread.join(LIMIT_S)
        assert isinstance(outcome[0], TaskCancelledError)

    @pytest.mark.parametrize("timeout", [0, 0.0, 0.01])
    def test_raises_when_the_time_is_over_and_the_work_goes_on(self, gates: Gates, timeout: float) -> None:
        gate = gates.new()
        late = gate.ref("late")
        refs: list[Any] = [late, [late], [ray.put(1), late, late]]
        told = rf"not there after {timeout:g} s; the work goes on"
        for wanted in refs:
            with pytest.raises(GetTimeoutError, match=told) as caught:
                ray.get(wanted, timeout=timeout)
            assert isinstance(caught.value, TimeoutError)
        assert waiters(late) == []
        gate.open()
        assert ray.get(late, timeout=LIMIT_S) == "late"

    def test_with_timeout_zero_returns_what_is_there(self) -> None:
        refs = finished(3)
        assert ray.get(refs[0], timeout=0) == 0
        assert ray.get(refs, timeout=0) == [0, 1, 2]

    def test_refuses_what_is_neither_a_reference_nor_a_list(self) -> None:
        one = ray.put(1)
        wrong: list[Any] = [1, None, "one", (one,), {one}, iter([one])]
        for refs in wrong:
            with pytest.raises(ValueError, match=r"get takes an ObjectRef or a list"):
                ray.get(refs)

    def test_refuses_a_list_of_something_else(self) -> None:
        wrong: list[Any] = [[1], [ray.put(1), None], [[ray.put(1)]]]
        for refs in wrong:
            with pytest.raises(TypeError, match=r"the list holds"):
                ray.get(refs)

    @pytest.mark.parametrize("done", [True, False])
    def test_refuses_an_impossible_timeout(self, gates: Gates, *, done: bool) -> None:
        ref = ray.put(1) if done else gates.pending()
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match=r"timeout must be None or >= 0"):
                ray.get(ref, timeout=timeout)
            with pytest.raises(ValueError, match=r"timeout must be None or >= 0"):
                ray.get([ref], timeout=timeout)
        wrong: list[Any] = ["1", True]
        for timeout in wrong:
            with pytest.raises(TypeError, match=r"timeout must be None or a number"):
                ray.get(ref, timeout=timeout)

    def test_on_a_loop_works_for_what_is_there_and_names_the_remedy_for_the_rest(self, gates: Gates) -> None:
        late, done = gates.pending(), ray.put(1)

        async def on_a_loop() -> None:
            assert ray.get(done) == 1
            assert ray.get([done, done]) == [1, 1]
            with pytest.raises(GetTimeoutError):
                ray.get(late, timeout=0)
            with pytest.raises(RuntimeError, match=r"await ref"):
                ray.get(late)
            with pytest.raises(RuntimeError, match=r"await asyncray\.aio\.get\(refs\)"):
                ray.get([done, late], timeout=1)

        asyncio.run(on_a_loop())
        assert waiters(late) == []


class TestManyReturns:
    """The returns of one task are done together."""

    def test_are_got_in_any_mixture_with_others(self, gates: Gates) -> None:
        several: Any = ray.remote(lambda: [*range(5), 2**70, "text", [1]]).options(num_returns=8)
        gate = gates.new()
        first, second, late = several.remote(), several.remote(), gate.ref("late")
        thread, outcome = in_thread(lambda: ray.get([first[3], first[7], late, *second, first[3]]))
        until_somebody_waits(lambda: waiters(late))
        gate.open()
        thread.join(LIMIT_S)
        assert outcome == [[3, [1], "late", 0, 1, 2, 3, 4, 2**70, "text", [1], 3]]

    async def test_are_awaited_together(self) -> None:
        several: Any = ray.remote(lambda: list(range(100))).options(num_returns=100)
        assert await ray.aio.get([*several.remote(), *several.remote()]) == [*range(100)] * 2

    def test_fail_together(self) -> None:
        refs: Any = ray.remote(lambda: [1]).options(num_returns=3).remote()
        with pytest.raises(RayTaskError, match="num_returns=3"):
            ray.get(refs)

    def test_are_cancelled_together(self, gates: Gates) -> None:
        late = gates.pending()
        refs: Any = ray.remote(lambda value: [1, 2, 3]).options(num_returns=3).remote(late)
        thread, outcome = in_thread(lambda: ray.get(refs))
        until_somebody_waits(lambda: waiters(refs[2]))
        ray.cancel(refs[0])
        thread.join(LIMIT_S)
        assert [type(error) for error in outcome] == [TaskCancelledError]
        assert not waiters(refs[2])
