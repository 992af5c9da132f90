"""``aio.map`` and its blocking twin: a remote function over many items, a limited number of calls at a time.

    source -> (room for a call?) -> call -> window -> (first, or first done) -> result

The window holds the calls whose results have not been taken; there are never more than the limit. Nothing is
called before it is asked for, and nothing goes on after the end: all calls belong to an enclosure, which is
cancelled, and waited for, however the iteration ends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from .client.enclosures import Enclosure, enclosed, enclosing
from .client.errors import encode_error
from .lifecycle import session_or_init
from .progress import check_progress, new_bar
from .readiness import Completions, LoopCompletions
from .refs import ObjectRef
from .remote import RemoteFunction
from .resources import UNITS
from .state.objects import FAILED
from .validation import flag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Self

    from .client.session import Session

R = TypeVar("R")

#: Calls at a time for each CPU: one that runs, and one behind it, so that no worker waits for the consumer.
CALLS_PER_CPU: Final = 2
#: Coroutines at a time: they wait more than they work, for somebody who may not like a thousand of them.
COROUTINES: Final = 100

_END: Final = object()
_FLAG: Final = flag()


class Plan(Generic[R]):
    """What a map was asked for, checked.

    Raises:
        ImportError: when *progress* is wanted, and tqdm is not installed.
        TypeError: when something is of the wrong type.
        ValueError: when *limit* is not positive, or the function's calls have another number of results than
            one.
    """

    def __init__(
        self,
        function: RemoteFunction[Any, Any, R],
        *,
        limit: int | None,
        ordered: bool,
        return_exceptions: bool,
        progress: bool,
    ) -> None:
        if not isinstance(function, RemoteFunction):
            kind = type(function).__name__
            raise TypeError(f"map takes a remote function, not {function!r} of type {kind}")
        returns = function._options.num_returns
        if returns not in (None, 1):
            raise ValueError(f"map takes a function with one result, not one with num_returns={returns!r}")
        if isinstance(limit, bool) or not isinstance(limit, int | None):
            raise TypeError(f"limit must be a whole number or None, not {limit!r}")
        if limit is not None and limit <= 0:
            raise ValueError(f"limit must be > 0, not {limit}")
        _FLAG.check("ordered", ordered)
        _FLAG.check("return_exceptions", return_exceptions)
        check_progress(progress)
        self.function = function
        self.ordered = ordered
        self.return_exceptions = return_exceptions
        self.progress = progress
        self._limit = limit

    def limit(self, session: Session) -> int:
        """How many calls at a time."""
        if self._limit is not None:
            return self._limit
        if inspect.iscoroutinefunction(self.function._function):
            return COROUTINES
        return max(1, CALLS_PER_CPU * int(session.facts["resources"].get("CPU", 0) / UNITS))


class InOrder(Generic[R]):
    """References in the order in which they were added; what Completions is for the order of their ends."""

    def __init__(self) -> None:
        self._refs: deque[ObjectRef[R]] = deque()

    @property
    def left(self) -> int:
        """How many have not been taken."""
        return len(self._refs)

    def add(self, ref: ObjectRef[R]) -> None:
        """One more."""
        self._refs.append(ref)

    async def next_async(self) -> ObjectRef[R]:
        """The first one, when it is done."""
        record: Any = self._refs[0]._record
        await record.owner.session.waits.wait_all_async([record])
        return self._refs.popleft()

    def next(self) -> ObjectRef[R]:
        """The same for a thread that waits.

        Raises:
            RuntimeError: when this would block a running event loop.
        """
        record: Any = self._refs[0]._record
        record.owner.session.waits.wait_all([record], None, _REMEDY)
        return self._refs.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._refs.clear()


_REMEDY: Final = "`async for result in asyncray.aio.map(f, items)`"


class Work(Generic[R]):
    """One iteration of a map: its calls, and what is left of its items.

    Args:
        plan: What was asked for.
        items: The arguments; an asynchronous source is a feeder's business.
        unordered: Makes the window for results in the order of their ends.
    """

    def __init__(
        self, plan: Plan[R], items: object, unordered: Callable[[list[ObjectRef[R]]], LoopCompletions[R]]
    ) -> None:
        self.session = session_or_init()
        self._plan = plan
        self.calls = Enclosure(enclosing.get())
        #: References that have not been taken.
        self.window: Any = InOrder() if plan.ordered else unordered([])
        self._limit = plan.limit(self.session)
        #: None when there are no more items.
        self._source = iter(items) if isinstance(items, Iterable) else None
        #: What the source of the items raised: its place is behind all results.
        self.broken: Exception | None = None
        total = len(items) if isinstance(items, Sized) else None
        self.bar = new_bar(plan.function._function.__name__, total, progress=plan.progress)

    def has_room(self) -> bool:
        """Whether one more call may be made."""
        return bool(self.window.left < self._limit)

    def fill(self) -> bool:
        """Make the calls there is room for; False when everything has been made and taken."""
        while self._source is not None and self.has_room():
            try:
                item = next(self._source, _END)
            except Exception as error:  # noqa: BLE001 - the user's; raised again at its place
                self.broken, item = error, _END
            if item is _END:
                self._source = None
            else:
                self.call(item)
        return bool(self.window.left)

    def call(self, item: Any) -> None:
        """Make a call; one that cannot be made is a failure in its place.

        Raises:
            SessionClosedError: when the session was shut down; no other one is started for the rest.
            TypeError: when the call gives something else than a reference: a stream.
        """
        self.session.check_alive()
        try:
            with enclosed(self.calls):
                ref = self._plan.function.remote(item)
        except Exception as error:
            if self.session.failure is not None:
                raise
            ref = _failed(self.session, error)
        if type(ref) is not ObjectRef:
            raise TypeError(f"map takes a function with one result, and this call gave {ref!r}")
        self.window.add(ref)

    def outcome(self, ref: ObjectRef[R]) -> Any:
        """The result of a call, or what it raised where that is wanted as a result."""
        self.bar.update()
        try:
            return ref.result(0)
        except Exception as error:
            if self._plan.return_exceptions:
                return error
            raise

    def finish(self) -> None:
        """All results have been taken.

        Raises:
            Exception: what the source of the items raised.
        """
        if self.broken is not None:
            raise self.broken

    def close(self) -> None:
        """Forget everything; the calls have ended."""
        self.calls.close()
        self.window.__exit__()
        self.bar.close()


class Feeder:
    """Takes items from an asynchronous source while there is room, in a task of its own."""

    def __init__(self, work: Work[Any], items: AsyncIterable[Any]) -> None:
        self._work = work
        self._items = items
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._stopped = False
        self.task = asyncio.get_running_loop().create_task(self._run(), name="feeder of a map")

    async def more(self) -> bool:
        """Wait until something can be taken; False when everything has been."""
        self._room.set()
        while not self._work.window.left:
            if self.task.done():
                self.task.result()
                return False
            self._news.clear()
            await self._news.wait()
        return True

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True
        self.task.cancel()

    async def _run(self) -> None:
        try:
            await self._feed()
        except Exception as error:  # noqa: BLE001 - the user's; raised again at its place
            self._work.broken = error
        finally:
            # Said a turn later, when this task is done.
            asyncio.get_running_loop().call_soon(self._news.set)

    async def _feed(self) -> None:
        source = aiter(self._items)
        while True:
            while not self._work.has_room():
                self._room.clear()
                await self._room.wait()
            item = await anext(source, _END)
            if item is _END or self._stopped:
                return
            self._work.call(item)
            self._news.set()


class AsyncResults(AsyncIterator[R]):
    """The results of ``aio.map``: an asynchronous iterator, and a context manager that closes it.

    Who leaves early and must know that nothing goes on closes it (``async with``, or ``aclose``). One that is
    merely dropped, as by ``break``, is closed by its loop soon, like any asynchronous generator.
    """

    def __init__(self, plan: Plan[R], items: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._results = _results(plan, items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        return await anext(self._results)

    async def aclose(self) -> None:
        """Cancel what is under way, and wait for its end. Nothing comes afterwards."""
        await self._results.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def _results(plan: Plan[R], items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[R]:
    work: Work[R] = Work(plan, items, LoopCompletions)
    feeder = Feeder(work, items) if isinstance(items, AsyncIterable) else None
    try:
        while work.fill() if feeder is None else await feeder.more():
            yield work.outcome(await work.window.next_async())
        work.finish()
    finally:
        await _end(work, feeder)


async def _end(work: Work[Any], feeder: Feeder | None) -> None:
    """Cancel what is under way, and be there until it has ended, whoever cancels this."""
    cancelled: asyncio.CancelledError | None = None
    if feeder is not None:
        feeder.stop()
    work.calls.cancel()
    while True:
        try:
            if feeder is not None:
                await asyncio.wait([feeder.task])
            await work.calls.wait_async()
            break
        except asyncio.CancelledError as error:
            cancelled = error
    work.close()
    if cancelled is not None:
        raise cancelled


class Results(Iterator[R]):
    """The results of ``util.map``: an iterator, and a context manager that closes it."""

    def __init__(self, plan: Plan[R], items: Iterable[Any]) -> None:
        self._results = _blocking_results(plan, items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return next(self._results)

    def close(self) -> None:
        """Cancel what is under way, and wait for its end. Nothing comes afterwards."""
        self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _blocking_results(plan: Plan[R], items: Iterable[Any]) -> Generator[R]:
    # Before any call is made: no result could be had.
    session_or_init().waits.check_may_block(_REMEDY)
    work: Work[R] = Work(plan, items, Completions)
    try:
        while work.fill():
            yield work.outcome(work.window.next())
        work.finish()
    finally:
        work.calls.cancel()
        # Where a destructor closes this, in the middle of something else, nobody may wait.
        if work.session.waits.may_block():
            work.calls.wait()
        work.close()


def _failed(session: Session, error: Exception) -> ObjectRef[Any]:
    """A reference to what has failed already."""
    ref = session.put(None)
    record: Any = ref._record
    record.value, record.state = encode_error(error), FAILED
    return ref


@overload
def map(  # noqa: A001
    f: RemoteFunction[Any, Any, R],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    limit: int | None = ...,
    ordered: bool = ...,
    return_exceptions: Literal[False] = ...,
    progress: bool = ...,
) -> AsyncResults[R]: ...
@overload
def map(  # noqa: A001
    f: RemoteFunction[Any, Any, R],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    limit: int | None = ...,
    ordered: bool = ...,
    return_exceptions: bool,
    progress: bool = ...,
) -> AsyncResults[R | Exception]: ...
def map(  # noqa: A001 - it is the builtin's twin
    f: RemoteFunction[Any, Any, R],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    limit: int | None = None,
    ordered: bool = True,
    return_exceptions: bool = False,
    progress: bool = False,
) -> AsyncResults[Any]:
    """The results of ``f.remote(item)`` for every item, a limited number of calls at a time.

        async for result in aio.map(f, items):
            ...

    Items are taken, and calls made, as results are taken: nothing is called before the first is asked for.
    Leaving early, by an error, a cancellation or ``aclose``, cancels what is under way, with all that it has
    called for, and waits for its end. Cancelling the wait for a result ends the whole iteration.

    Args:
        f: A remote function of one argument and with one result, or a variant of it by ``options``.
        items: Its arguments: anything iterable, or asynchronously iterable. An ordinary iterator is asked on
            the running loop, so it should not block.
        limit: Calls at a time, those included whose results have not been taken. None: two for each CPU of
            the session; 100 for a coroutine function.
        ordered: Whether results come in the order of the items; otherwise each as soon as it is there.
        return_exceptions: Whether what a call raises is a result like others; otherwise it is raised at its
            place, and the rest is cancelled.
        progress: Whether to show a live bar, with rate and estimate, on standard error (a line now and then
            where that is no terminal). Needs ``asyncray[progress]``.

    Returns:
        An asynchronous iterator; ``async with`` closes it at the end of the block.

    Raises:
        ImportError: when *progress* is wanted, and tqdm is not installed.
        RayTaskError: from the iterator: when a call raised, at its place.
        TypeError: when *f* is no remote function, *items* not iterable, or something else of the wrong type.
        ValueError: when *limit* is not positive, or *f* has another number of results than one.
    """
    plan = Plan(f, limit=limit, ordered=ordered, return_exceptions=return_exceptions, progress=progress)
    if not isinstance(items, Iterable | AsyncIterable):
        raise TypeError(f"map takes something iterable, not {items!r} of type {type(items).__name__}")
    return AsyncResults(plan, items)
