"""What a task raised reaches its caller, whole where it can be pickled and as text where it cannot."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from asyncray.client.errors import decode_error, encode_error, encode_task_error
from asyncray.exceptions import (
    GetTimeoutError,
    InternalError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)


class LockedError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class TwoPartError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class OwnTimeoutError(GetTimeoutError):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class RefusingError(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as user code raises it."""
    try:
        raise error  # noqa: TRY301 - it gets its traceback here
    except BaseException as caught:  # noqa: BLE001 - of any kind
        return caught


def arrived(error: BaseException) -> BaseException:
    return decode_error(encode_task_error("work", 42, raised(error)))


@pytest.mark.parametrize(
    "error", [ValueError("bad", 1), KeyError("k"), OSError(2, "gone", "file"), ZeroDivisionError()]
)
def test_an_error_arrives_as_its_own_type_and_as_a_task_error(error: Exception) -> None:
    told = arrived(error)
    assert isinstance(told, RayTaskError)
    assert isinstance(told, type(error))
    assert told.args == error.args
    assert (told.function_name, told.pid) == ("work", 42)
    assert "in raised" in told.traceback_str


@pytest.mark.parametrize(
    "error",
    [
        LockedError("text"),
        TwoPartError("text", "more"),
        RefusingError("text"),
        OwnTimeoutError("text", "b"),
    ],
)
def test_an_error_that_cannot_travel_arrives_as_text(error: Exception) -> None:
    told = arrived(error)
    assert isinstance(told, RayTaskError)
    assert told.cause is None
    assert told.function_name == "work"
    assert f"{type(error).__name__}: {error}" in told.traceback_str


@pytest.mark.parametrize(
    "error",
    [
        TaskCancelledError("by hand"),
        GetTimeoutError("1 s"),
        WorkerCrashedError("9"),
        InternalError("m", ["a", "b"]),
    ],
)
def test_an_error_of_the_framework_passes_through_as_it_is(error: Exception) -> None:
    told = arrived(error)
    assert type(told) is type(error)
    assert told.args == error.args
    assert str(told) == str(error)


def test_a_task_error_from_a_nested_call_keeps_the_first_cause() -> None:
    inner = decode_error(encode_task_error("inner", 1, raised(ValueError("first"))))
    told = arrived(inner)
    assert isinstance(told, RayTaskError)
    assert isinstance(told, ValueError)
    assert type(told.cause) is ValueError
    assert told.function_name == "work"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_error_that_steers_the_interpreter_arrives_as_a_task_error_alone(error: BaseException) -> None:
    told = arrived(error)
    assert type(told) is RayTaskError
    assert type(told.cause) is type(error)


def test_each_decoding_makes_a_new_error() -> None:
    payload = encode_task_error("work", 42, raised(ValueError("x")))
    assert decode_error(payload) is not decode_error(payload)
    payload = encode_error(WorkerCrashedError("x"))
    assert decode_error(payload) is not decode_error(payload)


def test_an_error_of_a_module_that_is_missing_here_arrives_as_text() -> None:
    payload = b"cno_such_module\nNoSuchError\n."
    told = decode_error(payload)
    assert type(told) is RayTaskError
    assert "cannot be rebuilt here" in told.traceback_str
    assert "no_such_module" in told.traceback_str


@pytest.mark.parametrize("payload", [b"", b"garbage", pickle.dumps(ValueError("x"))[:-3]])
def test_a_damaged_error_is_still_an_error(payload: bytes) -> None:
    assert type(decode_error(payload)) is RayTaskError
