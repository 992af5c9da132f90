"""Asking other processes why something is not done, and answering them. Everything here runs on the loop.

What to ask is decided by an exploration (state.inquiry); this file sends its questions, takes the answers,
and answers for those that cannot: the dead, and who has not answered in time. So an exploration always ends.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import ProtocolError
from ..state.accounts import DIED
from ..state.inquiry import NODE, Findings, Question, Silent
from ..wire import messages as m
from ..wire.answers import check_answer, check_calls, check_waiting
from ..wire.handshake import Identity
from . import facts
from .deadlocks import Deadlocks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    from ..net.connection import Connection
    from .session import Session

    Asker = Generator[list[Question], list[Any], Findings]


class Calls(Protocol):
    """What a worker knows of the calls that it runs."""

    def report(self, of: set[tuple[bytes, int]] | None, *, stack: bool) -> dict[str, Any]:
        """Tell of running calls: those in *of* (owner, number), or all; and whether these are all."""


class Inquiries:
    """Both sides of the questions between processes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers = itertools.count(1)
        #: Questions that were not answered: whom, what, and what to do with the answer.
        self._asked: dict[int, tuple[bytes, str, Callable[[Any], None]]] = {}
        #: Set by a worker.
        self.calls: Calls | None = None
        self.deadlocks = Deadlocks(session, self)

    # --- asking -------------------------------------------------------------------------------------------

    def start(self, asker: Asker, then: Callable[[Findings], None]) -> None:
        """Carry an exploration out, and call *then* with what it finds, in bounded time."""
        _Inquiry(self._session, self, asker, then).go_on([])

    def ask(self, question: Question, answer: Callable[[Any], None]) -> None:
        """Ask a process, or this one; *answer* gets what it says, or Silent, at once or later, once."""
        session = self._session
        process_id, address = question.place
        if process_id == session.identity.process_id:
            answer(self._answer(question.what, question.argument))
        elif session.failure is not None:
            answer(Silent(DIED))
        elif question.place == NODE:
            session.questions.ask(question.what, question.argument, lambda said: answer(_plain(said)))
        else:
            number = next(self._numbers)
            self._asked[number] = (process_id, question.what, answer)
            message = [m.INQUIRE, number, question.what, question.argument]
            if not session.peers.send_to(Identity(process_id, address, 0), message):
                self.lost(process_id)

    def replied(self, connection: Connection, number: int, answer: Any) -> None:
        """A process has answered; nobody may want to know any more.

        Raises:
            ProtocolError: when that is no answer, or another's.
        """
        known = self._asked.get(number)
        if known is None:
            return
        whom, what, take = known
        if whom != connection.peer.process_id:
            raise ProtocolError("a process answered a question that was asked of another")
        check_answer(what, answer)
        del self._asked[number]
        take(answer)

    def lost(self, process_id: bytes) -> None:
        """A process is gone: it answers nothing any more."""
        for number, (whom, _, answer) in list(self._asked.items()):
            if whom == process_id and self._asked.pop(number, None) is not None:
                answer(Silent(DIED))

    def fail(self) -> None:
        """The session has ended: nobody answers any more."""
        asked, self._asked = self._asked, {}
        for _, _, answer in asked.values():
            answer(Silent(DIED))

    def forget(self, answer: Callable[[Any], None]) -> None:
        """An answer is not waited for any more."""
        for number in [number for number, row in self._asked.items() if row[2] is answer]:
            del self._asked[number]

    # --- answering ----------------------------------------------------------------------------------------

    def asked(self, connection: Connection, number: int, what: str, argument: Any) -> None:
        """Another process asks.

        Raises:
            ProtocolError: when that is no question.
        """
        connection.send([m.REPLY, number, self._answer(what, argument)])

    def _answer(self, what: str, argument: Any) -> Any:
        if what == "objects" and type(argument) is list:
            m.check_numbers("INQUIRE", argument)
            return facts.objects(self._session, argument)
        if what == "calls":
            of, stack = check_calls(argument)
            return self._report(of, stack=stack)
        if what == "survey" and type(argument) is bool:
            rows, more = facts.unfinished(self._session) if argument else ([], False)
            return {**self._report(None, stack=False), "objects": rows, "more": more}
        raise ProtocolError(f"nobody can answer {what!r}")

    def _report(self, of: set[tuple[bytes, int]] | None, *, stack: bool) -> dict[str, Any]:
        return {"calls": [], "complete": True} if self.calls is None else self.calls.report(of, stack=stack)


class _Inquiry:
    """One exploration on its way."""

    def __init__(
        self, session: Session, inquiries: Inquiries, asker: Asker, then: Callable[[Findings], None]
    ) -> None:
        self._inquiries = inquiries
        self._asker = asker
        self._then = then
        self._limit_s = session.config.explain_timeout_s
        self._is_over = False
        self._round: _Round | None = None
        self._timer: asyncio.TimerHandle = session.timer(self._limit_s, self._time_is_over)

    def go_on(self, answers: list[Any]) -> None:
        """Give the answers of a round; ask those of the next."""
        while True:
            try:
                questions = self._asker.send(answers) if self._round is not None else next(self._asker)
            except StopIteration as end:
                self._timer.cancel()
                self._then(end.value)
                return
            self._round = current = _Round(len(questions))
            if self._is_over:
                current.end(Silent(self._late()))
            else:
                current.ask(self._inquiries, questions)
            if not current.is_done:
                current.on_done = self.go_on
                return
            answers = current.answers

    def _late(self) -> str:
        return f"has not answered within {self._limit_s:g} s"

    def _time_is_over(self) -> None:
        self._is_over = True
        current = self._round
        if current is not None:
            current.end(Silent(self._late()))


class _Round:
    """The questions that were asked together, and their answers."""

    def __init__(self, count: int) -> None:
        self.answers: list[Any] = [None] * count
        self.on_done: Callable[[list[Any]], None] | None = None
        self._left = set(range(count))
        self._taking: list[Callable[[Any], None]] = []
        self._inquiries: Inquiries | None = None

    @property
    def is_done(self) -> bool:
        """Whether every question is answered."""
        return not self._left

    def ask(self, inquiries: Inquiries, questions: list[Question]) -> None:
        """Ask them all."""
        self._inquiries = inquiries
        for index, question in enumerate(questions):
            take = _Take(self, index)
            self._taking.append(take)
            inquiries.ask(question, take)

    def take(self, index: int, answer: Any) -> None:
        """One is answered."""
        if index not in self._left:
            return
        self._left.discard(index)
        self.answers[index] = answer
        self._maybe_done()

    def end(self, silent: Silent) -> None:
        """Nothing more is waited for."""
        if not self._left:
            return
        for index in self._left:
            self.answers[index] = silent
        self._left.clear()
        for take in self._taking:
            if self._inquiries is not None:
                self._inquiries.forget(take)
        self._maybe_done()

    def _maybe_done(self) -> None:
        if not self._left and self.on_done is not None:
            self.on_done(self.answers)


class _Take:
    """Takes the answer to one question of a round."""

    __slots__ = ("_index", "_round")

    def __init__(self, of: _Round, index: int) -> None:
        self._round = of
        self._index = index

    def __call__(self, answer: Any) -> None:
        self._round.take(self._index, answer)


def _plain(said: Any) -> Any:
    """What the node says, or that it is gone.

    Raises:
        ProtocolError: when it says neither.
    """
    if isinstance(said, Exception) or (type(said) is dict and "error" in said):
        return Silent(DIED)
    return check_waiting(said)
