"""A session that ends inside of a group, a map or a stream: who waits hears of it; none is begun anew."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio, util
from asyncray.exceptions import RaySystemError, SessionClosedError
from tests.cluster.patience import get
from tests.cluster.producers import COUNTING, count_to, count_to_async, paused_with, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncray import ObjectRefGenerator


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    """A second session is as good as the first, and is begun by nobody else."""
    yield
    assert not ray.is_initialized()
    ray.init(num_cpus=1)
    assert values(count_to.remote(3)) == [0, 1, 2]
    assert values(count_to_async.remote(3)) == [0, 1, 2]
    assert list(util.map(same, range(3))) == [0, 1, 2]
    ray.shutdown()


@ray.remote
def same(value: int) -> int:
    return value


@ray.remote
def wait_for_ever() -> None:
    os.read(os.pipe()[0], 1)


class TestAGroup:
    @COUNTING
    def test_ends_with_the_session_whatever_its_calls_do(self, counting: Any) -> None:
        async def read(stream: ObjectRefGenerator[int]) -> None:
            async for ref in stream:
                await ref

        async def main() -> ObjectRefGenerator[int]:
            ray.init(num_cpus=1)
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - a group is one
                async with aio.TaskGroup() as group:
                    paused: ObjectRefGenerator[int] = counting.options(max_unread=2).remote(100)
                    await asyncio.to_thread(paused_with, paused, 2)
                    group.create_task(read(counting.options(num_cpus=0).remote(10**9)))
                    group.create_task(wait_for_ever.options(num_cpus=0).remote())
                    group.create_task(asyncio.to_thread(ray.shutdown))
            assert caught.value.subgroup(SessionClosedError) is not None
            return paused

        paused = asyncio.run(main())
        *_, last = paused
        with pytest.raises(SessionClosedError):
            last.result()
        paused.close()


class TestAMap:
    @pytest.mark.parametrize("return_exceptions", [False, True])
    def test_ends_with_the_session_and_begins_no_other(self, return_exceptions: bool) -> None:
        ray.init(num_cpus=1)
        results: Any = util.map(same, range(10**6), limit=4, return_exceptions=return_exceptions)
        assert [next(results), next(results)] == [0, 1]
        ray.shutdown()
        with pytest.raises(SessionClosedError):
            next(results)
        assert list(results) == []

    @pytest.mark.parametrize("return_exceptions", [False, True])
    def test_on_a_loop_too(self, return_exceptions: bool) -> None:
        async def main() -> None:
            async with aio.session(num_cpus=1):
                results: Any = aio.map(same, range(10**6), limit=4, return_exceptions=return_exceptions)
                assert [await anext(results), await anext(results)] == [0, 1]
            with pytest.raises(SessionClosedError):
                await anext(results)
            assert [result async for result in results] == []

        asyncio.run(main())


class TestAStream:
    @COUNTING
    def test_ends_with_the_failure(self, counting: Any) -> None:
        ray.init(num_cpus=1)
        stream = counting.remote(10**9)
        assert get(next(stream)) == 0
        ray.shutdown()
        *_, last = stream
        with pytest.raises(SessionClosedError):
            last.result()
        assert stream.is_finished()
        assert list(stream) == []
        stream.close()

    def test_is_nothing_in_a_fork_of_its_process_and_goes_on_here(self) -> None:
        ray.init(num_cpus=1)
        stream = count_to.options(max_unread=2).remote(100)
        paused_with(stream, 2)
        pid = os.fork()
        if pid == 0:
            os._exit(_in_fork(stream))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert values(stream) == list(range(100))
        ray.shutdown()


def _in_fork(stream: ObjectRefGenerator[int]) -> int:
    """What is left of a stream there; returns 0 when that is as it must be."""
    try:
        *_, last = stream
        last.result()
    except RaySystemError:
        stream.close()
        return 0 if stream.is_finished() else 2
    except BaseException:  # noqa: BLE001 - the fork must end here
        return 3
    return 1
