"""What users catch. Each class says whose fault it is and whether trying again can help.

Names and parents are Ray's, with a few of our own at the end. All of them survive `pickle` and `cloudpickle`.
"""
# ruff: noqa: N818  the names are Ray's

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any


class RayError(Exception):
    """Base of every error of this package; catch it to catch them all."""


# ---- user code ----


class RemoteTraceback(Exception):
    """Carries the traceback text of another process as a `__cause__`, as `concurrent.futures` does."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class RayTaskError(RayError):
    """The user's code raised. Fault: that code. Retry: only when it may run twice (`retry_exceptions=`).

    What `get` and `await` raise is the value of `as_instanceof_cause()`: it is caught as this class and as
    the user's own. Its attributes are those of the cause, except the four of this class.

    Args:
        function_name: The function or method that raised.
        pid: Process id of the worker it ran in.
        traceback_str: The remote traceback; its last lines name the exception's type and message.
        cause: The exception itself; None when it could not be pickled. Of a RayTaskError from a nested call
            the cause is taken, so that `cause` is always what the user's code raised first.
    """

    function_name: str
    pid: int
    traceback_str: str
    cause: BaseException | None

    def __init__(
        self, function_name: str, pid: int, traceback_str: str, cause: BaseException | None = None
    ) -> None:
        super().__init__(f"{function_name}() (pid={pid})\n{traceback_str}")
        self._fill(function_name, pid, traceback_str, cause)

    def __init_subclass__(cls, **_: Any) -> None:
        """Stop here: a hook of the user's class must neither see nor refuse what `_dual_class` builds."""

    @classmethod
    def from_exception(cls, function_name: str, pid: int, error: BaseException) -> "RayTaskError":
        """Wrap what user code just raised, with `error.__traceback__` as the text.

        The text of a remote error among its causes appears once, however many hops it made.
        """
        return cls(function_name, pid, _format(error), error)

    def without_cause(self) -> "RayTaskError":
        """The same error as text only, for a cause that cannot be pickled."""
        return RayTaskError(self.function_name, self.pid, self.traceback_str)

    def as_instanceof_cause(self) -> "RayTaskError":
        """An error that is both a RayTaskError and an instance of the cause's class.

        Returns:
            A new error, or this one where the two cannot be joined: there is no cause, its class cannot be
            subclassed, or it steers the interpreter. KeyboardInterrupt, SystemExit, CancelledError and
            their like would end or cancel the caller instead of telling it.
        """
        if self.cause is None:
            return self
        kind: Any = type(self.cause)
        try:
            joined: RayTaskError = _copy_state(_dual_class(kind), self.cause)
        except Exception:  # noqa: BLE001  whatever the user's class refuses with, the plain error still tells
            return self
        joined._fill(self.function_name, self.pid, self.traceback_str, self.cause)
        return joined

    def _fill(self, function_name: str, pid: int, traceback_str: str, cause: BaseException | None) -> None:
        if isinstance(cause, RayTaskError):
            cause = cause.cause
        own = {"function_name": function_name, "pid": pid, "traceback_str": traceback_str, "cause": cause}
        # Past any __setattr__ of the user's class: a frozen dataclass may be an exception too.
        self.__dict__.update(own)
        BaseException.__setattr__(self, "__cause__", RemoteTraceback(traceback_str))

    # RayTaskError stands before the user's class in the order of lookup, so these win over the user's own.

    def __str__(self) -> str:
        return f"{self.function_name}() (pid={self.pid})\n{self.traceback_str}"

    def __repr__(self) -> str:
        last = self.traceback_str.rstrip().rpartition("\n")[2]
        return f"<{type(self).__name__} in {self.function_name}() (pid={self.pid}): {last}>"

    def __reduce__(self) -> tuple[Callable[..., "RayTaskError"], tuple[object, ...]]:
        fields = (self.function_name, self.pid, self.traceback_str, self.cause)
        extra = {
            name: value for name, value in self.__dict__.items() if name not in RayTaskError.__annotations__
        }
        return _rebuild, (type(self) is not RayTaskError, fields, extra)

    def __reduce_ex__(self, _: object) -> tuple[Callable[..., "RayTaskError"], tuple[object, ...]]:
        return self.__reduce__()


def _rebuild(
    joined: bool,
    fields: tuple[str, int, str, BaseException | None],
    extra: dict[str, Any],
) -> RayTaskError:
    """Undo `RayTaskError.__reduce__`; `extra` is what users have set on it since, notes among it."""
    error = RayTaskError(*fields)
    if joined:
        error = error.as_instanceof_cause()
    error.__dict__.update(extra)
    return error


@functools.lru_cache(maxsize=256)
def _dual_class(kind: type[Any]) -> type[Any]:
    """The class that is both RayTaskError and `kind`.

    Raises:
        TypeError: when `kind` is no Exception, is a parent of RayTaskError, or cannot be subclassed.
    """
    if issubclass(RayTaskError, kind):
        raise TypeError(f"{kind.__name__} cannot be joined")
    if not issubclass(kind, Exception):
        raise TypeError(f"{kind.__name__} would end or cancel the caller")
    return type(f"RayTaskError({kind.__name__})", (RayTaskError, kind), {"__module__": __name__})


def _copy_state(dual: type[Any], cause: BaseException) -> Any:
    """Make a `dual` in the state of `cause`, without running the user's `__new__` or `__init__`."""
    copy = _new(dual, cause)
    for place in _c_fields(type(cause)):
        try:
            place.__set__(copy, place.__get__(cause))
        except (AttributeError, TypeError):
            continue  # a field that is empty, or one that __new__ has filled and that is read-only since
    copy.__dict__.update(vars(cause))
    if "__notes__" in copy.__dict__:
        copy.__dict__["__notes__"] = [*cause.__notes__]  # a note on the copy is not one on the cause
    BaseException.__setattr__(copy, "args", cause.args)
    return copy


def _new(dual: type[Any], cause: BaseException) -> Any:
    """Call the nearest built-in `__new__` that is safe for `dual`: for MemoryError it is Exception's."""
    for base in type(cause).__mro__:
        if not base.__flags__ & _HEAP_TYPE:
            with contextlib.suppress(TypeError):
                return base.__new__(dual, *cause.args)
    raise TypeError(f"{dual.__name__} cannot be made from {cause.args!r}")


#: CPython's Py_TPFLAGS_HEAPTYPE: set on classes made by a `class` statement, clear on most that are built in.
_HEAP_TYPE = 1 << 9


def _c_fields(kind: type) -> Iterator[Any]:
    """State outside `__dict__`: `__slots__` of users, fields like `OSError.errno`."""
    for base in kind.__mro__:
        if base in (BaseException, object):
            continue
        for name, place in vars(base).items():
            if isinstance(place, (MemberDescriptorType, GetSetDescriptorType)) and not name.startswith("__"):
                yield place


def _format(error: BaseException) -> str:
    formatted = traceback.TracebackException.from_exception(error, compact=True)
    _cut_remote_causes(error, formatted)
    return "".join(formatted.format())


def _cut_remote_causes(error: BaseException, formatted: traceback.TracebackException) -> None:
    """Drop each RemoteTraceback: its text is in the RayTaskError's own, and would double with every hop."""
    if isinstance(error, RayTaskError):
        formatted.__cause__ = formatted.exceptions = None
        return
    pairs = [(error.__cause__, formatted.__cause__), (error.__context__, formatted.__context__)]
    if isinstance(error, BaseExceptionGroup):
        pairs.extend(zip(error.exceptions, formatted.exceptions or (), strict=False))
    for cause, its_format in pairs:
        # The formatted tree ends where the real one has cycles: the formatter leaves out what it has seen.
        if cause is not None and its_format is not None:
            _cut_remote_causes(cause, its_format)


# ---- tasks and processes ----


class TaskCancelledError(RayError):
    """The task was cancelled. Fault: whoever called `cancel`. Retry: submit it again if it is wanted."""


class GetTimeoutError(RayError, TimeoutError):
    """Not done in time: a wait (the task goes on), or a task with `timeout`. Fault: nobody's. Retry: yes."""


class WorkerCrashedError(RayError):
    """The worker process died in the task. Fault: its code, or a kill. Retry: may help."""


class LocalRayletDiedError(RayError):
    """The node process of this session died. Fault: the machine, or a kill. Retry: after a new `init`."""


class NodeDiedError(RayError):
    """A node that held the task or object is gone. Fault: the machine. Retry: yes, on another node."""


class OutOfMemoryError(RayError):
    """The task was killed before memory ran out. Fault: its size. Retry: with less, or more memory."""


class TaskUnschedulableError(RayError):
    """No node can ever run the task. Fault: its options. Retry: not without changing them."""


class RuntimeEnvSetupError(RayError):
    """The task's `runtime_env` could not be set up. Fault: what it asks for. Retry: after mending it."""


class UnserializableException(RayError):
    """An error that could not be unpickled here; its text is all there is. Fault: its class. Retry: no."""


# ---- objects ----


class ObjectStoreFullError(RayError):
    """No room for the object, even after spilling. Fault: too many live refs. Retry: after dropping some."""


class OutOfDiskError(RayError):
    """No disk left to spill to. Fault: the disk. Retry: after making room."""


class ObjectLostError(RayError):
    """The object is gone and cannot be made again. Fault: a lost process. Retry: submit its task again."""


class ObjectFetchTimedOutError(ObjectLostError):
    """The object's holder does not answer. Fault: the network or that node. Retry: yes."""


class ReferenceCountingAssertionError(ObjectLostError):
    """The object was freed while a ref was alive. Fault: a bug here, or a ref pickled by hand. Retry: no."""


class ObjectFreedError(ObjectLostError):
    """The object was freed on demand. Fault: whoever freed it. Retry: no."""


class OwnerDiedError(ObjectLostError):
    """The process that made the ref has died. Fault: that process. Retry: submit again elsewhere."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and cannot be made again; it says why. Fault: see there. Retry: submit again."""


class OufOfBandObjectRefSerializationException(RayError):
    """A ref was pickled outside a call, where nobody can keep its object alive. Fault: the caller. Retry: no.

    The spelling is Ray's.
    """


# ---- actors ----


class RayActorError(RayError):
    """The actor cannot take the call. Fault: see the subclass. Retry: see the subclass."""

    def __reduce__(self) -> Any:
        plain = super().__reduce__()
        cause = self.__cause__  # what a constructor has raised is told wherever the error goes
        return (_caused, (plain, cause)) if isinstance(cause, RayTaskError) else plain


def _caused(plain: Any, cause: RayTaskError) -> BaseException:
    """Undo `RayActorError.__reduce__`."""
    make, args, *state = plain
    error: BaseException = make(*args)
    error.__dict__.update(*state)
    error.__cause__ = cause
    return error


class ActorDiedError(RayActorError):
    """The actor is dead for good. Fault: its code, or `kill`. Retry: only on a new actor."""


class ActorUnavailableError(RayActorError):
    """The actor cannot be reached now. Fault: a restart. Retry: if the call may run twice."""


class ActorAlreadyExistsError(ValueError, RayError):
    """The name is taken. Fault: the caller. Retry: with another name, or `get_if_exists=True`."""


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle belongs to another session. Fault: the caller. Retry: no."""


class ActorUnschedulableError(RayError):
    """No node can ever hold the actor. Fault: its options. Retry: not without changing them."""


class PendingCallsLimitExceeded(RayError):
    """The handle has `max_pending_calls` calls under way. Fault: the caller. Retry: after some have ended."""


class AsyncioActorExit(RayError):
    """Raised inside an async actor to leave it (`exit_actor`). Fault: nobody's. Retry: no."""


# ---- the system itself ----


class RaySystemError(RayError):
    """The system failed, not the user's code. Fault: see the message. Retry: may help."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again yielded fewer or other items. Fault: it is not deterministic. Retry: no."""


class ProtocolError(RaySystemError):
    """A peer sent what it must not: a bad frame, another version. Fault: the peer. Retry: no."""


class AuthenticationError(ProtocolError):
    """A peer has the wrong token or user. Fault: whoever set or tried it. Retry: with the right one."""


class SessionClosedError(RaySystemError, RuntimeError):
    """Use after `shutdown`, or of a ref of an earlier `init`. Fault: the caller. Retry: with a new ref."""


class InternalError(RaySystemError):
    """A bug of this package. Fault: ours; please report it. Retry: no.

    Args:
        message: What was found that cannot be.
        story: What happened before, oldest first, a line each.
    """

    def __init__(self, message: str, story: Iterable[str] = ()) -> None:
        self.message = message
        self.story: list[str] = list(story)
        super().__init__(message, self.story)

    def __str__(self) -> str:
        return "\n  ".join([f"{self.message} (a bug in asyncray, please report it)", *self.story])


class UnknownKeywordError(RuntimeError, TypeError):
    """A keyword that `init` does not have. Fault: the caller. Retry: with the name the message proposes.

    RuntimeError is what Ray raises, TypeError what Python does.
    """
