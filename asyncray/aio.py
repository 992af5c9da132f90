"""For programs that have an event loop of their own: the verbs as coroutines, and what only a loop can have.

    async with aio.session():
        print(await f.remote(1))

The verbs of ``asyncray``, awaited: ``session`` (for ``init`` and ``shutdown``), ``get``, ``put``, ``wait``,
``as_completed``, ``cancel``, ``available_resources``. Around many calls: ``TaskGroup``, which no remote work
outlives; ``map`` over many items, a few calls at a time; ``scope``, whose cancellation reaches the work;
``carry``, for context variables that travel. Why something is not done: ``explain``, ``wait_graph``.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from . import api, explaining, lifecycle, named_actors
from .context import Context
from .generators import ObjectRefGenerator
from .groups import TaskGroup
from .mapping import map  # noqa: A004 - it is the builtin's twin
from .process import current
from .readiness import LoopCompletions, W, Watch, checked_refs
from .refs import ObjectRef, RemadeError
from .scopes import Scope, carry, scope
from .validation import check_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from .actor import ActorHandle
    from .client.bootstrap import Driver
    from .client.session import Session
    from .client.waiting import LoopTally
    from .explanation import Explanation, WaitGraph
    from .init_options import InitOptionsDict

__all__ = [
    "Scope",
    "TaskGroup",
    "as_completed",
    "available_resources",
    "cancel",
    "carry",
    "explain",
    "get",
    "get_actor",
    "list_named_actors",
    "map",
    "put",
    "scope",
    "session",
    "wait",
    "wait_graph",
]

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
    before = current().driver
    driver = await _start(dict(options), before)
    if driver is before:  # by ignore_reinit_error: who started it ends it
        yield Context(driver.session, api.shutdown)
        return
    driver.take_interrupts()
    try:
        yield Context(driver.session, api.shutdown)
    finally:
        await _end(driver)


async def _start(options: dict[str, Any], before: Driver | None) -> Driver:
    """Start a session; one whose start is cancelled is ended again, because nobody would do it later."""
    started: list[Driver] = []
    try:
        await _uninterrupted(lambda: started.append(lifecycle.start(options)), lambda: None)
    except asyncio.CancelledError:
        if started and started[0] is not before:
            await _end(started[0])
        raise
    return started[0]


async def _end(driver: Driver) -> None:
    """End a session, unless the block has done that itself; it may even have started another one."""
    if current().driver is driver:
        # A cancelled body must not leave the session half closed: the end is shielded, and waited for.
        await _uninterrupted(lifecycle.stop, driver.hurry)
    driver.give_back_interrupts()


async def _uninterrupted(call: Callable[[], None], hurry: Callable[[], None]) -> None:
    """Run *call* on a thread to its end, also when this is cancelled; it is told to hurry then."""
    ending = asyncio.ensure_future(asyncio.to_thread(call))
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            cancelled = error
            hurry()
    ending.result()
    if cancelled is not None:
        raise cancelled


@overload
async def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
async def get(refs: ObjectRefGenerator[T], *, timeout: float | None = None) -> ObjectRefGenerator[T]: ...
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
    check_timeout(timeout)
    if type(refs) is ObjectRefGenerator:
        return refs
    alone = type(refs) is ObjectRef
    checked = [refs] if alone else api.list_of_refs(refs)
    if not checked:
        return []
    clock = checked[0]._record.owner.clock
    until, left = clock() + timeout if timeout else None, timeout
    while True:
        await _all_done(checked, left)
        try:
            values = api.values_of(checked)
        except RemadeError:
            left = timeout if until is None else max(0.0, until - clock())
        else:
            return values[0] if alone else values


async def _all_done(refs: list[ObjectRef[Any]], timeout: float | None) -> None:
    waits = refs[0]._record.owner.session.waits
    records: list[Any] = [ref._record for ref in refs]
    if timeout is None:
        await waits.wait_all_async(records)
        return
    try:
        async with asyncio.timeout(timeout):
            await waits.wait_all_async(records)
    except TimeoutError:
        from .client.waits import pending_of, timed_out

        # They may have come in the last moment.
        if pending := pending_of(records):
            raise timed_out(len(pending), timeout) from None


async def put(value: T) -> ObjectRef[T]:
    """Store a value and return a reference to it; see :func:`asyncray.put`.

    A large value is copied by a thread, without holding the event loop up. It must not change meanwhile.

    Raises:
        TypeError: when the value is a reference, or cannot be pickled.
        ObjectStoreFullError: when there is no room for it.
    """
    return await lifecycle.session_or_init().put_async(value)


async def wait(
    refs: list[W],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[W], list[W]]:
    """Wait until *num_returns* references are done; see :func:`asyncray.wait`.

    Raises:
        TypeError: when *refs* is no list of references.
        ValueError: when a reference stands there twice, or *num_returns* does not fit the list.
    """
    owner = lifecycle.session_or_init()
    checked_refs(refs, num_returns)
    check_timeout(timeout)
    if not refs:
        return [], []
    tally = owner.waits.new_loop_tally()
    with Watch(owner, refs, num_returns, tally) as watch:
        try:
            async with asyncio.timeout(timeout):
                await _enough(watch, owner, tally, fetch_local=fetch_local)
        except TimeoutError:
            watch.enough()
        return watch.split()


async def _enough(watch: Watch[Any], owner: Session, tally: LoopTally, *, fetch_local: bool) -> None:
    while not watch.enough():
        if watch.must_wait(fetch_local=fetch_local):
            await owner.waits.suspend(tally.future, watch.awaited)


def as_completed(refs: Iterable[ObjectRef[T]]) -> AsyncGenerator[ObjectRef[T], None]:
    """The references, each as soon as it is done; failures are not raised.

    Who leaves early should close it (``contextlib.aclosing``), as any asynchronous generator.

    Raises:
        TypeError: when something is no reference.
    """
    return _completed(api.only_refs(refs, "as_completed"))


async def _completed(refs: list[ObjectRef[T]]) -> AsyncGenerator[ObjectRef[T], None]:
    with LoopCompletions(refs) as completions:
        refs.clear()  # a reference lives as long as it is waited for, not as long as this generator
        while completions.left:
            yield await completions.next_async()


async def cancel(
    *refs: ObjectRef[Any] | ObjectRefGenerator[Any], force: bool = False, recursive: bool = True
) -> None:
    """Cancel the tasks that make *refs*; see :func:`asyncray.cancel`.

    Raises:
        TypeError: when something is no reference.
    """
    api.cancel(*refs, force=force, recursive=recursive)


async def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """The handle of a named actor; see :func:`asyncray.get_actor`.

    Raises:
        ValueError: when no actor has the name.
    """
    return await named_actors.get_actor_async(name, namespace)


async def list_named_actors(all_namespaces: bool = False) -> list[Any]:  # noqa: FBT002 - as in Ray
    """The names of this session's living actors; see :func:`asyncray.util.list_named_actors`."""
    return await named_actors.list_named_actors_async(all_namespaces=all_namespaces)


async def available_resources() -> dict[str, float]:
    """What of the session's resources is free now."""
    owner = lifecycle.session_or_init()
    return api.as_floats(await owner.questions.awaited("available_resources"))


async def explain(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, stack: bool = False) -> Explanation:
    """Why a reference, or a generator, is not done; see :func:`asyncray.util.explain`. Print what it returns.

    Raises:
        SessionClosedError: when the session was shut down.
        TypeError: when *ref* is neither a reference nor a stream, or *stack* neither True nor False.
    """
    return await explaining.explain_async(ref, stack=stack)


async def wait_graph() -> WaitGraph:
    """Who waits for whom in this session; see :func:`asyncray.util.wait_graph`."""
    return await explaining.wait_graph_async()
