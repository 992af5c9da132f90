"""Streams that must pause or stop: back-pressure, close, cancel, and the death of either end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.process import current
from tests.cluster.doors import Doors, say_at, stand_at
from tests.cluster.patience import PATIENCE_S, eventually, get
from tests.cluster.producers import COUNTING, WATCHED, count_to, values, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    made = Doors(tmp_path)
    yield made
    made.close()


class TestBackPressure:
    @WATCHED
    @pytest.mark.parametrize("option", ["max_unread", "_generator_backpressure_num_objects"])
    def test_a_producer_pauses_when_so_many_items_are_unread(
        self, producer: Any, option: str, doors: Doors
    ) -> None:
        door = doors.new()
        stream = producer.options(**{option: 2}).remote(door.name, 6)
        assert [door.hear(), door.hear()] == ["0", "1"]
        for number in range(2, 6):
            assert door.is_quiet()
            next(stream)
            assert door.hear() == str(number)
        assert get([next(stream), next(stream)]) == [4, 5]
        assert door.hear() == "ended"

    @COUNTING
    def test_minus_one_never_pauses(self, counting: Any) -> None:
        stream = counting.options(_generator_backpressure_num_objects=-1).remote(3000)
        ray.wait([stream._ref], timeout=PATIENCE_S)
        assert stream._ref.done()
        assert values(stream) == list(range(3000))

    @COUNTING
    def test_who_asks_for_the_end_lifts_the_default(self, counting: Any) -> None:
        stream = counting.remote(3000)
        ray.wait([stream._ref], timeout=0.05)
        assert not stream._ref.done()
        assert get(stream.completed()) is None
        assert values(stream) == list(range(3000))

    def test_large_items_pause_it_sooner(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def large(name: str) -> Iterator[bytes]:
            for number in range(40):
                say_at(name, str(number))
                yield bytes(2_000_000)

        stream = large.remote(door.name)
        heard = [door.hear() for _ in range(9)]
        assert heard == [str(number) for number in range(9)]
        eventually(door.is_quiet, expected=True)
        assert len(get(next(stream))) == 2_000_000
        assert door.hear() == "9"
        assert sum(len(get(ref)) for ref in stream) == 39 * 2_000_000

    def test_on_one_cpu_a_consumer_that_needs_it_gets_it_from_the_paused_producer(self) -> None:
        @ray.remote(num_cpus=2)
        def double(value: int) -> int:
            return 2 * value

        stream = count_to.options(max_unread=1, num_cpus=2).remote(5)
        assert [get(double.remote(ref)) for ref in stream] == [0, 2, 4, 6, 8]

    @COUNTING
    def test_many_items_pass_in_constant_memory(self, counting: Any) -> None:
        def resident_kb() -> int:
            status = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

        before = 0
        for number, ref in enumerate(counting.remote(200_000)):
            assert get(ref) == number
            if number == 20_000:
                before = resident_kb()
        # 180,000 records and references would be 60 MB.
        assert resident_kb() - before < 20_000


class TestStopping:
    @WATCHED
    def test_close_stops_the_producer_and_ends_the_stream(self, producer: Any, doors: Doors) -> None:
        door = doors.new()
        stream = producer.options(max_unread=2).remote(door.name, 10**9)
        assert get(next(stream)) == 0
        assert [door.hear() for _ in range(3)] == ["0", "1", "2"]
        stream.close()
        assert door.hear() == "GeneratorExit"
        assert list(stream) == []
        assert stream.is_finished()
        assert not stream.next_ready()
        with pytest.raises(exceptions.TaskCancelledError):
            get(stream.completed())
        stream.close()

    @WATCHED
    def test_a_stream_that_is_forgotten_stops(self, producer: Any, doors: Doors) -> None:
        door = doors.new()
        for ref in producer.options(max_unread=1).remote(door.name, 10**9):
            assert get(ref) == 0
            break
        del ref
        gc.collect()
        assert [door.hear(), door.hear()] == ["0", "1"]
        assert door.hear() == "GeneratorExit"

    @WATCHED
    def test_leaving_a_block_stops_it(self, producer: Any, doors: Doors) -> None:
        door = doors.new()
        blocks: list[Any] = [lambda it: it, closing]
        for block in blocks:
            with block(producer.options(max_unread=1).remote(door.name, 10**9)) as stream:
                next(stream)
                assert [door.hear(), door.hear()] == ["0", "1"]
            assert door.hear() == "GeneratorExit"

    @WATCHED
    def test_leaving_an_async_block_stops_it(self, producer: Any, doors: Doors) -> None:
        door = doors.new()

        async def read(block: Any) -> None:
            async with block(producer.options(max_unread=1).remote(door.name, 10**9)) as stream:
                async for ref in stream:
                    assert await ref == 0
                    assert [door.hear(), door.hear()] == ["0", "1"]
                    break

        blocks: list[Any] = [lambda it: it, aclosing]
        for block in blocks:
            asyncio.run(read(block))
            assert door.hear() == "GeneratorExit"

    @pytest.mark.parametrize("how", ["cancel", "close"])
    def test_a_generator_in_the_middle_of_its_work_is_interrupted(self, how: str, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def stuck(name: str) -> Iterator[int]:
            yield 0
            try:
                stand_at(name)
            except KeyboardInterrupt:
                say_at(name, "interrupted")
                raise

        stream = stuck.remote(door.name)
        next(stream)
        door.arrival()
        if how == "close":
            stream.close()
            assert list(stream) == []
        else:
            ray.cancel(stream)
            (ref,) = stream
            with pytest.raises(exceptions.TaskCancelledError):
                get(ref)
        assert door.hear() == "interrupted"

    @WATCHED
    def test_what_had_come_before_a_cancel_can_be_read(self, producer: Any, doors: Doors) -> None:
        door = doors.new()
        stream = producer.options(max_unread=3).remote(door.name, 10**9)
        assert get(next(stream)) == 0
        assert [door.hear() for _ in range(4)] == ["0", "1", "2", "3"]
        eventually(lambda: len(stream._record.flow.unread), 3)
        ray.cancel(stream)
        *good, bad = stream
        assert get(good) == [1, 2, 3]
        for ref in (bad, stream.completed()):
            with pytest.raises(exceptions.TaskCancelledError):
                get(ref)
        assert door.hear() == "GeneratorExit"

    def test_a_stream_that_has_not_begun_never_does(self, doors: Doors) -> None:
        door, quiet = doors.new(), doors.new()
        busy = ray.remote(num_cpus=2)(stand_at).remote(door.name)
        door.arrival()
        stream = watched.remote(quiet.name, 3)
        stream.close()
        door.let_in()
        get(busy)
        assert values(count_to.remote(2)) == [0, 1]
        assert quiet.is_quiet()

    def test_a_close_wakes_who_waits_for_the_next_item(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def late(name: str) -> Iterator[int]:
            stand_at(name)
            yield 1

        stream: Any = late.remote(door.name)
        door.arrival()
        got: list[Any] = []
        reader = threading.Thread(target=lambda: got.append(list(stream)))
        reader.start()
        eventually(lambda: len(stream._record.waiters), 1)
        stream.close()
        reader.join(PATIENCE_S)
        assert got == [[]]

    def test_what_was_not_read_is_freed(self) -> None:
        session: Any = current().session
        gc.collect()
        eventually(lambda: (session.owner.drain_dropped(), len(session.owner.objects.owned))[1], 0)
        stream: Any = count_to.remote(500)
        next(stream)
        get(stream.completed())
        stream.close()
        assert not stream._record.flow.unread
        del stream
        eventually(lambda: (session.owner.drain_dropped(), len(session.owner.objects.owned))[1], 0)


class TestDeaths:
    @pytest.mark.parametrize("step", ["before the first item", "between items", "after the last item"])
    def test_a_producer_that_is_killed_is_run_again_and_repeats_nothing(
        self, step: str, doors: Doors
    ) -> None:
        door, second = doors.new(), doors.new()
        at = {"before the first item": 0, "between items": 3, "after the last item": 6}[step]

        @ray.remote
        def mortal(first: str, other: str) -> Iterator[int]:
            for number in range(7):
                if number == at:
                    stand_at(first)
                if number < 6:
                    yield number

        stream = mortal.remote(door.name, second.name)
        got = [get(next(stream)) for _ in range(at)]
        os.kill(door.arrival(), 9)
        door.arrival()
        door.let_in()
        assert got + values(stream) == list(range(6))

    def test_without_retries_the_death_is_the_last_item(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote(max_retries=0)
        def mortal(name: str) -> Iterator[int]:
            yield 0
            stand_at(name)
            yield 1

        stream = mortal.remote(door.name)
        assert get(next(stream)) == 0
        os.kill(door.arrival(), 9)
        (ref,) = stream
        for failed in (ref, stream.completed()):
            with pytest.raises(exceptions.WorkerCrashedError):
                get(failed)

    @pytest.mark.parametrize("other", ["fewer items", "other items"])
    def test_a_replay_that_differs_says_so(self, other: str, doors: Doors) -> None:
        door = doors.new()

        flag = doors.new()

        @ray.remote
        def unlike(name: str, once: str, kind: str) -> Iterator[int]:
            first = not Path(f"{once}.done").exists()
            Path(f"{once}.done").touch()
            for number in range(3 if first or kind == "other items" else 2):
                yield number if first else number + 1
            if first:
                stand_at(name)
            yield 17

        stream = unlike.remote(door.name, flag.name, other)
        assert [get(next(stream)) for _ in range(3)] == [0, 1, 2]
        os.kill(door.arrival(), 9)
        (ref,) = stream if other == "other items" else [next(stream)]
        with pytest.raises(exceptions.StreamingGeneratorReplayInconsistentError, match=r"unlike.*run again"):
            get(ref)
        assert list(stream) == []

    def test_an_error_that_may_be_retried_is_and_repeats_nothing(self, tmp_path: Path) -> None:
        @ray.remote(retry_exceptions=[OSError])
        def shaky(path: str) -> Iterator[int]:
            for number in range(6):
                if number == 4 and not Path(path).exists():
                    Path(path).touch()
                    raise OSError
                yield number

        assert values(shaky.remote(str(tmp_path / "failed"))) == list(range(6))

    @WATCHED
    def test_a_consumer_that_is_killed_ends_its_producer(self, producer: Any, doors: Doors) -> None:
        door, produced = doors.new(), doors.new()

        @ray.remote(max_retries=0)
        def consume(name: str, other: str) -> None:
            stream = producer.options(max_unread=2).remote(other, 10**9)
            next(stream)
            stand_at(name)

        ref = consume.remote(door.name, produced.name)
        pid = door.arrival()
        assert [produced.hear() for _ in range(3)] == ["0", "1", "2"]
        os.kill(pid, 9)
        with pytest.raises(exceptions.WorkerCrashedError):
            get(ref)
        eventually(lambda: ray.available_resources().get("CPU"), 2.0)

    def test_a_task_that_ends_stops_the_streams_that_it_reads(self, doors: Doors) -> None:
        door = doors.new()

        @ray.remote
        def read_one(name: str) -> int:
            return int(ray.get(next(watched.options(max_unread=1).remote(name, 10**9))))

        assert get(read_one.remote(door.name)) == 0
        # It may be stopped before it makes the next one, or in the middle of that.
        while (heard := door.hear()) not in ("GeneratorExit", "KeyboardInterrupt"):
            assert heard in ("0", "1")
