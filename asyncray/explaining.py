"""``explain`` and ``wait_graph``: why is this not done, and who waits for whom? Blocking, and as coroutines.

They ask the processes of the session, each for what it knows itself: the owner of an object for its task, the
worker for the call that it runs and what that waits for, the node for its resources. They take no longer than
`Config.explain_timeout_s`; who has not answered by then is named in the result.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from . import api, lifecycle
from .client.waiting import Bell
from .exceptions import RaySystemError
from .explanation import Explanation, WaitGraph
from .generators import ObjectRefGenerator
from .ids import short
from .state.accounts import Accounts
from .state.circles import circles
from .state.inquiry import Exploration
from .state.objects import FAILED, FREED, PENDING
from .state.tasks import is_in_flight
from .state.wait_graph import graph_of, vertices_of
from .validation import flag

if TYPE_CHECKING:
    from .client.inquiries import Asker
    from .client.session import Session
    from .refs import ObjectRef
    from .state.inquiry import Findings

#: Seconds beyond the session's limit after which asyncray's own loop must be held up by something.
_MARGIN_S: Final = 5.0
_FLAG: Final = flag()


def explain(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, stack: bool = False) -> Explanation:
    """Why a reference is not done: ``print(explain(ref))``.

    Args:
        ref: Any reference, also one to an object of another process; or a generator, for its producer.
        stack: Whether to ask workers where the code of running tasks stands.

    Returns:
        What it waits for, and what that waits for in turn; ``str()`` tells it in sentences.

    Raises:
        RuntimeError: when this would block a running event loop; use ``await asyncray.aio.explain(ref)``.
        SessionClosedError: when the session was shut down.
        TypeError: when *ref* is neither a reference nor a stream, or *stack* neither True nor False.
    """
    question = _Why(ref, stack=stack)
    if question.is_answered():
        return question.answer()
    return question.answer(_ask(question.session, question.asker(), "`await asyncray.aio.explain(ref)`"))


async def explain_async(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, stack: bool = False) -> Explanation:
    """What ``await asyncray.aio.explain(ref)`` does.

    Raises:
        SessionClosedError: when the session was shut down.
        TypeError: when *ref* is neither a reference nor a stream, or *stack* neither True nor False.
    """
    question = _Why(ref, stack=stack)
    if question.is_answered():
        return question.answer()
    return question.answer(await _ask_async(question.session, question.asker()))


def wait_graph() -> WaitGraph:
    """Who waits for whom in this session: ``print(wait_graph())``.

    Returns:
        The unfinished tasks of all processes, which of them wait for which, and the circles among them.

    Raises:
        RuntimeError: when this would block a running event loop; use ``await asyncray.aio.wait_graph()``.
    """
    session = lifecycle.session_or_init()
    asker = Exploration().of_everything(objects=True)
    return _graph(_ask(session, asker, "`await asyncray.aio.wait_graph()`"))


async def wait_graph_async() -> WaitGraph:
    """What ``await asyncray.aio.wait_graph()`` does."""
    session = lifecycle.session_or_init()
    return _graph(await _ask_async(session, Exploration().of_everything(objects=True)))


class _Why:
    """One question about one reference."""

    def __init__(self, given: ObjectRef[Any] | ObjectRefGenerator[Any], *, stack: bool) -> None:
        # Not `completed()`: that would lift the bound of a producer which pauses.
        ref = given._ref if type(given) is ObjectRefGenerator else given
        (self._ref,) = api.only_refs([ref], "explain")  # type: ignore[list-item]
        self._record: Any = self._ref._record
        self._stack = _FLAG.check("stack", stack)
        self.session: Session = self._ref._record.owner.session
        self.session.references.check_open()

    def is_answered(self) -> bool:
        """Whether it is done, and nothing is left of its task."""
        record = self._record
        return bool(record.state != PENDING and (record.task is None or not is_in_flight(record.task)))

    def asker(self) -> Asker:
        """How to find out."""
        return Exploration(stack=self._stack).of([self.session.references.address(self._record)])

    def answer(self, findings: Findings | None = None) -> Explanation:
        """What there is to say."""
        if findings is None or self.is_answered():
            return self._outcome()
        process_id, _, number = self.session.references.address(self._record)
        return Accounts(findings, self.session.session_name()).of((process_id, number))

    def _outcome(self) -> Explanation:
        name = f"the object {short(self._ref.binary())}"
        first = f"The object {short(self._ref.binary())}"
        state = self._record.state
        if state == FREED:
            return Explanation(name, "lost", (f"{first} was freed with the last reference to it.",))
        if state != FAILED:
            return Explanation(name, "done", (f"{first} is done: its value is there.",))
        error = self.session.references.failure_of(self._record)
        text = " ".join(str(error).strip().splitlines()[-1:])
        kind = type(error).__name__
        return Explanation(name, "failed", (f"{first} is done: it failed with {kind}: {text}",), error=error)


def _graph(findings: Findings) -> WaitGraph:
    vertices = vertices_of(findings)
    node = findings.node or {"processes": []}
    names = {process_id: f"The process with pid {pid}" for process_id, _, pid in node["processes"]}
    return graph_of(findings, vertices, circles(vertices), {**names, b"": "The node"})


def _ask(session: Session, asker: Asker, remedy: str) -> Findings:
    session.waits.check_may_block(remedy)
    bell = Bell()
    found: list[Findings] = []

    def then(findings: Findings) -> None:
        found.append(findings)
        bell.notify(None)

    session.call_soon(session.inquiries.start, asker, then)
    session.waits.park(bell.gate, session.config.explain_timeout_s + _MARGIN_S)
    return _first(session, found)


async def _ask_async(session: Session, asker: Asker) -> Findings:
    waiter = session.waits.new_loop_bell()
    found: list[Findings] = []

    def then(findings: Findings) -> None:
        found.append(findings)
        waiter.notify(None)

    session.call_soon(session.inquiries.start, asker, then)
    await asyncio.wait([waiter.future], timeout=session.config.explain_timeout_s + _MARGIN_S)
    return _first(session, found)


def _first(session: Session, found: list[Findings]) -> Findings:
    if not found:
        session.check_alive()
        raise RaySystemError("asyncray's own event loop is held up: nothing could be asked")
    return found[0]
