"""Methods that stream."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from tests.cluster.tables import session, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncray import ActorHandle

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Sync:
    """Streams, one call at a time."""

    def __init__(self) -> None:
        self.made = 0

    def count(self, most: int) -> Iterator[int]:
        for number in range(most):
            self.made += 1
            yield number

    def fails(self) -> Iterator[int]:
        yield 1
        raise ValueError("no")

    def made_so_far(self) -> int:
        return self.made


class _Async(_Sync):
    """Streams, many at a time."""

    async def acount(self, most: int) -> AsyncIterator[int]:
        for number in range(most):
            await asyncio.sleep(0)
            yield number


Sync = ray.remote(_Sync)
Async = ray.remote(_Async)


@pytest.mark.parametrize(("actor_class", "method"), [(Sync, "count"), (Async, "count"), (Async, "acount")])
def test_a_generator_method_streams(actor_class: Any, method: str) -> None:
    actor = actor_class.remote()
    assert [ray.get(ref) for ref in getattr(actor, method).remote(50)] == list(range(50))
    assert ray.get(actor.made_so_far.remote()) in (0, 50)


async def test_streams_of_an_async_actor_run_at_the_same_time() -> None:
    actor = Async.remote()
    streams = [actor.acount.remote(20) for _ in range(5)]

    async def read(stream: Any) -> list[int]:
        return [await ref async for ref in stream]

    assert await asyncio.gather(*map(read, streams)) == [list(range(20))] * 5


def test_a_stream_ends_with_what_its_method_raises() -> None:
    stream = Sync.remote().fails.remote()
    assert ray.get(next(stream)) == 1
    with pytest.raises(ValueError, match="no"):
        ray.get(next(stream))


def test_a_stream_that_nobody_reads_pauses_and_one_that_is_closed_lets_the_actor_go_on() -> None:
    actor = Sync.remote()
    stream = actor.count.options(max_unread=3).remote(1000)
    assert ray.get(next(stream)) == 0
    stream.close()
    assert ray.get(actor.made_so_far.remote()) < 20


def test_an_actor_ends_with_its_last_handle_also_after_a_stream_that_was_closed() -> None:
    owned = session().actors.owned
    others = set(owned)
    gc.collect()
    gc.disable()
    try:
        actor = Sync.remote()
        stream = actor.count.options(max_unread=3).remote(1000)
        assert ray.get(next(stream)) == 0
        stream.close()
        assert ray.get(actor.made_so_far.remote()) < 20
        del actor, stream
        # Without the garbage collector, which an idle program never calls.
        settled(lambda: not set(owned) - others)
    finally:
        gc.enable()


def test_a_stream_of_a_killed_actor_ends_with_its_death() -> None:
    actor = Sync.remote()
    stream = actor.count.options(max_unread=2).remote(1000)
    assert ray.get(next(stream)) == 0
    ray.kill(actor)
    with pytest.raises(exceptions.ActorDiedError):
        [ray.get(ref) for ref in stream]


class _Threaded(_Sync):
    """Streams from threads."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []
        self.threads: set[str] = set()

    def named(self, name: str, most: int) -> Iterator[tuple[str, int]]:
        self.threads.add(threading.current_thread().name + str(threading.get_ident()))
        try:
            for number in range(most):
                yield name, number
        finally:
            self.closed.append(name)

    def ends(self) -> list[str]:
        return self.closed

    def how_many_threads(self) -> int:
        return len(self.threads)


Threaded = ray.remote(max_concurrency=4)(_Threaded)


def test_streams_of_threads_run_at_the_same_time_and_keep_their_order() -> None:
    actor = Threaded.remote()
    streams = {name: actor.named.options(max_unread=2).remote(name, 10) for name in "abc"}
    for number in range(10):
        # In turns: each producer is never more than two ahead, so all of them are under way.
        for name, stream in streams.items():
            assert ray.get(next(stream)) == (name, number)
    for stream in streams.values():
        with pytest.raises(StopIteration):
            next(stream)
    assert ray.get(actor.how_many_threads.remote()) == 3


def test_a_stream_of_a_thread_pauses_until_it_is_read_or_closed() -> None:
    actor = Threaded.remote()
    stream = actor.count.options(max_unread=3).remote(1000)
    assert ray.get(next(stream)) == 0
    assert ray.get(actor.made_so_far.remote()) < 10
    other = actor.named.options(max_unread=2).remote("closed", 1000)
    assert ray.get(next(other)) == ("closed", 0)
    other.close()
    settled(lambda: ray.get(actor.ends.remote()) == ["closed"])
    assert [ray.get(ref) for ref in stream] == list(range(1, 1000))


def test_a_stream_of_a_thread_ends_with_what_its_method_raises() -> None:
    stream = Threaded.remote().fails.remote()
    assert ray.get(next(stream)) == 1
    with pytest.raises(ValueError, match="no"):
        ray.get(next(stream))


def test_a_cancelled_stream_of_a_thread_ends_where_it_pauses() -> None:
    actor = Threaded.remote()
    stream = actor.named.options(max_unread=2).remote("cancelled", 1000)
    assert ray.get(next(stream)) == ("cancelled", 0)
    ray.cancel(stream)
    with pytest.raises(exceptions.TaskCancelledError):
        [ray.get(ref) for ref in stream]
    settled(lambda: ray.get(actor.ends.remote()) == ["cancelled"])


def test_a_stream_of_a_thread_ends_when_its_reader_dies() -> None:
    @ray.remote(max_retries=0)
    def reads_one(actor: ActorHandle[Any]) -> None:
        stream = actor.named.options(max_unread=2).remote("left", 1000)
        assert ray.get(next(stream)) == ("left", 0)
        os.kill(os.getpid(), signal.SIGKILL)

    actor = Threaded.remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(reads_one.remote(actor))
    settled(lambda: ray.get(actor.ends.remote()) == ["left"])


class _ReadByTheLoop(_Sync):
    """Its loop reads what owners send just before the main thread waits for it."""

    def items_for(self, pid: int, end: str) -> Iterator[int]:
        """Items for a process that dies; the loop's thread is the one that finds its connection closed."""
        here: Any = session()
        arrivals = here.read_tasks.__self__._arrivals
        real, reader, read = arrivals.wait, os.pidfd_open(pid), threading.Event()

        def read_all() -> None:
            here.read_tasks()
            read.set()

        def wait(timeout: float | None = None) -> list[int]:
            if timeout is None:
                arrivals.wait = real
                assert select.select([reader], [], [], 10)[0]
                here.call_soon(read_all)
                assert read.wait(10)
            return list(real(timeout))

        arrivals.wait = wait
        try:
            yield from range(1000)
        finally:
            Path(end).touch()


def test_a_stream_ends_when_its_reader_dies_whoever_finds_that_out(tmp_path: Path) -> None:
    end = tmp_path / "end"

    @ray.remote(max_retries=0)
    def reads_one(actor: ActorHandle[Any]) -> None:
        stream = actor.items_for.options(max_unread=2).remote(os.getpid(), str(end))
        assert ray.get(next(stream)) == 0
        os.kill(os.getpid(), signal.SIGKILL)

    actor = ray.remote(_ReadByTheLoop).remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(reads_one.remote(actor))
    # Nothing is called: that would wake the main thread, too.
    settled(end.exists)


async def test_a_generator_of_an_async_actor_leaves_turns_to_others_while_it_waits_for_its_reader() -> None:
    actor = Async.remote()
    stream = actor.count.options(max_unread=2).remote(100)
    assert await actor.made_so_far.remote() <= 2
    assert [await ref async for ref in stream] == list(range(100))
