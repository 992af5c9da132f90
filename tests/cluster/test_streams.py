"""Remote generators: references as they are yielded, from real processes."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import ObjectRefGenerator, aio, exceptions
from tests.cluster.doors import Doors, stand_at, wait_at
from tests.cluster.gates import LIMIT_S, run_on
from tests.cluster.patience import PATIENCE_S, get
from tests.cluster.producers import (
    COUNTING,
    count_to,
    count_to_async,
    fail_at,
    fail_at_async,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gates import Factory

pytestmark = pytest.mark.usefixtures("shared_ray")


class TestReading:
    @COUNTING
    @pytest.mark.parametrize("count", [0, 1, 3, 5000])
    def test_the_items_come_in_order(self, counting: Any, count: int) -> None:
        stream = counting.remote(count)
        assert isinstance(stream, ObjectRefGenerator)
        assert values(stream) == list(range(count))

    @COUNTING
    @pytest.mark.parametrize("count", [0, 1, 5000])
    def test_a_coroutine_reads_them(self, counting: Any, count: int, loop_factory: Factory) -> None:
        async def read() -> list[int]:
            return [await ref async for ref in counting.remote(count)]

        assert run_on(loop_factory, read()) == list(range(count))

    @COUNTING
    def test_after_the_last_there_is_none(self, counting: Any) -> None:
        stream = counting.remote(1)
        assert get(next(stream)) == 0
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(stream)

        async def again() -> None:
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

        asyncio.run(again())

    @COUNTING
    def test_it_says_where_it_is(self, counting: Any) -> None:
        stream = counting.remote(1)
        ray.wait([stream])
        assert stream.next_ready()
        assert not stream.is_finished()
        next(stream)
        assert get(stream.completed()) is None
        assert not stream.next_ready()
        assert stream.is_finished()

    def test_before_the_first_item_nothing_is_ready(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def late(name: str) -> Iterator[int]:
            stand_at(name)
            yield 1

        stream = late.remote(door.name)
        door.arrival()
        assert not stream.next_ready()
        assert not stream.is_finished()
        assert not stream.completed().done()
        door.let_in()
        assert values(stream) == [1]

    def test_an_item_does_not_wait_for_the_next(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def slow(name: str) -> Iterator[int]:
            for number in range(3):
                yield 2 * number
                yield 2 * number + 1
                wait_at(name)

        stream = slow.remote(door.name)
        for number in range(3):
            assert get([next(stream), next(stream)]) == [2 * number, 2 * number + 1]
            door.let_in()
        assert values(stream) == []

    def test_on_a_running_loop_only_what_is_there_can_be_taken(self, doors: Doors) -> None:
        async def take() -> None:
            stream = count_to.remote(1)
            await aio.wait([stream])
            assert await next(stream) == 0
            await stream.completed()
            with pytest.raises(StopIteration):
                next(stream)
            with pytest.raises(RuntimeError, match="async for"):
                next(count_to.remote(later))

        door = doors.new()
        later: Any = ray.remote(stand_at).remote(door.name)
        asyncio.run(take())
        door.let_in()
        get(later)

    def test_threads_share_one(self) -> None:
        stream = count_to.remote(5000)
        got: list[list[int]] = [[], []]

        def read(into: list[int]) -> None:
            into += values(stream)

        threads = [threading.Thread(target=read, args=(into,)) for into in got]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got[0] + got[1]) == list(range(5000))
        assert all(into == sorted(into) for into in got)

    def test_loops_share_one(self) -> None:
        stream = count_to.remote(4)

        async def read(count: int) -> list[int]:
            return [await (await anext(stream)) for _ in range(count)]

        assert asyncio.run(read(3)) == [0, 1, 2]
        assert asyncio.run(read(1)) == [3]

    def test_an_awaiter_that_is_cancelled_misses_nothing(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def late(name: str) -> Iterator[int]:
            wait_at(name)
            yield 1

        async def read() -> list[int]:
            stream = late.remote(door.name)
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            door.let_in()
            return [await ref async for ref in stream]

        assert asyncio.run(read()) == [1]

    def test_a_task_reads_a_stream(self) -> None:
        @ray.remote
        def total(count: int) -> int:
            return sum(ray.get(ref) for ref in count_to_async.remote(count))

        @ray.remote
        async def total_async(count: int) -> int:
            return sum([await ref async for ref in count_to.remote(count)])

        assert get([total.remote(1000), total_async.remote(1000)]) == [499500, 499500]

    def test_items_are_of_any_kind_and_size(self) -> None:
        inner = ray.put([1])

        @ray.remote
        def kinds(box: list[Any]) -> Iterator[Any]:
            yield None
            yield 2**70
            yield b"x" * 3_000_000
            yield "y" * 2000
            yield bytearray(b"z" * 100_000)
            yield box
            yield ray.put("made there")
            yield {1, 2}

        none, big, data, text, array, box, made, numbers = kinds.remote([inner])
        assert get([none, big]) == [None, 2**70]
        assert get(data) == b"x" * 3_000_000
        assert get(text) == "y" * 2000
        assert get(array) == bytearray(b"z" * 100_000)
        assert get(get(box)[0]) == [1]
        assert get(get(made)) == "made there"
        assert get(numbers) == {1, 2}

    def test_items_that_hold_references_keep_them_alive(self) -> None:
        @ray.remote
        def boxes(count: int) -> Iterator[Any]:
            for number in range(count):
                yield [ray.put(number)]

        got = [get(get(ref)[0]) for ref in boxes.options(max_unread=5).remote(200)]
        assert got == list(range(200))

    def test_arguments_are_resolved_before_it_starts(self) -> None:
        assert values(count_to.remote(ray.put(2))) == [0, 1]

    def test_a_failed_argument_is_the_only_item(self) -> None:
        @ray.remote
        def fail() -> int:
            raise ValueError("not at all")

        stream = count_to.remote(fail.remote())
        (ref,) = stream
        for failed in (ref, stream.completed()):
            with pytest.raises(ValueError, match="not at all"):
                get(failed)

    def test_a_yield_may_bring_several_items(self) -> None:
        @ray.remote(_num_objects_per_yield=2)
        def pairs(wrong: bool) -> Iterator[Any]:
            for number in range(3):
                yield (number, str(number))
            yield (1, 2, 3) if wrong else (3, "3")

        assert values(pairs.remote(False)) == [0, "0", 1, "1", 2, "2", 3, "3"]
        *_, bad = pairs.remote(True)
        with pytest.raises(ValueError, match=r"pairs.*has _num_objects_per_yield=2 and yielded more at once"):
            get(bad)


class TestErrors:
    @pytest.mark.parametrize("failing", [fail_at, fail_at_async])
    @pytest.mark.parametrize("count", [0, 1, 500])
    def test_an_error_is_the_last_item(self, failing: Any, count: int) -> None:
        stream = failing.remote(count)
        *good, bad = stream
        assert get(good) == list(range(count))
        with pytest.raises(ValueError, match="on purpose") as caught:
            get(bad)
        assert isinstance(caught.value, exceptions.RayTaskError)
        assert "streaming.py" not in str(caught.value)
        assert stream.is_finished()
        assert get(stream.completed()) is None

    def test_an_item_that_cannot_be_pickled_is_an_error_in_its_place(self) -> None:
        @ray.remote
        def locks() -> Iterator[Any]:
            yield 1
            yield threading.Lock()
            yield 3

        first, second = locks.remote()
        assert get(first) == 1
        with pytest.raises(TypeError, match=r"item 1 of .*locks.* cannot be pickled"):
            get(second)

    def test_what_cannot_be_done_with_a_generator_says_so(self) -> None:
        take: Any = count_to
        stream: Any = count_to.remote(1)
        use: Any
        for use in (pickle.dumps, copy.copy, copy.deepcopy, ray.put, lambda it: ray.get([it])):
            with pytest.raises(TypeError, match="ObjectRefGenerator"):
                use(stream)
        call: Any
        for call in (count_to.remote, lambda it: take.remote([it])):
            with pytest.raises(TypeError, match="an ObjectRefGenerator cannot be pickled"):
                call(stream)
        for method in (stream.send, stream.throw):
            with pytest.raises(NotImplementedError, match="runs ahead"):
                method(None)
        assert ray.get(stream) is stream

    def test_a_task_that_returns_one_fails_and_says_why(self) -> None:
        @ray.remote
        def outer() -> Any:
            return count_to.remote(1)

        with pytest.raises(TypeError, match="an ObjectRefGenerator cannot be pickled"):
            get(outer.remote())


class TestWait:
    def test_a_stream_is_ready_when_its_next_item_is(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def gated(name: str) -> Iterator[int]:
            yield 0
            stand_at(name)
            yield 1

        stream = gated.remote(door.name)
        empty = count_to.remote(0)
        assert ray.wait([stream], timeout=PATIENCE_S) == ([stream], [])
        next(stream)
        door.arrival()
        assert ray.wait([stream], timeout=0) == ([], [stream])
        assert ray.wait([stream], timeout=0.01) == ([], [stream])
        door.let_in()
        assert ray.wait([stream], timeout=PATIENCE_S) == ([stream], [])
        next(stream)
        get(stream.completed())
        assert ray.wait([stream, empty], num_returns=2, timeout=PATIENCE_S) == ([stream, empty], [])
        assert values(stream) == []

    def test_streams_and_references_are_waited_for_together(self, doors: Doors) -> None:
        door = doors.new()
        never: Any = ray.remote(stand_at).remote(door.name)
        stream: Any = count_to.remote(3)
        ready, rest = ray.wait([never, stream], timeout=PATIENCE_S)
        assert (ready, rest) == ([stream], [never])

        async def wait() -> Any:
            return await aio.wait([never, stream], timeout=LIMIT_S)

        assert asyncio.run(wait()) == ([stream], [never])
        door.let_in()
        assert values(stream) == [0, 1, 2]
        get(never)

    def test_a_loop_waits_for_the_end_of_a_stream(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def nothing(name: str) -> Iterator[int]:
            stand_at(name)
            return
            yield

        async def wait() -> None:
            stream = nothing.remote(door.name)
            waiting = asyncio.ensure_future(aio.wait([stream]))
            await asyncio.to_thread(door.arrival)
            assert not waiting.done()
            door.let_in()
            assert await waiting == ([stream], [])
            assert [ref async for ref in stream] == []

        asyncio.run(wait())
