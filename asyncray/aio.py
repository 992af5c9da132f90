"""The verbs as coroutines: for programs that have an event loop of their own.

async with aio.session():
print(await f.remote(1))
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from . import api, lifecycle
from .context import Context
from .readiness import checked_refs, ready_first
from .refs import ObjectRef

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from .client.session import Session
    from .init_options import InitOptionsDict

T = TypeVar("T")


@asynccontextmanager
async def session(**options: Unpack[InitOptionsDict]) -> AsyncIterator[Context]:
    """A session for the time of the block; neither its start nor its end blocks the loop.

    Args:
        **options: As of :func:`asyncray.init`.

    Raises:
        RuntimeError: when there is a session already; when an option is unknown.
        TypeError: when an option is of the wrong type.
        ValueError: when an option has an impossible value.
        RaySystemError: when the node does not start.
    """
    driver = await asyncio.to_thread(lifecycle.start, dict(options))
    driver.take_interrupts()
    try:
        yield Context(driver.session, api.shutdown)
    finally:
        # A cancelled body must not leave the session half closed: the end is shielded, and waited for.
        await _uninterrupted(asyncio.ensure_future(asyncio.to_thread(lifecycle.stop)))
        driver.give_back_interrupts()


async def _uninterrupted(ending: asyncio.Future[None]) -> None:
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            cancelled = error
    ending.result()
    if cancelled is not None:
        raise cancelled


@overload
async def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
async def get(refs: list[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
@overload
async def get(refs: list[ObjectRef[Any]], *, timeout: float | None = None) -> list[Any]: ...
async def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the list of values of a list of them; see :func:`asyncray.get`.

    Raises:
        GetTimeoutError: when *timeout* seconds are over; the work goes on.
        RayTaskError: when a task raised.
        TypeError: when the list holds something else, or *timeout* is no number.
        ValueError: when *refs* is neither a reference nor a list.
    """
    api.check_timeout(timeout)
    if type(refs) is ObjectRef:
        await _all_done([refs], timeout)
        return await refs
    checked = api.list_of_refs(refs)
    if not checked:
        return []
    await _all_done(checked, timeout)
    return api.values_of(checked)


async def _all_done(refs: list[ObjectRef[Any]], timeout: float | None) -> None:
    owner: Session = refs[0]._record.owner  # type: ignore[assignment]
    records: list[Any] = [ref._record for ref in refs]
    if timeout is None:
        await owner.waits.wait_all_async(records)
        return
    try:
        async with asyncio.timeout(timeout):
            await owner.waits.wait_all_async(records)
    except TimeoutError:
        from .client.waits import pending_of, timed_out

        raise timed_out(len(pending_of(records)), timeout) from None


async def put(value: T) -> ObjectRef[T]:
    """Store a value and return a reference to it; see :func:`asyncray.put`.

    Raises:
        TypeError: when the value is a reference, or cannot be pickled.
    """
    return api.put(value)


async def wait(
    refs: list[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until *num_returns* references are done; see :func:`asyncray.wait`.

    Raises:
        TypeError: when *refs* is no list of references.
        ValueError: when a reference stands there twice, or *num_returns* does not fit the list.
    """
    owner = lifecycle.session_or_init()
    checked_refs(refs, num_returns)
    api.check_timeout(timeout)
    if not refs:
        return [], []
    try:
        async with asyncio.timeout(timeout):
            return await _wait(owner, refs, num_returns, fetch_local=fetch_local)
    except TimeoutError:
        return ready_first(refs, num_returns)


async def _wait(
    owner: Session, refs: list[ObjectRef[T]], num_returns: int, *, fetch_local: bool
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    while True:
        bell = owner.waits.new_loop_bell()
        owner.waits.watch(bell)
        try:
            split = ready_first(refs, num_returns)
            if len(split[0]) >= num_returns:
                return split
            owner.fetch([ref._record for ref in refs], whole=fetch_local)  # type: ignore[misc]
            await bell.future
        finally:
            owner.waits.unwatch(bell)


async def as_completed(refs: Iterable[ObjectRef[T]]) -> AsyncIterator[ObjectRef[T]]:
    """The references, each as soon as it is done.

    Raises:
        TypeError: when something is no reference.
    """
    finished: asyncio.Queue[ObjectRef[T]] = asyncio.Queue()
    waiting = api.only_refs(refs, "as_completed")
    for ref in waiting:
        ref.add_done_callback(finished.put_nowait)
    try:
        for _ in waiting:
            yield await finished.get()
    finally:
        for ref in waiting:
            ref.remove_done_callback(finished.put_nowait)


async def cancel(*refs: ObjectRef[Any], force: bool = False, recursive: bool = True) -> None:
    """Cancel the tasks that make *refs*; see :func:`asyncray.cancel`.

    Raises:
        TypeError: when something is no reference.
    """
    api.cancel(*refs, force=force, recursive=recursive)


async def available_resources() -> dict[str, float]:
    """What of the session's resources is free now."""
    owner = lifecycle.session_or_init()
    return api.as_floats(await owner.questions.awaited("available_resources"))
