"""Threads that read the answers they wait for, whatever else comes by the connection or happens to it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from tests.cluster.tables import session, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Target:
    """Answers in all ways."""

    def same(self, value: object = None) -> object:
        return value

    def stream(self, most: int) -> Iterator[int]:
        yield from range(most)

    def fails(self) -> None:
        raise ValueError("no")

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        ray.actor.exit_actor()


class _AsyncTarget(_Target):
    """The same on a loop."""

    async def same(self, value: object = None) -> object:
        await asyncio.sleep(0)
        return value


Target, AsyncTarget = ray.remote(_Target), ray.remote(_AsyncTarget)
Threaded = ray.remote(max_concurrency=4)(_Target)


def up(actor_class: Any) -> Any:
    actor = actor_class.remote()
    ray.get(actor.same.remote())
    return actor


def is_lent(actor: Any) -> bool:
    """Whether a thread of this process reads the connection to an actor."""
    return bool(actor._ray_calls.lease.link.connection._borrowing.locked())


@pytest.mark.parametrize("actor_class", [Target, AsyncTarget, Threaded], ids=["sync", "async", "threaded"])
def test_many_threads_get_from_one_actor(actor_class: Any) -> None:
    actor = up(actor_class)

    def ask(start: int) -> None:
        for number in range(start, start + 150):
            assert ray.get(actor.same.remote(number), timeout=20) == number
            if number % 50 == 0:
                large = ray.get(actor.same.remote(b"x" * 200_000), timeout=20)
                assert len(large) == 200_000
                assert ray.get(actor.same.remote([ray.put(number)]), timeout=20)[0].result(20) == number
                with pytest.raises(ValueError, match="no"):
                    ray.get(actor.fails.remote(), timeout=20)
                assert [ray.get(ref, timeout=20) for ref in actor.stream.remote(5)] == list(range(5))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(0, 6000, 1000)))
    assert not is_lent(actor)


def test_a_get_that_is_too_late_gives_the_connection_back() -> None:
    actor = up(Target)
    slow = actor.sleep.remote(0.5)
    with pytest.raises(exceptions.GetTimeoutError):
        ray.get(slow, timeout=0.05)
    assert not is_lent(actor)
    assert ray.get(slow, timeout=20) == 0.5


@pytest.mark.parametrize("end", ["crash", "leave"])
def test_who_reads_hears_of_the_actors_end(end: str) -> None:
    actor = up(Target)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(getattr(actor, end).remote(), timeout=20)


def test_who_reads_hears_of_a_kill_and_of_a_cancel_by_another_thread() -> None:
    for do in (lambda actor, ref: ray.kill(actor), lambda actor, ref: ray.cancel(ref)):
        actor = up(Target)
        ref = actor.sleep.remote(3)

        def end(do: Any = do, actor: Any = actor, ref: Any = ref) -> None:
            settled(lambda: is_lent(actor))
            do(actor, ref)

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises((exceptions.ActorDiedError, exceptions.TaskCancelledError)):
            ray.get(ref, timeout=20)
        thread.join()


def test_what_others_wait_for_comes_while_one_reads() -> None:
    actor = up(Threaded)
    slow = actor.sleep.remote(1.0)
    begin = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ray.get, slow)
        settled(lambda: is_lent(actor))
        seen: list[Any] = []
        actor.same.remote(3).add_done_callback(lambda ref: seen.append(ref.result()))
        assert ray.get(actor.same.remote(1), timeout=20) == 1
        assert ray.get([actor.same.remote(n) for n in range(50)], timeout=20) == list(range(50))
        assert asyncio.run(awaited(actor.same.remote(2))) == 2
        settled(lambda: seen == [3])
        assert time.monotonic() - begin < 0.9, "none of them waited for the slow one"
        assert reading.result(20) == 1.0


async def awaited(ref: Any) -> Any:
    return await ref


def test_a_callback_may_wait_for_a_call_itself() -> None:
    actor = up(Threaded)
    seen: list[Any] = []
    slow = actor.sleep.remote(0.3)
    ref = actor.sleep.remote(0.1)
    ref.future().add_done_callback(lambda future: seen.append(future.result()))
    assert ray.get(slow, timeout=20) == 0.3
    settled(lambda: seen == [0.1])


def test_the_end_of_the_session_wakes_who_reads() -> None:
    program = """if True:
        import threading, time
        import asyncray as ray
        class Slow:
            def sleep(self, seconds):
                time.sleep(seconds)
        ray.init(num_cpus=1)
        actor = ray.remote(Slow).remote()
        ray.get(actor.sleep.remote(0))
        def wait():
            try:
                ray.get(actor.sleep.remote(60))
            except ray.exceptions.RayError as error:
                print(type(error).__name__)
        thread = threading.Thread(target=wait)
        thread.start()
        while not actor._ray_calls.lease.link.connection._borrowing.locked():
            time.sleep(0.01)
        ray.shutdown()
        thread.join(10)
        print(thread.is_alive())
    """
    import subprocess
    import sys

    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == ["SessionClosedError", "False"], done.stderr


def test_the_handler_of_a_signal_may_wait_for_the_same_actor() -> None:
    actor = up(Threaded)
    heard: list[Any] = []

    def handle(number: int, frame: object) -> None:
        heard.append(ray.get(actor.same.remote(1), timeout=20))
        heard.extend(ray.get([actor.same.remote(n) for n in (2, 3)], timeout=20))

    def interrupt() -> None:
        settled(lambda: is_lent(actor))
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        assert ray.get(actor.sleep.remote(0.5), timeout=20) == 0.5
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [1, 2, 3]


def test_ctrl_c_gives_the_connection_back(shared_ray: ModuleType) -> None:
    actor = up(Threaded)
    assert session() is not None

    def interrupt() -> None:
        settled(lambda: is_lent(actor))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    slow = actor.sleep.remote(2)
    with pytest.raises(KeyboardInterrupt):
        ray.get(slow, timeout=20)
    thread.join()
    assert not is_lent(actor)
    assert ray.get(actor.same.remote(1), timeout=20) == 1
