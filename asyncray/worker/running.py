"""What a worker says of the calls that it runs: since when, what they wait for, where their code stands."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

from ..client.facts import addresses
from ..wire import messages as m
from .calls import DOORS, advance_async

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from types import FrameType

    from ..client.session import Session
    from .calls import Call
    from .scope import CallWait, WorkerScope

    #: The running calls, each with what tells where its code stands.
    Running = Callable[[], Iterable[tuple[Call, Callable[[], str]]]]

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: Frames of one stack, the innermost.
_MOST_FRAMES: Final = 100
#: Seconds that a timer may come early: by the loop's resolution, and by how sums of times are rounded.
_EARLY_S: Final = 0.001


class RunningCalls:
    """Answers for the calls of one worker, and says when one of them stands still.

    Args:
        session: The worker's.
        scope: What it knows of its calls' waits.
        running: Its running calls.
    """

    def __init__(self, session: Session, scope: WorkerScope, running: Running) -> None:
        self._session = session
        self._scope = scope
        self._running = running
        #: The calls that run where others wait for their turn; all by owner and number.
        self.before: Callable[[set[tuple[bytes, int]]], set[tuple[bytes, int]]] = lambda waiting: set()
        self._after_s = session.config.wait_check_s
        session.inquiries.calls = self
        if self._after_s:
            scope.on_change = self._watch
            scope.watched = False

    # --- answering (on the loop) ----------------------------------------------------------------------------

    def report(self, of: set[tuple[bytes, int]] | None, *, stack: bool) -> dict[str, Any]:
        calls = list(self._running())
        # Of the few that a sync worker runs, whoever asks may know all: they hold up what is behind them.
        if of is None or len(calls) < 2:
            return self._told(calls, stack=stack, complete=True)
        before = self.before(of)
        of = of | before
        chosen = [c for c in calls if (c[0].owner, c[0].number) in of]
        return self._told(chosen, stack=stack, complete=bool(before))

    def _told(
        self, calls: Iterable[tuple[Call, Callable[[], str]]], *, stack: bool, complete: bool
    ) -> dict[str, Any]:
        return {"calls": [self._fact(*item, stack=stack) for item in calls], "complete": complete}

    def _fact(self, call: Call, stack_of: Callable[[], str], *, stack: bool) -> dict[str, Any]:
        paused = call.flow is not None and not call.flow.may_go_on()
        return {
            "owner": call.owner,
            "number": call.number,
            "name": call.function.name,
            "kind": "actor" if call.function.of_actor else "task",
            "pid": self._session.identity.pid,
            "for_s": self._session.clock() - call.since if call.since >= 0 else 0.0,
            "waits": [self._wait(wait) for wait in self._scope.waits_of(call)],
            # Of a generator that is paused, nothing runs but what keeps it so.
            "stack": stack_of() if stack and not paused else None,
            "light": None if call.hosted is None else [call.hosted.owner, call.hosted.number],
            "unread": call.flow.unread if paused and call.flow is not None else None,
        }

    def _wait(self, wait: CallWait) -> dict[str, Any]:
        records, need = ([], 0) if wait.what is None else wait.what()
        return {
            "number": wait.number,
            "for_s": max(0.0, self._session.clock() - wait.since),
            "count": len(records),
            "need": max(0, need),
            "for": addresses(self._session, records),
        }

    # --- waits that are long --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """A call begins to wait, and nobody looks: do so when that has become long. In its own thread."""
        self._session.call_later(self._after_s, self._look)

    def _look(self) -> None:
        now = self._session.clock()
        stalled, oldest = self._scope.stalled(now - self._after_s + _EARLY_S)
        if stalled:
            self._session.control.send([m.STALLED])
        if oldest is not None:
            self._session.timer(oldest + self._after_s - now, self._look)


def thread_stack(ident: int) -> str:
    """Where a thread stands, from the user's code on."""
    frame = sys._current_frames().get(ident)
    if frame is None:
        return ""
    frames = _outermost_first(frame)
    codes = [frame.f_code for frame, _ in frames]
    door = next((i for i, code in enumerate(codes) if code in DOORS), -1)
    return _formatted(frames[door + 1 :])


def _outermost_first(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    frames: list[tuple[FrameType, int]] = []
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return frames[::-1]


def task_stack(task: asyncio.Task[Any]) -> str:
    """Where a coroutine that is suspended stands, from the user's code on: through all that it awaits."""
    frames: list[tuple[FrameType, int]] = []
    at: Any = task.get_coro()
    while at is not None and len(frames) < 10 * _MOST_FRAMES:
        frame = _attribute(at, "frame")
        if frame is None:
            break
        frames.append((frame, frame.f_lineno))
        if frame.f_code is advance_async.__code__:
            # What an asynchronous generator's next item is awaited by does not tell whose it is.
            at = frame.f_locals["iterator"]
        else:
            at = _attribute(at, "await") or _attribute(at, "yieldfrom")
    return _formatted(frames)


def _attribute(at: Any, name: str) -> Any:
    """What a coroutine, generator or asynchronous generator knows of itself."""
    return next((v for p in ("cr_", "gi_", "ag_") if (v := getattr(at, p + name, None)) is not None), None)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _formatted(frames: list[tuple[FrameType, int]]) -> str:
    """A stack as in a traceback, without our own frames before and after the user's."""
    theirs = [i for i, (frame, _) in enumerate(frames) if not _is_ours(frame)]
    chosen = frames[theirs[0] : theirs[-1] + 1] if theirs else frames
    return "".join(traceback.StackSummary.extract(iter(chosen[-_MOST_FRAMES:])).format())
