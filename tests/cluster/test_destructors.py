"""Destructors that use the package: the garbage collector may run them at any line of ours."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import TaskCancelledError
from tests.cluster.garbage import LIMIT_S, Collector, Garbage, within_limit
from tests.cluster.tables import session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.gates import Gates

REFUSED = "a destructor, or a handler of a signal, that interrupted asyncray cannot wait for results"


@ray.remote
def same(value: Any) -> Any:
    return value


@pytest.fixture
def gates(shared_ray: object, gates: Gates) -> Gates:
    return gates


def use_everything() -> None:
    refs = [same.remote(position) for position in range(3)]
    assert ray.get(refs, timeout=LIMIT_S) == [0, 1, 2]
    assert ray.get(same.remote(refs[0]), timeout=LIMIT_S) == 0
    assert ray.get(ray.put([refs[1]]))[0] is refs[1]
    assert len(ray.wait([same.remote(1), same.remote(2)], num_returns=2, timeout=LIMIT_S)[0]) == 2
    doomed = same.remote(same.remote(3))
    ray.cancel(doomed)
    try:
        ray.get(doomed, timeout=LIMIT_S)
    except TaskCancelledError:
        return


ACTIONS: dict[str, Callable[[], Any]] = {
    "remote": lambda: same.remote(7),
    "remote with a reference": lambda: same.remote(same.remote(7)),
    "put": lambda: ray.put(7),
    "get": lambda: ray.put(ray.get(same.remote(7), timeout=LIMIT_S)),
    "wait": lambda: ray.wait([same.remote(7)], timeout=LIMIT_S)[0][0],
}


@pytest.mark.parametrize("how", ["at_every_line", "all_the_time"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_destructor_may_use_the_package_wherever_it_interrupts_it(
    action: str, how: str, shared_ray: object
) -> None:
    collector = Collector(ACTIONS[action])

    def work() -> None:
        with getattr(collector, how)():
            for _ in range(1 if how == "at_every_line" else 10):
                Garbage(collector.last_words)
                use_everything()

    within_limit(work)
    gc.collect()
    assert collector.runs >= 10
    assert ray.get(collector.refs, timeout=LIMIT_S) == [7] * len(collector.refs)
    assert set(collector.errors) <= {REFUSED}
    if action in ("get", "wait"):
        assert collector.errors or how == "all_the_time"
    else:
        assert not collector.errors


def test_a_destructor_may_cancel_wherever_it_interrupts_the_package(gates: Gates) -> None:
    pending = gates.pending()
    doomed = [same.remote(pending) for _ in range(2000)]
    collector = Collector(lambda: ray.cancel(doomed.pop()))

    def work() -> None:
        with collector.at_every_line():
            use_everything()

    cancelled = list(doomed)
    within_limit(work)
    for ref in cancelled[len(doomed) :]:
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=LIMIT_S)
    assert not any(ref.done() for ref in doomed)
    ray.cancel(*doomed)


def test_a_task_whose_garbage_uses_the_package_is_done(shared_ray: object) -> None:
    @ray.remote
    def littering() -> list[int]:
        collector = Collector(lambda: ray.get(same.remote(7), timeout=LIMIT_S))
        with collector.all_the_time():
            values = []
            for position in range(20):
                Garbage(collector.last_words)
                values.append(ray.get(same.remote(position), timeout=LIMIT_S))
        return values

    assert ray.get([littering.remote() for _ in range(4)], timeout=LIMIT_S) == [list(range(20))] * 4


class Echo:
    def same(self, value: int) -> int:
        return value


def test_a_handler_of_a_signal_is_refused_a_wait_where_it_interrupts_a_send(shared_ray: object) -> None:
    actor: Any = ray.remote(Echo).remote()
    assert ray.get(actor.same.remote(0)) == 0
    [lease] = [found for owned in session().actors.owned.values() if (found := owned.lease) is not None]
    encoder = lease.link.connection._encoder
    pack, refused, refs = encoder._pack, [], []

    def handler(number: int, frame: object) -> None:
        refs.append(actor.same.remote(2))
        try:
            ray.get(refs[0], timeout=LIMIT_S)
        except RuntimeError as error:
            refused.append(str(error))

    def pack_interrupted(message: Any) -> Any:
        # The lock of the connection is held here: what the handler calls for cannot be sent yet.
        encoder._pack = pack
        signal.raise_signal(signal.SIGUSR1)
        return pack(message)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        encoder._pack = pack_interrupted
        assert ray.get(actor.same.remote(1), timeout=LIMIT_S) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert refused == [REFUSED]
    assert ray.get(refs, timeout=LIMIT_S) == [2]
