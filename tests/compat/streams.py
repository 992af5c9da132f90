"""Remote generators.

Deliberate differences, which no program here touches:

- Ray's producer never pauses unless `_generator_backpressure_num_objects` says so; asyncray's pauses at 1024
  unread items, until somebody asks for `completed()`.
- Ray refuses asynchronous generator functions as tasks; asyncray streams them.
- `close` raises NotImplementedError in Ray; in asyncray it stops the producer, and so does forgetting the
  generator, which in Ray lets it run on.
- A replay that yields other items is an error in asyncray; in Ray only one of another length is.
"""

import asyncio
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.compat.harness import Ray, caught, expects


def _count(count: int) -> Iterator[int]:
    for number in range(count):  # noqa: UP028 - Ray fails on `yield from` of a range
        yield number


def _fail_at(count: int) -> Iterator[int]:
    for number in range(count):  # noqa: UP028
        yield number
    raise ValueError("on purpose")


@expects(["ObjectRefGenerator", [0, 1, 2]])
def a_generator_function_streams(ray: Ray) -> object:
    stream = ray.remote(_count).remote(3)
    return [type(stream).__name__, [ray.get(ref) for ref in stream]]


@expects([0, 1, 2])
def streaming_can_be_asked_for(ray: Ray) -> object:
    stream = ray.remote(num_returns="streaming")(_count).remote(3)
    return [ray.get(ref) for ref in stream]


@expects([["ValueError"], ["ValueError"]])
def a_function_without_yield_does_not_stream(ray: Ray) -> object:
    def make(function: Any) -> object:
        return ray.remote(num_returns="streaming")(function)

    return [caught(ValueError, make, lambda: [1]), caught(ValueError, make, lambda: iter([1]))]


@expects([0, 1])
def a_generator_function_may_return_a_number_of_values_instead(ray: Ray) -> object:
    return ray.get(ray.remote(_count).options(num_returns=2).remote(2))


@expects([[0, 1], ["StopIteration"], ["StopIteration"]])
def after_the_last_item_comes_nothing(ray: Ray) -> object:
    stream = ray.remote(_count).remote(2)
    return [[ray.get(ref) for ref in stream], *[caught(StopIteration, next, stream) for _ in range(2)]]


@expects([[0, 1, 2], ["StopAsyncIteration"]])
def a_coroutine_reads_one(ray: Ray) -> object:
    async def read() -> object:
        stream = ray.remote(_count).remote(3)
        items = [await ref async for ref in stream]
        try:
            await stream.__anext__()
        except StopAsyncIteration:
            return [items, ["StopAsyncIteration"]]
        return "nothing raised"

    return asyncio.run(read())


@expects([True, False, True, False, True, None])
def it_says_where_it_is(ray: Ray) -> object:
    stream = ray.remote(_count).remote(1)
    ray.wait([stream], timeout=20)
    seen = [stream.next_ready(), stream.is_finished()]
    next(stream)
    value = ray.get(stream.completed())
    return [bool(seen[0]), seen[1], stream.is_finished(), stream.next_ready(), seen[0], value]


@expects([[0, 1, ["ValueError", "RayTaskError"]], None, True])
def what_it_raises_is_the_last_item_and_not_the_end(ray: Ray) -> object:
    stream = ray.remote(_fail_at).remote(2)
    first, second, failed = stream
    error = caught((ValueError, ray.exceptions.RayTaskError), ray.get, failed)
    return [[ray.get(first), ray.get(second), error], ray.get(stream.completed()), stream.is_finished()]


@expects([True, True, 0])
def get_gives_the_generator_back_and_wait_says_when_it_is_ready(ray: Ray) -> object:
    stream = ray.remote(_count).remote(1)
    ready, rest = ray.wait([stream], timeout=20)
    return [ray.get(stream) is stream, ready[0] is stream and not rest, ray.get(next(stream))]


@expects([0, 1])
def a_stream_without_a_next_item_is_not_ready(ray: Ray) -> object:
    @ray.remote
    def late(path: str) -> Iterator[int]:
        while not Path(path).exists():
            time.sleep(0.01)
        yield 1

    with TemporaryDirectory() as folder:
        go = Path(folder) / "go"
        stream = late.remote(str(go))
        early, _ = ray.wait([stream], timeout=0.3)
        go.touch()
        in_time, _ = ray.wait([stream], timeout=20)
        return [len(early), len(in_time)]


@expects([["TypeError"], ["TypeError"], ["TypeError"]])
def a_generator_cannot_be_passed_on(ray: Ray) -> object:
    stream = ray.remote(_count).remote(1)
    take = ray.remote(lambda value: None)
    return [
        caught(TypeError, take.remote, stream),
        caught(TypeError, take.remote, [stream]),
        caught(TypeError, pickle.dumps, stream),
    ]


@expects([6, [2, 4]])
def its_items_can_be_passed_on(ray: Ray) -> object:
    double = ray.remote(lambda value: 2 * value)
    refs = list(ray.remote(_count).remote(3))
    return [sum(ray.get([double.remote(ref) for ref in refs])), ray.get([double.remote(r) for r in refs[1:]])]


@expects([0, ["TaskCancelledError"], ["StopIteration"], ["TaskCancelledError"]])
def a_cancelled_stream_ends_with_the_error(ray: Ray) -> object:
    @ray.remote
    def stuck() -> Iterator[int]:
        yield 0
        for _ in range(6000):  # Ray does not interrupt a long sleep
            time.sleep(0.01)

    stream = stuck.remote()
    first = ray.get(next(stream))
    ray.cancel(stream)
    cancelled = ray.exceptions.TaskCancelledError
    return [
        first,
        caught(cancelled, ray.get, next(stream), timeout=20),
        caught(StopIteration, next, stream),
        caught(cancelled, ray.get, stream.completed(), timeout=20),
    ]


@expects([[2, 3, 4], [0, 1, 2, 3, 4]])
def back_pressure_pauses_the_producer(ray: Ray) -> object:
    @ray.remote
    def made(folder: str) -> Iterator[int]:
        for number in range(5):
            (Path(folder) / str(number)).touch()
            yield number

    def settled(folder: str, count: int) -> int:
        for _ in range(500):
            if len(list(Path(folder).iterdir())) >= count:
                break
            time.sleep(0.01)
        time.sleep(0.2)
        return len(list(Path(folder).iterdir()))

    with TemporaryDirectory() as folder:
        stream = made.options(_generator_backpressure_num_objects=2).remote(folder)
        refs, seen = [], []
        for number in range(3):
            seen.append(settled(folder, number + 2))
            refs.append(next(stream))
        return [seen, ray.get(refs + list(stream))]


@expects([["ValueError"], ["ValueError"], [0, 1]])
def back_pressure_is_a_positive_number_or_minus_one(ray: Ray) -> object:
    count = ray.remote(_count)

    def stream(bound: int) -> list[Any]:
        return ray.get(list(count.options(_generator_backpressure_num_objects=bound).remote(2)))  # type: ignore[no-any-return]

    return [caught(ValueError, stream, 0), caught(ValueError, stream, 0), stream(-1)]


@expects([["NotImplementedError"], ["NotImplementedError"]])
def nothing_can_be_sent_to_it(ray: Ray) -> object:
    stream, refused = ray.remote(_count).remote(1), NotImplementedError
    return [caught(refused, stream.send, 1), caught(refused, stream.throw, ValueError())]


@expects([0, 1, 2, 3, 4, 5])
def a_producer_that_dies_is_run_again_and_repeats_nothing(ray: Ray) -> object:
    @ray.remote
    def mortal(path: str) -> Iterator[int]:
        import os

        for number in range(6):
            if number == 4 and not Path(path).exists():
                Path(path).touch()
                time.sleep(0.5)  # what was yielded gets through
                os._exit(1)
            yield number

    with TemporaryDirectory() as folder:
        return [ray.get(ref, timeout=50) for ref in mortal.remote(str(Path(folder) / "died"))]
