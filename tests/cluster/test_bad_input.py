"""Bad input: each mistake is an error at the line that made it, and says what was wrong with what."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import GetTimeoutError, RayTaskError, WorkerCrashedError
from asyncray.util import as_completed, map_unordered
from tests.cluster.gates import Gates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_ray")

LIMIT_S = 20
ANY_REF: Any = None


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
def two_of(first: int, *, second: int = 0) -> int:
    return first + second


@pytest.fixture
def gates(shared_ray: object, gates: Gates) -> Gates:
    return gates


@pytest.fixture(autouse=True)
def other_work_goes_on(shared_ray: object) -> Iterator[None]:
    """Whatever a test gave the session, the session still works after it."""
    yield
    assert ray.get(same.remote("well"), timeout=LIMIT_S) == "well"


def failure_of(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        call()
    return caught.value


# --- functions and their options --------------------------------------------------------------------------


def test_calling_a_remote_function_directly_names_the_way_to_call_it() -> None:
    with pytest.raises(TypeError, match=r"^a remote function cannot be called directly: use same\.remote"):
        same(1)


WRONG_OPTIONS = [
    ({"num_cpu": 1}, ValueError, "unknown task option 'num_cpu'; did you mean 'num_cpus'?"),
    ({"max_restarts": 1}, ValueError, "'max_restarts' is an option of actors"),
    ({"num_cpus": "two"}, TypeError, "num_cpus must be a finite number >= 0, not 'two' of type str"),
    ({"num_cpus": -1}, ValueError, "num_cpus must be a finite number >= 0, not -1"),
    ({"num_cpus": 0.00001}, ValueError, "num_cpus must be 0 or a number >= 0.0001"),
    ({"num_gpus": 1.5}, ValueError, "num_gpus must be a whole number when above 1, not 1.5"),
    ({"resources": {"CPU": 1}}, ValueError, "use the keyword num_cpus="),
    ({"resources": ["CPU"]}, TypeError, "resources must be a dict"),
    ({"num_returns": -1}, ValueError, "num_returns must be a whole number >= 0"),
    ({"num_returns": 1.0}, TypeError, "num_returns must be a whole number"),
    ({"max_retries": -2}, ValueError, "max_retries must be a whole number >= -1"),
    ({"retry_exceptions": [3]}, TypeError, "retry_exceptions must be True, False or a list"),
    ({"runtime_env": {"pip": ["x"]}}, ValueError, "pip"),
    ({"name": ""}, ValueError, "name must be a string that is not empty"),
    ({"name": "\ud800"}, ValueError, "name must be text that UTF-8 can encode"),
    ({"resources": {"\ud800": 1}}, ValueError, "resources must be text that UTF-8 can encode"),
    ({"num_cpus": 1e300}, ValueError, "num_cpus must be below 100000000000000"),
    ({"memory": 2**62}, ValueError, "memory must be below 100000000000000"),
    ({"max_retries": 2**70}, ValueError, "max_retries must be below 2**63"),
]


@pytest.mark.parametrize(("options", "kind", "text"), WRONG_OPTIONS)
def test_a_wrong_option_is_refused_by_the_decorator_and_by_options(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    for use in (lambda: ray.remote(**options)(failure_of), lambda: same.options(**options)):
        error = failure_of(use)
        assert type(error) is kind
        assert text in str(error)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (3, "remote needs a function or a class, not 3 of type int"),
        ("same", "remote needs a function or a class, not 'same' of type str"),
        (same, "is remote already"),
        (ray.remote(Gates), "is remote already"),
        (ray.remote(num_cpus=1), "remote needs a function"),
    ],
)
def test_only_a_plain_function_or_class_can_be_made_remote(given: Any, text: str) -> None:
    decorators: list[Any] = [ray.remote]
    if not callable(given) or given is same:
        decorators.append(ray.remote(num_cpus=1))
    for decorator in decorators:
        if decorator is ray.remote and "remote needs" in text and callable(given):
            continue  # a decorator is a function, too
        with pytest.raises(TypeError) as refused:
            decorator(given)
        assert text in str(refused.value)


def test_remote_wants_a_function_or_options_and_not_both_or_none() -> None:
    remote: Any = ray.remote
    for arguments, options in (((), {}), ((len,), {"num_cpus": 1}), ((len, len), {})):
        with pytest.raises(TypeError, match="remote"):
            remote(*arguments, **options)


def counted(count: int) -> Iterator[int]:
    yield from range(count)


async def counted_later(count: int) -> Any:
    for number in range(count):
        yield number


@pytest.mark.parametrize("function", [counted, counted_later])
def test_a_generator_function_without_returns_is_refused_because_it_would_never_run(function: Any) -> None:
    with pytest.raises(ValueError, match="its body would never run"):
        ray.remote(num_returns=0)(function)


def test_an_asynchronous_generator_function_can_only_stream() -> None:
    with pytest.raises(ValueError, match="can only stream"):
        ray.remote(num_returns=2)(counted_later)


def test_a_function_without_yield_does_not_stream() -> None:
    with pytest.raises(ValueError, match="is for generator functions"):
        same.options(num_returns="streaming")
    with pytest.raises(ValueError, match="is for generator functions"):
        ray.remote(num_returns="streaming")(len)
    with pytest.raises(ValueError, match=r"max_unread=3 is for generator functions, and 'same' has no yield"):
        same.options(max_unread=3)


def test_a_generator_function_with_a_number_of_returns_gives_that_many() -> None:
    refs: Any = ray.remote(num_returns=3)(counted).remote(3)
    assert ray.get(refs, timeout=LIMIT_S) == [0, 1, 2]


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'first'"),
        ((1, 2), {}, "too many positional arguments"),
        ((1,), {"third": 3}, "got an unexpected keyword argument 'third'"),
        ((1,), {"first": 1}, "multiple values for argument 'first'"),
    ],
)
def test_wrong_arguments_are_refused_where_the_call_is_made(args: Any, kwargs: Any, text: str) -> None:
    with pytest.raises(TypeError) as refused:
        two_of.remote(*args, **kwargs)
    assert str(refused.value).startswith("two_of() cannot be called so: ")
    assert text in str(refused.value)


# --- what cannot be pickled ---------------------------------------------------------------------------------


class Holder:
    """Something with a thing inside."""

    def __init__(self, thing: object) -> None:
        self.thing = thing


def test_an_argument_that_cannot_be_pickled_is_named_with_the_path_inside_it() -> None:
    bad = {"jobs": [1, Holder(threading.Lock())]}
    with pytest.raises(TypeError) as refused:
        same.remote(bad)
    assert str(refused.value).startswith("argument 'value' of same: value['jobs'][1].thing is a ")
    assert "lock, which cannot be pickled" in str(refused.value)
    with pytest.raises(TypeError, match="argument 'second' of two_of: second is a "):
        two_of.remote(1, second=threading.Lock())  # type: ignore[call-overload]


def test_what_is_put_is_named_with_the_path_inside_it() -> None:
    with pytest.raises(TypeError, match=r"^put cannot pickle its argument: \['a'\] is a "):
        ray.put({"a": threading.Lock()})


def test_a_function_that_cannot_be_pickled_names_what_it_captures() -> None:
    guard = threading.Lock()

    @ray.remote
    def guarded() -> bool:
        return guard.locked()

    with pytest.raises(TypeError, match="guarded' cannot be pickled: closure variable 'guard' is a "):
        guarded.remote()


def test_putting_a_reference_is_refused() -> None:
    with pytest.raises(TypeError, match=r"put was given an ObjectRef: .* put a list to nest it"):
        ray.put(ray.put(1))


@pytest.mark.parametrize("returns", [1, 2])
def test_a_return_value_that_cannot_be_pickled_is_named_with_the_path_inside_it(returns: int) -> None:
    @ray.remote(num_returns=returns)
    def locked() -> Any:
        values = ({"a": threading.Lock()}, 2)
        return values if returns == 2 else values[0]

    refs: Any = locked.remote()
    for ref in refs if returns == 2 else [refs]:
        with pytest.raises(TypeError) as caught:
            ray.get(ref, timeout=LIMIT_S)
        assert isinstance(caught.value, RayTaskError)
        assert "the return value" in str(caught.value)
        assert "locked' cannot be pickled: " in str(caught.value)
        assert "['a'] is a " in str(caught.value)


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class TwoPartError(Exception):
    """Can be pickled, and not unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@pytest.mark.parametrize("kind", [LockedError, TwoPartError])
def test_an_exception_that_cannot_travel_arrives_with_its_name_message_and_traceback(kind: Any) -> None:
    words = ("no way",) if kind is LockedError else ("no", "way")

    @ray.remote
    def fail() -> None:
        raise kind(*words)

    with pytest.raises(RayTaskError) as caught:
        ray.get(fail.remote(), timeout=LIMIT_S)
    assert f"{kind.__name__}: no way" in str(caught.value)
    assert "in fail" in caught.value.traceback_str


def test_an_exception_of_a_module_that_only_workers_have_arrives_with_its_name_and_message(
    tmp_path: Path,
) -> None:
    package = tmp_path / "only_for_workers.py"
    package.write_text("class RareError(Exception):\n    pass\n")

    @ray.remote(runtime_env={"py_modules": [str(package)]})
    def fail() -> None:
        import only_for_workers  # type: ignore[import-not-found]

        raise only_for_workers.RareError("quite rare")

    with pytest.raises(RayTaskError) as caught:
        ray.get(fail.remote(), timeout=LIMIT_S)
    assert caught.value.cause is None
    assert "only_for_workers.RareError: quite rare" in str(caught.value)
    assert "in fail" in caught.value.traceback_str
    assert "No module named 'only_for_workers'" in str(caught.value)


class Unpickled:
    """Calls a function, with its arguments, where it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def explode() -> None:
    raise ZeroDivisionError("while unpickling")


def end_process() -> None:
    import os

    os._exit(7)


def test_unpickling_that_raises_is_the_failure_of_the_call_that_wanted_the_value() -> None:
    bad = Unpickled(explode)
    calls: list[Callable[[], Any]] = [
        lambda: ray.get(same.remote(bad), timeout=LIMIT_S),
        lambda: ray.get(same.remote(ray.put(bad)), timeout=LIMIT_S),
    ]
    for call in calls:
        with pytest.raises(ZeroDivisionError, match="while unpickling") as caught:
            call()
        assert isinstance(caught.value, RayTaskError)
    with pytest.raises(ZeroDivisionError, match="while unpickling"):
        ray.get(ray.put(bad))

    @ray.remote
    def give() -> Any:
        return bad

    with pytest.raises(ZeroDivisionError, match="while unpickling"):
        ray.get(give.remote(), timeout=LIMIT_S)


def test_unpickling_that_ends_its_process_is_a_crashed_worker() -> None:
    ref = same.options(max_retries=0).remote(Unpickled(end_process))
    with pytest.raises(WorkerCrashedError, match=r"'same' died: process [0-9]+ exited with code 7"):
        ray.get(ref, timeout=LIMIT_S)


def test_unpickling_that_waits_for_another_task_gets_its_value() -> None:
    later = Unpickled(ray.get, same.remote("in time"))
    assert ray.get(same.remote(later), timeout=LIMIT_S) == "in time"


# --- numbers of returns ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("(1, 2, 3)", "has num_returns=2 but returned 3 values"),
        ("()", "has num_returns=2 but returned 0 values"),
        ("5", "has num_returns=2 and must return that many values, not one int"),
        ("None", "has num_returns=2 and must return that many values, not one NoneType"),
    ],
)
def test_a_number_of_returns_that_does_not_fit_fails_every_one_of_them(given: str, text: str) -> None:
    @ray.remote(num_returns=2)
    def give() -> Any:
        return eval(given)

    refs: Any = give.remote()
    for ref in refs:
        with pytest.raises(RayTaskError) as caught:
            ray.get(ref, timeout=LIMIT_S)
        assert isinstance(caught.value, (TypeError, ValueError))
        assert text in str(caught.value)


# --- references where references belong -----------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 3, "abc", object(), {1: 2}])
def test_get_takes_a_reference_or_a_list_of_them(wrong: Any) -> None:
    assert "get takes an ObjectRef or a list of them, not " in str(failure_of(lambda: ray.get(wrong)))
    assert isinstance(failure_of(lambda: ray.get(wrong)), ValueError)
    with pytest.raises(TypeError, match="get takes references; the list holds "):
        ray.get([ray.put(1), wrong])


@pytest.mark.parametrize("wrong", [None, 3, "abc"])
async def test_the_coroutines_take_references_as_the_verbs_do(wrong: Any) -> None:
    with pytest.raises(ValueError, match="get takes an ObjectRef or a list"):
        await aio.get(wrong)
    with pytest.raises(TypeError, match="get takes references; the list holds"):
        await aio.get([wrong])
    with pytest.raises(TypeError, match="wait takes references; the list holds"):
        await aio.wait([wrong])
    with pytest.raises(TypeError, match="cancel takes references, not"):
        await aio.cancel(wrong)
    with pytest.raises(TypeError, match="as_completed takes references, not"):
        async for _ in aio.as_completed([wrong]):
            pass
    with pytest.raises(TypeError, match="put was given an ObjectRef"):
        await aio.put(ray.put(1))


@pytest.mark.parametrize("wrong", [None, 3, "abc", Holder(1)])
def test_wait_cancel_and_as_completed_take_references(wrong: Any) -> None:
    with pytest.raises(TypeError, match="wait takes references; the list holds "):
        ray.wait([wrong])
    with pytest.raises(TypeError, match="wait takes a list of references, not "):
        ray.wait(wrong)
    with pytest.raises(TypeError, match="cancel takes references, not "):
        ray.cancel(wrong)
    with pytest.raises(TypeError, match="as_completed takes references, not "):
        as_completed([wrong])
    with pytest.raises(TypeError, match="map_unordered takes a remote function, not "):
        map_unordered(wrong, [1])


def test_wait_refuses_one_reference_twice_and_numbers_that_do_not_fit() -> None:
    ref, other = ray.put(1), ray.put(2)
    with pytest.raises(TypeError, match=r"not a single one: wait\(\[ref\]\)"):
        ray.wait(ref)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stands there 2 times"):
        ray.wait([ref, ref])
    numbers: list[tuple[Any, type[Exception]]] = [
        *((number, ValueError) for number in (0, 3, -1)),
        *((number, TypeError) for number in ("1", 1.5, True)),
    ]
    for number, kind in numbers:
        with pytest.raises(kind, match="num_returns"):
            ray.wait([ref, other], num_returns=number)


@pytest.mark.parametrize(("timeout", "kind"), [("1", TypeError), (True, TypeError), (-1, ValueError)])
def test_a_timeout_is_a_number_of_seconds(timeout: Any, kind: type[Exception], gates: Gates) -> None:
    pending = gates.pending()
    for call in (
        lambda: ray.get(pending, timeout=timeout),
        lambda: ray.get([pending], timeout=timeout),
        lambda: ray.wait([pending], timeout=timeout),
        lambda: pending.result(timeout),
        lambda: pending.exception(timeout),
        lambda: asyncio.run(aio.get(pending, timeout=timeout)),
        lambda: asyncio.run(aio.wait([pending], timeout=timeout)),
    ):
        with pytest.raises(kind, match="timeout must be None or "):
            call()


def test_a_timeout_may_be_longer_than_any_clock_counts() -> None:
    for seconds in (float("inf"), 1e12):
        assert ray.get(same.remote(1), timeout=seconds) == 1
        assert ray.get([same.remote(2)], timeout=seconds) == [2]
        assert ray.wait([same.remote(3)], timeout=seconds)[1] == []
        assert asyncio.run(aio.get(same.remote(4), timeout=seconds)) == 4


# --- what would block an event loop -----------------------------------------------------------------------


async def test_what_would_block_a_running_loop_names_what_to_await(gates: Gates) -> None:
    pending = gates.pending()
    for call, remedy in (
        (lambda: ray.get(pending), "`await ref`"),
        (lambda: ray.get([pending]), "`await asyncray.aio.get(refs)`"),
        (lambda: ray.wait([pending]), "`await asyncray.aio.wait(refs)`"),
        (pending.result, "`await ref`"),
        (pending.exception, "`await ref`"),
        (lambda: next(as_completed([pending])), "`async for ref in asyncray.aio.as_completed(refs)`"),
        (lambda: next(map_unordered(same, [pending])), "`async for ref in asyncray.aio.as_completed(refs)`"),
        (ray.available_resources, "`await asyncray.aio.available_resources()`"),
    ):
        with pytest.raises(RuntimeError) as refused:
            call()
        assert str(refused.value) == f"this would block the running event loop; use {remedy} instead"


async def test_what_need_not_wait_works_on_a_running_loop(gates: Gates) -> None:
    pending, done = gates.pending(), ray.put(1)
    assert ray.get(done) == 1
    assert ray.wait([pending, done]) == ([done], [pending])
    assert ray.wait([pending], timeout=0) == ([], [pending])
    with pytest.raises(GetTimeoutError):
        ray.get(pending, timeout=0)
    ray.cancel(pending)
    assert pending.cancelled()


async def test_a_synchronous_callback_on_a_loop_must_not_wait_either(gates: Gates) -> None:
    pending = gates.pending()
    failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: failure.set_result(failure_of(lambda: ray.get(pending))))
    error = await asyncio.wait_for(failure, LIMIT_S)
    assert isinstance(error, RuntimeError)
    assert "use `await ref` instead" in str(error)


def test_an_async_task_that_would_block_its_worker_is_told_what_to_await() -> None:
    @ray.remote
    async def outer() -> Any:
        return ray.get(same.remote(1))

    with pytest.raises(RuntimeError, match="use `await ref` instead") as caught:
        ray.get(outer.remote(), timeout=LIMIT_S)
    assert isinstance(caught.value, RayTaskError)


def test_a_callback_on_the_sessions_own_thread_must_not_wait(
    gates: Gates, caplog: pytest.LogCaptureFixture
) -> None:
    gate, pending, told = gates.new(), gates.pending(), threading.Event()
    failures: list[BaseException] = []
    ref = gate.ref(1)

    def look(_: object) -> None:
        failures.append(failure_of(lambda: ray.get(pending)))
        told.set()

    ref.add_done_callback(look)
    gate.open()
    assert told.wait(LIMIT_S)
    assert isinstance(failures[0], RuntimeError)
    assert "asyncray's own thread" in str(failures[0])


def test_a_callback_that_raises_is_reported_and_holds_nobody_up(
    gates: Gates, caplog: pytest.LogCaptureFixture
) -> None:
    gate = gates.new()
    ref = gate.ref(1)
    told = threading.Event()
    for kind in (ZeroDivisionError, SystemExit):
        ref.add_done_callback(lambda _, kind=kind: (_ for _ in ()).throw(kind("in a callback")))  # type: ignore[misc]
    after = same.remote(ref)
    ref.add_done_callback(lambda _: told.set())
    gate.open()
    assert ray.get(after, timeout=LIMIT_S) == 1
    assert told.wait(LIMIT_S)
    reports = [record for record in caplog.records if "callback of an ObjectRef raised" in record.message]
    assert [record.exc_info[0] for record in reports if record.exc_info] == [ZeroDivisionError, SystemExit]


# --- large things -------------------------------------------------------------------------------------------


def hints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "asyncray.put(value)" in record.message]


@ray.remote
def size_of(value: Any, *more: Any) -> int:
    return len(value)


@pytest.mark.parametrize("kind", ["bytes", "list"])
def test_the_same_large_argument_given_many_times_earns_one_hint(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    large: Any = bytes(2_000_000) if kind == "bytes" else ["x" * 20] * 2 + [str(i) for i in range(300_000)]
    function = size_of.options(name=f"measure_{kind}")
    refs = [function.remote(large, position) for position in range(8)]
    assert ray.get(refs, timeout=LIMIT_S) == [len(large)] * 8
    (hint,) = hints(caplog)
    assert hint.startswith(f"measure_{kind} was called 3 times with the same large argument (")


def test_different_large_arguments_earn_no_hint(caplog: pytest.LogCaptureFixture) -> None:
    function = size_of.options(name="measure_different")
    refs = [function.remote(bytes([position]) * 2_000_000, "same", 0) for position in range(8)]
    assert ray.get(refs, timeout=LIMIT_S) == [2_000_000] * 8
    assert hints(caplog) == []
