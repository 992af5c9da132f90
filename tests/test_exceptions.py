"""Errors keep their type, text and attributes on the way from the task to its caller."""

import asyncio
import dataclasses
import json
import pickle
import subprocess
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import cloudpickle
import pytest

from asyncray import exceptions
from asyncray.exceptions import InternalError, RayError, RayTaskError, RemoteTraceback

PICKLERS: list[Callable[[Any], bytes]] = [pickle.dumps, cloudpickle.dumps]


class RichError(Exception):
    """Takes other arguments than it passes on, as many do; cannot be made from its `args`."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., "RichError"], tuple[int, str]]:
        return _rich, (self.code, self.reason)

    def describe(self) -> str:
        return f"{self.code} because {self.reason}"


def _rich(code: int, reason: str) -> RichError:
    return RichError(code, reason=reason)


class SlotsError(Exception):
    __slots__ = ("detail",)

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NoSubclassesError(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


class _SealedMeta(type):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> "_SealedMeta":
        if any(isinstance(base, _SealedMeta) for base in bases):
            raise TypeError("sealed")
        return super().__new__(cls, name, bases, namespace)


class SealedError(Exception, metaclass=_SealedMeta):
    pass


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    field: int


def remote(cause: BaseException | None, text: str = "Traceback ...\nValueError: boom\n") -> RayTaskError:
    return RayTaskError("work", 42, text, cause)


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001  that is the question
        return error
    raise AssertionError("nothing was raised")


def fails() -> NoReturn:
    raise ValueError("boom", 7)


# ---- the joined error ----


def test_an_error_is_caught_as_the_users_class_and_as_a_task_error() -> None:
    error = remote(ValueError("boom", 7)).as_instanceof_cause()

    assert isinstance(error, ValueError)
    assert isinstance(error, RayTaskError)
    assert isinstance(error, RayError)
    assert type(error).__name__ == "RayTaskError(ValueError)"
    assert error.args == ("boom", 7)


def test_the_remote_traceback_is_in_the_text_and_is_the_cause_of_the_error() -> None:
    error = RayTaskError.from_exception("work", 42, raised(fails)).as_instanceof_cause()

    assert str(error).startswith("work() (pid=42)\nTraceback (most recent call last):")
    assert "in fails" in str(error)
    assert str(error).rstrip().endswith("ValueError: ('boom', 7)")
    assert isinstance(error.__cause__, RemoteTraceback)
    assert str(error.__cause__) == f'\n"""\n{error.traceback_str}"""'
    assert "in fails" in "".join(traceback.format_exception(error))


def test_the_repr_is_one_line_with_function_pid_and_message() -> None:
    error = remote(ValueError("boom"))

    assert repr(error) == "<RayTaskError in work() (pid=42): ValueError: boom>"
    assert (
        repr(error.as_instanceof_cause()) == "<RayTaskError(ValueError) in work() (pid=42): ValueError: boom>"
    )


def test_the_fields_of_the_task_error_are_readable_on_the_joined_one() -> None:
    cause = ValueError("boom")
    error = remote(cause).as_instanceof_cause()

    assert (error.function_name, error.pid, error.cause) == ("work", 42, cause)


def test_attributes_and_methods_of_the_cause_work() -> None:
    error = remote(RichError(7, reason="rain")).as_instanceof_cause()

    assert isinstance(error, RichError)
    assert (error.code, error.reason, error.describe()) == (7, "rain", "7 because rain")


@pytest.mark.parametrize(
    ("cause", "names"),
    [
        (FileNotFoundError(2, "No such file", "/a"), ["errno", "strerror", "filename"]),
        (BlockingIOError(11, "again", 5), ["errno", "characters_written"]),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ["encoding", "object", "start", "end", "reason"]),
        (ImportError("no", name="x", path="/x"), ["name", "path", "msg"]),
        (raised(lambda: (1).nope), ["name", "obj"]),  # type: ignore[attr-defined]
        (SyntaxError("bad", ("f.py", 3, 4, "line")), ["filename", "lineno", "offset", "text", "msg"]),
        (ExceptionGroup("several", [ValueError("a")]), ["message", "exceptions"]),
        (json.JSONDecodeError("bad", "{", 1), ["doc", "pos", "lineno"]),
        (subprocess.CalledProcessError(3, ["ls"]), ["returncode", "cmd"]),
        (SlotsError("deep"), ["detail"]),
        (MemoryError("no room"), ["args"]),
        (exceptions.GetTimeoutError("late"), ["args"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_fields_that_are_not_in_the_dict_of_the_cause_are_readable(
    cause: BaseException, names: list[str]
) -> None:
    error = remote(cause).as_instanceof_cause()

    assert isinstance(error, type(cause))
    assert {name: getattr(error, name) for name in names} == {name: getattr(cause, name) for name in names}
    assert error.args == cause.args


def test_notes_of_the_cause_are_kept_and_new_ones_stay_on_their_error() -> None:
    cause = ValueError("boom")
    cause.add_note("from the task")
    error = remote(cause)

    error.as_instanceof_cause().add_note("from one caller")

    assert error.as_instanceof_cause().__notes__ == ["from the task"]


def test_a_part_of_a_group_is_caught_by_except_star() -> None:
    caught: list[BaseException] = []
    try:
        raise remote(ExceptionGroup("several", [ValueError("a"), KeyError("b")])).as_instanceof_cause()
    except* ValueError as group:
        caught.extend(group.exceptions)
    except* KeyError as group:
        caught.extend(group.exceptions)

    assert [type(error) for error in caught] == [ValueError, KeyError]


def test_one_class_is_built_for_one_kind_of_cause() -> None:
    first = remote(ValueError("a")).as_instanceof_cause()
    second = remote(ValueError("b")).as_instanceof_cause()

    assert first is not second
    assert type(first) is type(second)


def test_a_hook_of_the_users_class_that_refuses_subclasses_is_not_asked() -> None:
    assert isinstance(remote(NoSubclassesError("no")).as_instanceof_cause(), NoSubclassesError)


def test_an_exception_that_is_a_frozen_dataclass_can_be_joined() -> None:
    error = remote(FrozenError(3)).as_instanceof_cause()

    assert isinstance(error, FrozenError)
    assert error.field == 3


# ---- where it stays a plain task error ----


def test_a_class_that_cannot_be_subclassed_gives_the_plain_error() -> None:
    error = remote(SealedError("no"))

    assert error.as_instanceof_cause() is error
    assert isinstance(error.__cause__, RemoteTraceback)


@pytest.mark.parametrize(
    "cause",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_what_would_steer_the_caller_arrives_as_a_plain_error_that_tells_of_it(cause: BaseException) -> None:
    error = RayTaskError.from_exception("work", 42, cause).as_instanceof_cause()

    assert type(error) is RayTaskError
    assert isinstance(error, Exception)
    assert error.cause is cause
    assert type(cause).__name__ in str(error)


@pytest.mark.parametrize("cause", [Exception("bare"), RayError("bare")], ids=repr)
def test_a_cause_of_a_parent_class_needs_no_joining(cause: Exception) -> None:
    error = remote(cause)

    assert error.as_instanceof_cause() is error


def test_an_error_without_its_cause_still_has_type_message_and_traceback() -> None:
    error = RayTaskError.from_exception("work", 42, raised(fails)).without_cause()

    assert error.cause is None
    assert error.as_instanceof_cause() is error
    assert "in fails" in str(error)
    assert "ValueError: ('boom', 7)" in str(error)


# ---- errors of nested calls ----


def _through(error: RayTaskError) -> RayTaskError:
    """The error as the next task sees it that gets the failed ref and lets it pass."""

    def get() -> NoReturn:
        raise error.as_instanceof_cause()

    return RayTaskError.from_exception("outer", 43, raised(get))


def test_the_cause_of_an_error_that_passed_through_tasks_is_the_first_one() -> None:
    cause = ValueError("boom")
    error = _through(_through(remote(cause))).as_instanceof_cause()

    assert isinstance(error, ValueError)
    assert type(error).__name__ == "RayTaskError(ValueError)"
    assert error.cause is cause


def test_the_text_grows_by_one_part_a_hop_and_not_by_doubling() -> None:
    error = remote(ValueError("boom"))
    sizes = [len(str(error))]
    for _ in range(200):
        error = _through(error)
        sizes.append(len(str(error)))

    assert sizes[-1] - sizes[-2] == sizes[2] - sizes[1]
    assert str(error).count("ValueError: boom") == 1
    assert str(error).count("in get\n") == 200
    assert pickle.loads(pickle.dumps(error)).cause.args == ("boom",)


def test_the_text_of_a_remote_error_behind_another_one_is_there_once() -> None:
    inner = remote(ValueError("boom")).as_instanceof_cause()

    def wrap() -> NoReturn:
        try:
            raise inner
        except ValueError as error:
            raise LookupError("outer") from error

    error = RayTaskError.from_exception("outer", 43, raised(wrap))

    assert str(error).count("ValueError: boom") == 1
    assert str(error).rstrip().endswith("LookupError: outer")


def test_the_text_of_remote_errors_in_a_group_is_there_once() -> None:
    group = ExceptionGroup("several", [remote(ValueError("boom")).as_instanceof_cause(), KeyError("b")])
    error = _through(RayTaskError.from_exception("outer", 43, group))

    assert str(error).count("ValueError: boom") == 1
    assert isinstance(error.as_instanceof_cause(), ExceptionGroup)


def test_errors_that_are_each_others_context_are_formatted() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first

    assert "ValueError: second" in str(RayTaskError.from_exception("work", 42, first))


# ---- pickling ----


@pytest.mark.parametrize("dumps", PICKLERS)
@pytest.mark.parametrize(
    "cause",
    [
        ValueError("boom", 7),
        RichError(7, reason="rain"),
        FileNotFoundError(2, "No such file", "/a"),
        SlotsError("deep"),
        SealedError("no"),
        ExceptionGroup("several", [ValueError("a")]),
        KeyboardInterrupt(),
        None,
    ],
    ids=repr,
)
def test_a_task_error_survives_pickling_plain_and_joined(
    cause: BaseException | None, dumps: Callable[[Any], bytes]
) -> None:
    for error in (remote(cause), remote(cause).as_instanceof_cause()):
        back = pickle.loads(dumps(error))

        assert type(back) is type(error)
        assert str(back) == str(error)
        assert (back.function_name, back.pid, back.traceback_str) == ("work", 42, error.traceback_str)
        assert type(back.cause) is type(cause)
        assert repr(back.args) == repr(error.args)
        assert str(back.__cause__) == str(error.__cause__)


@pytest.mark.parametrize("dumps", PICKLERS)
def test_what_a_user_adds_to_an_error_survives_pickling(dumps: Callable[[Any], bytes]) -> None:
    error: Any = remote(RichError(7, reason="rain")).as_instanceof_cause()
    error.add_note("seen in the outer task")
    error.stage = 3

    back = pickle.loads(dumps(error))

    assert back.__notes__ == ["seen in the outer task"]
    assert (back.stage, back.code) == (3, 7)


def _public_classes() -> list[type[BaseException]]:
    found = [item for item in vars(exceptions).values() if isinstance(item, type)]
    return [
        item for item in found if issubclass(item, BaseException) and item.__module__ == exceptions.__name__
    ]


@pytest.mark.parametrize("dumps", PICKLERS)
@pytest.mark.parametrize("kind", _public_classes())
def test_every_class_survives_pickling(kind: type[BaseException], dumps: Callable[[Any], bytes]) -> None:
    error = kind("f", 1, "text") if issubclass(kind, RayTaskError) else kind("message")

    back = pickle.loads(dumps(error))

    assert type(back) is kind
    assert (back.args, str(back)) == (error.args, str(error))


def test_an_internal_error_tells_its_story() -> None:
    error = pickle.loads(pickle.dumps(InternalError("a ref counted to -1", ["put", "freed", "freed"])))

    assert error.story == ["put", "freed", "freed"]
    assert str(error).splitlines()[0] == "a ref counted to -1 (a bug in asyncray, please report it)"
    assert str(error).splitlines()[1:] == ["  put", "  freed", "  freed"]


# ---- the tree ----


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (exceptions.GetTimeoutError, (RayError, TimeoutError)),
        (exceptions.OwnerDiedError, (exceptions.ObjectLostError,)),
        (exceptions.ObjectReconstructionFailedError, (exceptions.ObjectLostError,)),
        (exceptions.ActorDiedError, (exceptions.RayActorError,)),
        (exceptions.ActorUnavailableError, (exceptions.RayActorError,)),
        (exceptions.ActorAlreadyExistsError, (RayError, ValueError)),
        (exceptions.ActorHandleNotFoundError, (RayError, ValueError)),
        (exceptions.StreamingGeneratorReplayInconsistentError, (exceptions.RaySystemError,)),
        (exceptions.SessionClosedError, (exceptions.RaySystemError, RuntimeError)),
        (exceptions.AuthenticationError, (exceptions.ProtocolError, RayError)),
        (exceptions.UnknownKeywordError, (RuntimeError, TypeError)),
    ],
)
def test_a_class_is_caught_where_a_user_looks_for_it(
    kind: type[BaseException], parents: tuple[type[BaseException], ...]
) -> None:
    assert all(issubclass(kind, parent) for parent in parents)


@pytest.mark.parametrize("kind", _public_classes())
def test_every_class_says_whose_fault_it_is_and_whether_to_try_again(kind: type[BaseException]) -> None:
    if kind in (RayError, RemoteTraceback):
        return
    assert kind.__doc__ is not None
    assert "Fault: " in kind.__doc__
    assert "Retry: " in kind.__doc__
