"""References and functions outlive their session: a reference is refused then, a function starts another."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.exceptions import SessionClosedError
from asyncray.util import as_completed
from tests.cluster.garbage import Collector, within_limit
from tests.cluster.gates import Gates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asyncray import ObjectRef

LIMIT_S = 20


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
def put_large() -> Any:
    return [ray.put(bytes(1_000_000))]


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    made = Gates(tmp_path)
    yield made
    made.close()


def past(gates: Gates) -> dict[str, ObjectRef[Any]]:
    """References of a session that has ended, in every state that they can have."""
    ray.init(num_cpus=2)
    refs = {
        "put": ray.put([1]),
        "done": same.remote(2),
        "pending": gates.pending(),
        "large": ray.put(bytes(10**6)),
    }
    (refs["borrowed"],) = ray.get(put_large.remote(), timeout=LIMIT_S)
    assert ray.wait([refs["borrowed"]], timeout=LIMIT_S, fetch_local=False)[0]
    (refs["borrowed and unknown"],) = ray.get(put_large.remote(), timeout=LIMIT_S)
    assert ray.get(refs["done"], timeout=LIMIT_S) == 2
    ray.shutdown()
    return refs


@pytest.fixture
def next_session() -> Iterator[None]:
    yield
    ray.shutdown()


def check_refused(call: Callable[[], Any], name: str) -> None:
    with pytest.raises(SessionClosedError) as refused:
        call()
    assert "session" in str(refused.value), name


def test_a_reference_of_an_earlier_session_is_refused_everywhere(gates: Gates, next_session: None) -> None:
    refs = past(gates)
    for between in (None, lambda: ray.init(num_cpus=2, ignore_reinit_error=True)):
        if between is not None:
            between()
        for name, ref in refs.items():
            for call in (
                lambda ref=ref: ray.get(ref, timeout=LIMIT_S),
                lambda ref=ref: ray.get([ref], timeout=LIMIT_S),
                lambda ref=ref: ref.result(LIMIT_S),
                lambda ref=ref: ray.cancel(ref),
                lambda ref=ref: asyncio.run(aio.get(ref, timeout=LIMIT_S)),
                lambda ref=ref: asyncio.run(aio.cancel(ref)),
                lambda ref=ref: next(as_completed([ref])),
            ):
                check_refused(call, name)
    for name, ref in refs.items():
        for call in (
            lambda ref=ref: ray.wait([ref], timeout=LIMIT_S),
            lambda ref=ref: asyncio.run(aio.wait([ref], timeout=LIMIT_S)),
            lambda ref=ref: same.remote(ref),
            lambda ref=ref: same.remote(value=ref),
            lambda ref=ref: same.remote([ref]),
            lambda ref=ref: ray.put([ref]),
            lambda ref=ref: ray.remote(lambda: ref).remote(),
        ):
            check_refused(call, name)
        assert ref.done()
        assert repr(ref) == f"ObjectRef({ref.hex()})"
    assert ray.get(same.remote(3), timeout=LIMIT_S) == 3


def test_a_new_reference_among_old_ones_does_not_help(gates: Gates, next_session: None) -> None:
    old = past(gates)["done"]
    ray.init(num_cpus=2)
    new = gates.pending()
    check_refused(lambda: ray.get([new, old], timeout=LIMIT_S), "get")
    check_refused(lambda: ray.get([old, new], timeout=LIMIT_S), "get")
    check_refused(lambda: ray.wait([new, old], timeout=LIMIT_S), "wait")
    check_refused(lambda: ray.cancel(old, new), "cancel")


def test_a_function_that_captured_an_old_reference_says_so_at_its_next_call(
    gates: Gates, next_session: None
) -> None:
    refs: dict[str, ObjectRef[Any]] = {}

    @ray.remote
    def use() -> Any:
        return ray.get(refs["one"])

    ray.init(num_cpus=2)
    refs["one"] = ray.put(1)
    assert ray.get(use.remote(), timeout=LIMIT_S) == 1
    ray.shutdown()
    ray.init(num_cpus=2)
    check_refused(use.remote, "closure")
    refs["one"] = ray.put(2)
    assert ray.get(use.remote(), timeout=LIMIT_S) == 2


def test_after_a_shutdown_the_next_call_starts_a_session(next_session: None) -> None:
    ray.init(num_cpus=1)
    ray.shutdown()
    assert not ray.is_initialized()
    assert ray.get(same.remote(1), timeout=LIMIT_S) == 1
    assert ray.is_initialized()


@pytest.mark.parametrize("how", ["get", "wait", "result", "await"])
def test_whoever_waits_when_the_session_is_shut_down_hears_of_it(
    how: str, gates: Gates, next_session: None
) -> None:
    ray.init(num_cpus=2)
    pending = gates.pending()
    waiting, heard = threading.Event(), []

    def wait_for_it() -> None:
        try:
            waits[how]()
        except SessionClosedError as error:
            heard.append(str(error))

    waits: dict[str, Callable[[], Any]] = {
        "get": lambda: ray.get([pending]),
        "wait": lambda: ray.get(ray.wait([pending])[0]),
        "result": pending.result,
        "await": lambda: asyncio.run(aio.get(pending)),
    }
    thread = threading.Thread(target=wait_for_it)
    pending.add_done_callback(lambda _: waiting.set())
    thread.start()
    ray.shutdown()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    (told,) = heard
    assert "shut down" in told
    assert waiting.is_set()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"num_cpu": 1}, RuntimeError, "unknown keyword of init 'num_cpu'; did you mean 'num_cpus'?"),
        ({"address": "auto"}, ValueError, "address='auto' cannot be reached: clusters are not there yet"),
        ({"num_cpus": -1}, ValueError, "num_cpus must be a finite number >= 0, not -1"),
        ({"num_cpus": "1"}, TypeError, "num_cpus must be a finite number >= 0, not '1' of type str"),
        ({"num_cpus": 1e300}, ValueError, "num_cpus must be below"),
        ({"object_store_memory": 10**20}, ValueError, "object_store_memory must be below"),
        ({"namespace": "\ud800"}, ValueError, "namespace must be text that UTF-8 can encode"),
        ({"_system_config": {"max_frame_byte": 1}}, ValueError, "did you mean 'max_frame_bytes'"),
    ],
)
def test_a_wrong_option_of_init_is_refused_and_starts_nothing(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as refused:
        ray.init(**options)
    assert text in str(refused.value)
    assert not ray.is_initialized()


def test_a_function_that_is_too_large_is_refused_with_its_size(next_session: None) -> None:
    ray.init(num_cpus=1, _system_config={"function_max_bytes": 100_000, "function_warn_bytes": 100_000})
    large = bytes(200_000)

    @ray.remote
    def use() -> int:
        return len(large)

    with pytest.raises(ValueError, match=r"use' is 20\d{4} bytes when pickled; at most 100000 are allowed"):
        use.remote()
    assert ray.get(same.remote(1), timeout=LIMIT_S) == 1


def test_more_scalars_than_a_frame_holds_are_refused_with_their_size(next_session: None) -> None:
    ray.init(num_cpus=1, _system_config={"max_frame_bytes": 64 * 1024})

    @ray.remote
    def count(*values: object) -> int:
        return len(values)

    assert ray.get(count.remote(*range(5000)), timeout=LIMIT_S) == 5000
    with pytest.raises(ValueError, match=r"count' take 54000 bytes; at most 49152 can be sent with a call"):
        count.remote(*range(6000))
    with pytest.raises(ValueError, match="take 50200 bytes"):
        count.remote(*["ä" * 1000] * 10, *["x" * 1000] * 30)
    assert ray.get(count.remote(*["ä" * 1000] * 8), timeout=LIMIT_S) == 8


def test_the_context_and_the_iterators_of_a_session_end_with_it(next_session: None) -> None:
    with ray.init(num_cpus=1) as context:
        results = as_completed([same.remote(position) for position in range(3)])
        assert next(results) in range(3)
    assert not ray.is_initialized()
    with pytest.raises(SessionClosedError):
        list(results)
    context.disconnect()


def test_a_destructor_in_the_middle_of_a_start_or_an_end_is_told_so(next_session: None) -> None:
    collector = Collector(lambda: ray.put(7))

    def work() -> None:
        with collector.at_every_line():
            # One that comes before the start has begun starts a session itself.
            ray.init(num_cpus=1, ignore_reinit_error=True)
            ray.shutdown()

    within_limit(work)
    ray.shutdown()
    assert set(collector.errors) <= {
        "a destructor that interrupted the start or end of a session cannot use one",
        "the session has been shut down",
    }
    assert collector.errors
