"""Failures as payloads: what a failed record holds, and what ``get`` raises from it."""

from __future__ import annotations

import pickle
import traceback

import cloudpickle

from ..exceptions import RayError, RayTaskError


def encode_error(error: BaseException) -> bytes:
    """An error of ours as a failed record holds it: a pickle, so that every ``get`` raises a new object."""
    return pickle.dumps(error, protocol=5)


def encode_task_error(name: str, pid: int, error: BaseException) -> bytes:
    """What user code raised, as it travels. It always can: without the cause when that cannot be pickled."""
    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        # An error of the framework that passed through user code keeps its type for the caller.
        wrapped: RayError = error
        try:
            told = encode_error(wrapped)
            pickle.loads(told)  # as below: that it can be rebuilt
            return told
        except Exception:  # noqa: BLE001, S110 - a user's subclass may refuse; it is told as text, below
            pass
    failure = RayTaskError.from_exception(name, pid, error)
    try:
        data: bytes = cloudpickle.dumps(failure, protocol=5)
        # Some exceptions pickle and then cannot be rebuilt; the caller must not be the one to find out.
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - the text of the error tells the user what there is to tell
        return encode_error(failure.without_cause())
    return data


def decode_error(payload: bytes) -> BaseException:
    """The exception that a failed record raises; a new object at each call."""
    try:
        error: BaseException = pickle.loads(payload)
    except Exception:  # noqa: BLE001 - e.g. the exception's module is missing here
        return RayTaskError(
            "unknown",
            0,
            "the task failed with an error that cannot be rebuilt here:\n" + traceback.format_exc(),
        )
    if not isinstance(error, BaseException):
        return RayTaskError("unknown", 0, f"the task failed with something that is no error: {error!r}")
    if isinstance(error, RayTaskError):
        return error.as_instanceof_cause()
    return error
