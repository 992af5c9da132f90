"""``aio.TaskGroup``: asyncio's task group for work that runs in other processes.

Inside is an ``asyncio.TaskGroup``, so that every rule about failures, cancellation and ``uncancel`` is the
interpreter's own. A remote call is followed in it by a small task that ends as the call does. One more task,
the warden, is there until all calls have really ended, so that the group waits for that as for its members.
The calls are cancelled at the moment of the abort, before any member has heard of it: what a member calls for
in its clean-up is not cancelled any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .client.enclosures import Enclosure, enclosing
from .exceptions import TaskCancelledError
from .generators import ObjectRefGenerator
from .refs import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context, Token
    from types import TracebackType
    from typing import Self

T = TypeVar("T")


class _Group(asyncio.TaskGroup):
    """Tells of the abort.

    The method is a private one of asyncio, the same since 3.11. Should it go, the warden's cancel tells.
    """

    def __init__(self, on_abort: Callable[[], None]) -> None:
        super().__init__()
        self._on_abort = on_abort

    def _abort(self) -> None:
        self._on_abort()
        super()._abort()  # type: ignore[misc]


class TaskGroup:
    """An ``asyncio.TaskGroup`` that takes calls of remote functions, too; they do not outlive its block.

        async with aio.TaskGroup() as group:
            one = group.create_task(f.remote(1))    # a reference, as f.remote gave it
            two = group.create_task(fetch(url))     # an asyncio.Task, as ever
        print(await one, two.result())

    Leaving the block waits for everything in it. The first failure, or a cancellation of the block, cancels
    the rest: coroutines as asyncio does, calls in whichever process they run, with all that they have called
    for. The block is left when nothing of that runs any more, and raises an ``ExceptionGroup``, with the
    rules of ``asyncio.TaskGroup``; a member that was cancelled by itself is no failure.

    Every call made inside the block belongs to it, whether or not it was given to ``create_task``, also in
    coroutines that it starts and in threads that get its context (``asyncio.to_thread``): it is waited for,
    or cancelled, but only ``create_task`` makes its failure the group's. Such a call ends when all that it
    has called for has ended.

    A stream that was called for in the block is read by its body and its coroutines. When these have ended,
    what it still makes is kept, to be read after the block; but a producer that would pause, because too many
    items are unread, is stopped: the stream then ends with a TaskCancelledError that says so.

    A synchronous task that no interrupt reaches, inside C code, is waited for; ``cancel(ref, force=True)``
    ends it. A reference whose call was made before the block is cancelled and waited for like the others;
    what that has called for is cancelled with it, but not waited for.
    """

    def __init__(self) -> None:
        self._group = _Group(self._abort)
        #: None until the block is entered.
        self._calls: Enclosure | None = None
        self._token: Token[Enclosure | None] | None = None
        self._members = 0
        #: Members that are coroutines: they may read streams, and call for more.
        self._coroutines = 0
        self._left = False
        self._aborted = False
        self._warden_began = False
        #: Set when the block has been left and every member is done.
        self._quiet = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._calls = calls = Enclosure(enclosing.get())
        # Before the block's own context begins: the warden is no part of it.
        self._group.create_task(self._guard(calls), name="warden of an asyncray group")
        self._token = enclosing.set(calls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        if not self._warden_began:
            # A task that is cancelled before its first step never takes it.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as cancelled:
                if kind is None:
                    kind, error, traceback = type(cancelled), cancelled, cancelled.__traceback__
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as errors:
            if not self._aborted:
                raise
            raise _without_cancellations(errors) from None
        finally:
            # An error in this frame would keep itself alive.
            del error, traceback

    def _abort(self) -> None:
        if not self._aborted and self._calls is not None:
            self._aborted = True
            self._calls.cancel()

    def _leave(self) -> None:
        assert self._token is not None
        try:
            enclosing.reset(self._token)
        except ValueError:  # left in another context than entered, as fixtures are: that one has gone
            enclosing.set(None)
        self._left = True
        self._look_who_is_left()

    async def _guard(self, calls: Enclosure) -> None:
        """The warden: be there until all members are done and all calls have ended."""
        self._warden_began = True
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                await self._quiet.wait()
                await calls.wait_async()
                break
            except asyncio.CancelledError as error:
                cancelled = error
                self._abort()
        calls.close()
        if cancelled is not None:
            raise cancelled

    @overload
    def create_task(
        self, work: ObjectRef[T], *, name: str | None = None, context: Context | None = None
    ) -> ObjectRef[T]: ...
    @overload
    def create_task(
        self, work: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]: ...
    @overload
    def create_task(
        self, work: list[ObjectRef[T]], *, name: str | None = None, context: Context | None = None
    ) -> list[ObjectRef[T]]: ...
    def create_task(self, work: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        """Make a call, or a coroutine, a member of the group.

        Args:
            work: The reference to a call's result (the list of them, when it has several), or a coroutine.
            name: Of the asyncio task; for a call, of the one that follows it.
            context: Of the coroutine; None is a copy of the caller's.

        Returns:
            The reference (or list) itself; for a coroutine its ``asyncio.Task``.

        Raises:
            RuntimeError: when the group has not been entered, has ended or is being aborted. The call is
                cancelled then, as a coroutine is closed.
            SessionClosedError: when the reference is one of an earlier session.
            TypeError: when *work* is something else.
        """
        if isinstance(work, Coroutine):
            if context is None:
                context = copy_context()
                context.run(enclosing.set, self._calls)
            task = self._start(work, name, context)
            self._coroutines += 1
            task.add_done_callback(self._coroutine_done)
            return task
        refs = work if isinstance(work, list) else [work]
        for ref in refs:
            if type(ref) is ObjectRefGenerator:
                raise TypeError(
                    f"create_task does not take a stream, {ref!r}: it belongs to the group in which it was "
                    "called already. Read it in a coroutine of the group; `completed()` is its end"
                )
            if type(ref) is not ObjectRef:
                raise TypeError(
                    f"create_task takes the reference of a call or a coroutine, not {ref!r} of type "
                    f"{type(ref).__name__}"
                )
            ref._record.owner.check_open()
        for ref in refs:
            self._add(ref, name)
        return work

    def _start(
        self, work: Coroutine[Any, Any, T], name: str | None, context: Context | None
    ) -> asyncio.Task[T]:
        try:
            task = self._group.create_task(work, name=name, context=context)
        except BaseException:
            work.close()
            raise
        self._members += 1
        task.add_done_callback(self._member_done)
        return task

    def _add(self, ref: ObjectRef[Any], name: str | None) -> None:
        try:
            self._start(_follow(ref), name, None)
        except RuntimeError:
            _cancel(ref)
            raise
        if self._calls is not None:
            record: Any = ref._record
            self._calls.adopt(record.owner.session, record)

    def _member_done(self, task: asyncio.Task[Any]) -> None:
        self._members -= 1
        self._look_who_is_left()

    def _coroutine_done(self, task: asyncio.Task[Any]) -> None:
        self._coroutines -= 1
        self._look_who_is_left()

    def _look_who_is_left(self) -> None:
        if not self._left or self._coroutines or self._calls is None:
            return
        self._calls.forsake_streams()
        if not self._members:
            self._quiet.set()

    def __repr__(self) -> str:
        return repr(self._group).replace("<TaskGroup", "<asyncray.aio.TaskGroup", 1)


def _without_cancellations(errors: BaseExceptionGroup[Any]) -> BaseException:
    """What an aborted group raises: a coroutine that saw its call cancelled was cancelled, and did not fail.

    Mostly it is cancelled itself at the same moment; members of groups inside hear of that a little later.
    """
    task = asyncio.current_task()
    _, rest = errors.split(TaskCancelledError)
    if rest is not None:
        return rest
    return asyncio.CancelledError() if task is not None and task.cancelling() else errors


async def _follow(ref: ObjectRef[Any]) -> None:
    """End as a call does; one that was cancelled has not failed."""
    record: Any = ref._record
    await record.owner.wait_async(record)
    error = ref.exception()
    if error is None or isinstance(error, TaskCancelledError):
        return
    try:
        raise error
    finally:
        del error


def _cancel(ref: ObjectRef[Any]) -> None:
    record: Any = ref._record
    record.owner.session.cancel_record(record, force=False, recursive=True)
