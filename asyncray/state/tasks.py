"""The life of a task, as its owner sees it.

    WAITING --(arguments there)--> QUEUED --(sent)--> SENT --(finished)--> DONE
                                     ^                 |
                                     +--(recalled)-----+
                                     +--(retried)------+

Rule 1: a task's state changes only by :func:`step`, along the table below; anything else is a bug of ours.
Rule 2: whether a failed task runs again is decided by :func:`after_worker_death` and :func:`after_error`.
Rule 3: no I/O, no clock, no lock: the owner calls this under its own.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..exceptions import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..refs import ObjectRef
    from .objects import ObjectRecord
    from .pipeline import Lease, SchedulingClass

# States and events are plain ints: an Enum's hash costs as much as the rest of the step.
WAITING: Final = 0
QUEUED: Final = 1
SENT: Final = 2
DONE: Final = 3

ARGUMENTS_READY: Final = 10
ASSIGNED: Final = 11
RECALLED: Final = 12
RETRIED: Final = 13
FINISHED: Final = 14
CANCELLED: Final = 15

STATE_NAMES: Final = {WAITING: "WAITING", QUEUED: "QUEUED", SENT: "SENT", DONE: "DONE"}
EVENT_NAMES: Final = {
    ARGUMENTS_READY: "ARGUMENTS_READY",
    ASSIGNED: "ASSIGNED",
    RECALLED: "RECALLED",
    RETRIED: "RETRIED",
    FINISHED: "FINISHED",
    CANCELLED: "CANCELLED",
}

#: (state, event) -> state. A missing key is a bug.
TRANSITIONS: Final[dict[tuple[int, int], int]] = {
    (WAITING, ARGUMENTS_READY): QUEUED,
    (WAITING, FINISHED): DONE,  # an argument failed
    (WAITING, CANCELLED): DONE,
    (QUEUED, ASSIGNED): SENT,
    (QUEUED, FINISHED): DONE,  # it can never run: the node refused, or died
    (QUEUED, CANCELLED): DONE,
    (SENT, RECALLED): QUEUED,
    (SENT, RETRIED): QUEUED,
    (SENT, FINISHED): DONE,
    (SENT, CANCELLED): DONE,
}


class Verdict(Enum):
    """What becomes of a task that did not end well."""

    RETRY = "retry"
    FAIL = "fail"


def _nobody() -> None:
    """There is no function."""


class Descriptor:
    """What all calls of one remote function with the same options share."""

    __slots__ = (
        "__weakref__", "average_s", "blob", "function", "function_id", "group", "holds", "max_retries",
        "name", "number", "options", "priority", "returns", "stream", "timeout_s",
    )  # fmt: skip

    def __init__(self, number: int, name: str, function_id: bytes, blob: bytes) -> None:
        #: The owner's number for it; a worker is told it once per connection.
        self.number = number
        self.name = name
        self.function_id = function_id
        #: The pickled function.
        self.blob = blob
        #: Gives the function itself, or its signature, for error messages that name its parameters; None
        #: where nobody has either.
        #: Not held: a function may hold results, and lineage holds the descriptors of those.
        self.function: Callable[[], Any] = _nobody
        #: What the worker must know: see worker.functions.
        self.options: dict[str, Any] = {}
        self.returns = 1
        #: Items of its calls' streams that may be unread (0: any number), and whether that is the default;
        #: None iff they make no streams.
        self.stream: tuple[int, bool] | None = None
        #: Re-runs after a failure of the system; -1 is without end.
        self.max_retries = 3
        #: Seconds that a call may take, from the call to its end; None is as long as it takes.
        self.timeout_s: float | None = None
        #: Higher goes first; see state.ranking.
        self.priority = 0
        #: Set before any call is made.
        self.group: SchedulingClass = None  # type: ignore[assignment]
        #: Measured seconds of one call, a moving average; None until one has ended.
        self.average_s: float | None = None
        #: References in the function's closure and globals; they live as long as the function's export.
        self.holds: tuple[ObjectRef[Any], ...] = ()


class Enclosing(Protocol):
    """What must know when a task has ended."""

    def ended(self, task: Task) -> None:
        """Nothing of the task runs any more."""


class Task:
    """One call that this process owns."""

    __slots__ = (
        "arguments", "attempt", "buffers", "cancelled", "dependencies", "descriptor", "enclosures", "extras",
        "holds", "lease", "missing", "number", "parent", "rank", "records", "retries", "state", "stream",
        "terms",
    )  # fmt: skip

    def __init__(self, number: int, descriptor: Descriptor, arguments: Any) -> None:
        #: The number of its first return.
        self.number = number
        self.descriptor = descriptor
        #: The encoded arguments; see client.arguments.
        self.arguments = arguments
        #: References given directly as arguments: [position or keyword, reference]; None iff none.
        self.dependencies: list[tuple[int | str, ObjectRef[Any]]] | None = None
        #: What few calls have and the worker must know, by name; see TASKS.
        self.extras: dict[str, Any] | None = None
        #: References inside arguments, kept until the task has ended.
        self.holds: Any = None
        #: Dependencies that are not there yet.
        self.missing = 0
        self.records: tuple[ObjectRecord, ...] = ()
        self.state = QUEUED
        #: Re-runs that are left; -1 is without end.
        self.retries = descriptor.max_retries
        self.attempt = 0
        #: Where it was sent; not None iff SENT.
        self.lease: Lease | None = None
        #: Number of the task that made the call; None in a driver.
        self.parent: int | None = None
        self.cancelled = False
        #: What the call is subject to, see client.terms; None for almost all.
        self.terms: Any = None
        #: Its place among tasks of different priorities, see state.ranking; 0.0 while there are none.
        self.rank = 0.0
        #: Who must hear of its real end: of its worker's answer or death. None iff nobody.
        self.enclosures: list[Enclosing] | None = None
        #: The stream that it produces (client.streams.Stream); None iff it produces none.
        self.stream: Any = None

    def release(self) -> None:
        """It has really ended: let go of the arguments and terms, because nobody will need them any more."""
        self.arguments = self.dependencies = self.holds = None
        # Its record holds a task that was cancelled: the two would keep each other, and the descriptor's
        # references, until the garbage collector finds them.
        self.stream = None
        if self.terms is not None:
            self.terms.let_go()
            self.terms = None
        if self.enclosures is not None:
            enclosures, self.enclosures = self.enclosures, None
            for enclosure in enclosures:
                enclosure.ended(self)

    def story(self) -> list[str]:
        """What is known of this task, for an error message."""
        return [
            f"task {self.number} ({self.descriptor.name})",
            f"state {STATE_NAMES[self.state]}, attempt {self.attempt}, retries left {self.retries}",
            f"missing arguments {self.missing}, cancelled {self.cancelled}",
        ]


def is_in_flight(task: Task) -> bool:
    """Whether a worker has the task and has not answered; it may have been cancelled."""
    lease = task.lease
    return lease is not None and lease.in_flight.get(task.number) is task


def step(task: Task, event: int) -> None:
    """Take one transition.

    Raises:
        InternalError: when the table has no such transition.
    """
    try:
        task.state = TRANSITIONS[task.state, event]
    except KeyError:
        raise InternalError(
            f"a task cannot be {EVENT_NAMES.get(event, event)} in state {STATE_NAMES[task.state]}",
            task.story(),
        ) from None


def after_worker_death(task: Task) -> Verdict:
    """What becomes of a task whose worker died while it may have been running."""
    if task.retries == 0:
        return Verdict.FAIL
    if task.retries > 0:
        task.retries -= 1
    return Verdict.RETRY


def after_error(task: Task, *, retriable: bool) -> Verdict:
    """What becomes of a task whose function raised; *retriable* iff retry_exceptions names the error."""
    return after_worker_death(task) if retriable else Verdict.FAIL
