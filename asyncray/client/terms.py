"""What a call is subject to besides its arguments: a deadline, the scope it was made in, carried variables.

Most calls have none of it and cost nothing: a session looks at three things (does the function have a
timeout, is there anything in this context, is any variable carried) and passes None.

A deadline travels as the seconds that are left when the call is sent; clocks of two processes have nothing in
common. The time that a message takes, or waits unread behind a running task, is not counted by the receiver;
but the owner of the outer call is the one who ends it, with all that it has called for.
"""

from __future__ import annotations

from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..exceptions import ProtocolError
from ..wire.values import SCALARS, field_bytes
from . import carried

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..state.tasks import Descriptor, Task

#: Names of the extras.
REMAINING: Final = "remaining"
CARRIED: Final = "carried"


class Scope(Protocol):
    """Something that wants to know of the calls made in it."""

    def joined(self, session: Any, task: Task) -> bool:
        """A call was made; False when nothing may begin here any more."""


class Inherited:
    """What calls made in a context take over from it."""

    __slots__ = ("deadline", "passed_on", "scope")

    def __init__(self, deadline: float | None, passed_on: dict[str, Any], scope: Scope | None) -> None:
        #: Seconds on the session's clock; None is without end.
        self.deadline = deadline
        #: Carried values for variables that this process does not know.
        self.passed_on = passed_on
        #: The innermost scope.
        self.scope = scope


NOTHING: Final = Inherited(None, {}, None)

#: None almost always.
inherited: Final[ContextVar[Inherited | None]] = ContextVar("asyncray_inherited", default=None)


#: Looked at by every call.
_inherited: Final = inherited.get
_variables: Final = carried.variables


class Terms:
    """What one call is subject to."""

    __slots__ = ("deadline", "entry", "own", "scope", "size_bytes", "timeout_s", "values")

    def __init__(
        self,
        deadline: float | None,
        timeout_s: float,
        values: dict[str, Any],
        scope: Scope | None,
        *,
        own: bool,
    ) -> None:
        #: Seconds on the session's clock at which it must be done; None is without end.
        self.deadline = deadline
        #: Seconds it had when it was made; of no meaning without a deadline.
        self.timeout_s = timeout_s
        #: Whether that is its own timeout, or what its caller had left.
        self.own = own
        self.scope = scope
        #: Carried variables.
        self.values = values
        #: About how much it takes in a frame.
        self.size_bytes = sum(len(name) + field_bytes(value) for name, value in values.items())
        #: The task among its owner's deadlines: [when, number, task]; None without a deadline.
        self.entry: list[Any] | None = None

    def let_go(self) -> None:
        """Its task has ended: until the deadline, nothing keeps what the task held."""
        if self.entry is not None:
            self.entry[2] = None
            self.entry = None

    def extras(self, others: dict[str, Any] | None, now: float) -> dict[str, Any] | None:
        """What the worker must know, at the moment of sending; *others* are the call's other extras."""
        told = dict(others or ())
        if self.deadline is not None:
            told[REMAINING] = max(0.0, self.deadline - now)
        if self.values:
            told[CARRIED] = self.values
        return told or None


def terms_of(descriptor: Descriptor, clock: Callable[[], float]) -> Terms | None:
    """The terms of a call made in this context; None for almost all.

    Raises:
        TypeError: when a carried value cannot travel.
        ValueError: when one is too large.
    """
    context = _inherited()
    if context is None and descriptor.timeout_s is None and not _variables:
        return None
    context = context or NOTHING
    values = carried.outgoing(context.passed_on)
    if descriptor.timeout_s is None and context.deadline is None and context.scope is None and not values:
        return None
    return _terms(descriptor.timeout_s, context, values, clock())


def terms_again(descriptor: Descriptor, values: dict[str, Any], now: float) -> Terms | None:
    """The terms of a task that runs again for its value: its own timeout anew, and what it carried."""
    if descriptor.timeout_s is None and not values:
        return None
    return _terms(descriptor.timeout_s, NOTHING, values, now)


def _terms(timeout_s: float | None, context: Inherited, values: dict[str, Any], now: float) -> Terms:
    deadline, own = context.deadline, False
    if timeout_s is not None and (deadline is None or now + timeout_s < deadline):
        deadline, own = now + timeout_s, True
    left_s = 0.0 if deadline is None else max(0.0, deadline - now)
    return Terms(deadline, timeout_s if own and timeout_s else left_s, values, context.scope, own=own)


# --- where the call runs ----------------------------------------------------------------------------------


def check_terms(extras: dict[str, Any]) -> None:
    """Check what came with a call.

    Raises:
        ProtocolError: when it is not what terms look like.
    """
    remaining = extras.get(REMAINING)
    if remaining is not None and (type(remaining) not in (int, float) or not 0 <= remaining < inf):
        raise ProtocolError(f"a call cannot have {remaining!r} seconds left")
    values = extras.get(CARRIED)
    if values is None:
        return
    fits = type(values) is dict and all(
        type(name) is str and (type(value) is bytes or type(value) in SCALARS)
        for name, value in values.items()
    )
    if not fits:
        raise ProtocolError("carried variables are not values by name")


def enter_terms(extras: dict[str, Any], deadline: float | None) -> None:
    """Let this context be one in which calls inherit what came with the running one.

    Raises:
        Exception: whatever importing or unpickling a carried variable raises.
    """
    unknown = carried.arrive(extras.get(CARRIED) or {})
    if deadline is not None or unknown:
        inherited.set(Inherited(deadline, unknown, None))
