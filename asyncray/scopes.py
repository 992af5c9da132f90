"""Scopes: cancellation that reaches remote work, and context variables that travel with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from .client import carried
from .client.terms import NOTHING, Inherited, inherited
from .state.tasks import DONE, Task

if TYPE_CHECKING:
    from contextvars import ContextVar, Token
    from types import TracebackType

    from .client.session import Session

T = TypeVar("T")

#: Calls in a scope before it is looked through for those that are done.
_FEW: Final = 64


class Scope:
    """The remote calls made in a block, to be cancelled together. Made by :func:`asyncray.aio.scope`."""

    def __init__(self) -> None:
        self._outer: Any = None
        self._calls: list[tuple[Session, Task]] = []
        self._sweep_at = _FEW
        self._cancelled = False
        self._token: Token[Inherited | None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled: calls made in it fail at once."""
        return self._cancelled

    def cancel(self) -> None:
        """Cancel what was called for in this scope and is not done, recursively; later calls fail at once."""
        self._cancelled = True
        calls, self._calls = self._calls, []
        for session, task in list(calls):  # a thread that joins at this moment may tidy it up
            session.cancel_task(task)

    def joined(self, session: Session, task: Task) -> bool:
        """A call was made here. In any thread, under its owner's lock."""
        if self._outer is not None and not self._outer.joined(session, task):
            return False
        calls = self._calls
        if len(calls) >= self._sweep_at:
            calls[:] = [call for call in calls if call[1].state != DONE]
            self._sweep_at = max(_FEW, 2 * len(calls))
        calls.append((session, task))
        return not self._cancelled

    async def __aenter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("a scope is entered once: make another one")
        around = inherited.get() or NOTHING
        self._outer = around.scope
        self._token = inherited.set(Inherited(around.deadline, around.passed_on, self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        if kind is not None:
            self.cancel()
        inherited.reset(self._token)


def scope() -> Scope:
    """A block whose cancellation reaches the remote work that was called for in it.

        async with asyncio.timeout(0.2), aio.scope():
            return await slow.remote()          # after 0.2 s it is cancelled where it runs

    Otherwise who is cancelled while awaiting a reference lets go of it, and the work goes on. In this block,
    calls of this asyncio task, and of those that it starts, belong to the scope. When the block is left by
    an exception (a CancelledError, or any other), those that are not done are cancelled, with all that they
    have called for; calls made in the scope after that fail at once with TaskCancelledError. It does not
    wait for the clean-up of what it has cancelled; that is what a task group is for.

    Left in the ordinary way, the block changes nothing: what is not done goes on, and its references are
    good. Scopes nest: a call belongs to all around it. ``scope.cancel()`` cancels by hand.
    """
    return Scope()


def carry(variable: ContextVar[T], name: str | None = None) -> ContextVar[T]:
    """Let a context variable travel with calls; returns it.

        trace_id = aio.carry(ContextVar("trace_id", default="none"))

    The value that it has where a call is made is set where the call runs, sync or async, and passed on by
    the calls made there. A variable that was not set does not travel. A value is pickled once each time it
    is set: one that is changed in place must be set again. It may be at most 64 KiB.

    Args:
        variable: One at the top level of an importable module is that module's in every process, which
            imports it. Any other (a script's, a notebook's, a local one) is a variable of the same name and
            default there.
        name: What it is called in all processes; by default where it is, or else the name it was made with.
            Of two variables under one name, the newer travels.

    Raises:
        TypeError: when it is no context variable. At a call: when its value cannot be pickled, or holds an
            ObjectRef.
        ValueError: when it is carried under another name. At a call: when its value is too large.
    """
    return carried.carry(variable, name)
