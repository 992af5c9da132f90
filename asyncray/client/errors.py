"""Failures as payloads: what a failed record holds, and what ``get`` raises from it."""

from __future__ import annotations

import pickle
import traceback
from typing import TYPE_CHECKING, Any

from ..exceptions import (
    ActorDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    SessionClosedError,
    WorkerCrashedError,
)
from ..state.objects import FAILED
from ..wire.values import Encoded, Payload, decode, encode_in_band

if TYPE_CHECKING:
    from ..refs import ObjectRef
    from ..state.objects import ObjectRecord
    from ..state.tasks import Task


class _Told:
    """What a task raised, as it travels: as text, and pickled by itself, because its class may be missing."""

    __slots__ = ("cause", "text")

    def __init__(self, text: RayTaskError, cause: bytes) -> None:
        self.text = text
        self.cause = cause

    def rebuilt(self) -> RayTaskError:
        """The error with its cause, where that can be had."""
        text, told = self.text, self.text.traceback_str
        try:
            cause = pickle.loads(self.cause)
        except Exception as error:  # noqa: BLE001 - e.g. the exception's module is missing here
            cause = None
            told = f"(the exception cannot be rebuilt here: {type(error).__name__}: {error})\n{told}"
        return RayTaskError(text.function_name, text.pid, told, cause)


class _Death:
    """What ended an actor, with the error that its constructor raised as its cause."""

    __slots__ = ("cause", "text")

    def __init__(self, text: str, cause: bytes) -> None:
        self.text = text
        self.cause = cause

    def rebuilt(self) -> ActorDiedError:
        """The error with its cause."""
        died = ActorDiedError(self.text)
        died.__cause__ = decode_error(self.cause)
        return died


def encode_actor_death(text: str, cause: Payload) -> bytes:
    """What every call of an actor raises whose constructor has failed."""
    if type(cause) is not bytes:  # it holds references, which nobody would keep alive
        return encode_error(ActorDiedError(text))
    return pickle.dumps(_Death(text, cause), protocol=5)


def death_in(record: ObjectRecord) -> bytes | None:
    """What ended the actor whose life *record* is; None when nothing has, or it is no actor's."""
    value = record.value
    return value if record.state == FAILED and type(value) is bytes else None


def encode_error(error: BaseException) -> bytes:
    """An error of ours as a failed record holds it: a pickle, so that every ``get`` raises a new object."""
    return pickle.dumps(error, protocol=5)


def encode_passing(error: BaseException) -> Payload:
    """An error that user code lets pass, with the references among its attributes.

    Raises:
        Exception: whatever pickling it raises.
    """
    data, refs = encode_in_band(error)
    return Encoded(data, (), refs) if refs else data


def encode_task_error(name: str, pid: int, error: BaseException) -> Payload:
    """What user code raised, as it travels. It always can: without the cause when that cannot be pickled."""
    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        # An error of the framework that passed through user code keeps its type for the caller.
        wrapped: RayError = error
        try:
            told = encode_passing(wrapped)
            decode(told)  # as below: that it can be rebuilt
            return told
        except Exception:  # noqa: BLE001, S110 - a user's subclass may refuse; it is told as text, below
            pass
    failure = RayTaskError.from_exception(name, pid, error)
    text = failure.without_cause()
    try:
        cause, refs = encode_in_band(failure.cause)
        # Some exceptions pickle and then cannot be rebuilt; the caller must not be the one to find out.
        pickle.loads(cause)
        told = pickle.dumps(_Told(text, cause), protocol=5)
    except Exception:  # noqa: BLE001 - the text of the error tells the user what there is to tell
        return encode_error(text)
    return Encoded(told, (), refs) if refs else told


def decode_error(payload: Payload) -> BaseException:
    """The exception that a failed record raises; a new object at each call."""
    try:
        error: object = decode(payload)
    except Exception:  # noqa: BLE001 - e.g. the exception's module is missing here
        return RayTaskError(
            "unknown",
            0,
            "the task failed with an error that cannot be rebuilt here:\n" + traceback.format_exc(),
        )
    if isinstance(error, (_Told, _Death)):
        error = error.rebuilt()
    if not isinstance(error, BaseException):
        return RayTaskError("unknown", 0, f"the task failed with something that is no error: {error!r}")
    if isinstance(error, RayTaskError):
        return error.as_instanceof_cause()
    return error


def of_the_past(ref: ObjectRef[Any]) -> SessionClosedError:
    """The error for a reference that has ended with its session."""
    return SessionClosedError(
        f"{ref!r} is a reference of an earlier session, and has ended with it: sessions do not share objects"
    )


def crash_of(task: Task, kind: str, explanation: str) -> WorkerCrashedError | OutOfMemoryError:
    """The failure of a task whose worker was lost."""
    if kind == "memory":
        return OutOfMemoryError(f"the task {task.descriptor.name!r} was killed: {explanation}")
    runs = f" after {task.attempt + 1} attempts" if task.attempt else ""
    return WorkerCrashedError(
        f"the worker that ran the task {task.descriptor.name!r} died{runs}: {explanation}"
    )
