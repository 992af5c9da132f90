"""What do calls of actors cost, and actors themselves?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..harness import Bench, row
from ..targets import TimesRay

if TYPE_CHECKING:
    from collections.abc import Callable

EACH = 1000
CLIENTS = 2


def _classes() -> tuple[type[Any], type[Any], type[Any]]:
    """The actors' classes. Made here they are sent by value: no worker imports the benchmarks for them."""

    class Echo:
        def same(self, value: object = None) -> object:
            return value

    class AsyncEcho:
        async def same(self, value: object = None) -> object:
            return value

    class Client:
        def __init__(self, runtime: str, targets: list[Any]) -> None:
            self.runtime, self.targets = runtime, targets

        def call(self, each: int) -> None:
            import importlib

            runtime = importlib.import_module(self.runtime)
            runtime.get([target.same.remote(1) for target in self.targets for _ in range(each)])

    return Echo, AsyncEcho, Client


_Echo, _AsyncEcho, _Client = _classes()


def made(bench: Bench, cls: type[Any], *args: object) -> Any:
    """An actor of a class."""
    actor_class: Any = bench.runtime.remote(cls)
    return actor_class.remote(*args)


def called(bench: Bench, cls: type[Any]) -> Any:
    """An actor that is up."""
    actor = made(bench, cls)
    bench.runtime.get(actor.same.remote())
    return actor


@row("calls/s", target=TimesRay(5), limit="bare_ping_pong")
def actor_sync(bench: Bench) -> float:
    """How many calls of an actor a second can one caller make one after the other?"""
    return bench.rate(_one_by_one(bench, called(bench, _Echo)))


@row("calls/s", target=TimesRay(10), limit="bare_frames")
def actor_batch_1000(bench: Bench) -> float:
    """How many calls of an actor a second can one caller make with 1000 in flight?"""
    return bench.rate(_batch(bench, called(bench, _Echo)), per_call=EACH)


@row("calls/s", target=TimesRay(7), limit="bare_ping_pong")
def async_actor_sync(bench: Bench) -> float:
    """How many calls of an async actor a second can one caller make one after the other?"""
    return bench.rate(_one_by_one(bench, called(bench, _AsyncEcho)))


@row("calls/s", target=TimesRay(20), limit="bare_frames")
def async_actor_batch_1000(bench: Bench) -> float:
    """How many calls of an async actor a second can one caller make with 1000 in flight?"""
    return bench.rate(_batch(bench, called(bench, _AsyncEcho)), per_call=EACH)


@row("calls/s", target=TimesRay(10))
def actor_one_to_n(bench: Bench) -> float:
    """How many calls a second can one actor make of 2 others?"""
    return _among(bench, clients=1)


@row("calls/s", target=TimesRay(10))
def actor_n_to_n(bench: Bench) -> float:
    """How many calls a second can 2 actors make of 2 others?"""
    return _among(bench, clients=CLIENTS)


@row("actors/s", target=TimesRay(40), limit_s=60.0)
def actor_life(bench: Bench) -> float:
    """How many actors a second can one caller make, call and kill, one after the other?"""
    runtime: Any = bench.runtime

    def live() -> None:
        actor = called(bench, _Echo)
        runtime.kill(actor)

    return bench.rate(live, bursts=1)


def _one_by_one(bench: Bench, actor: Any) -> Callable[[], object]:
    get = bench.runtime.get
    return lambda: get(actor.same.remote())


def _batch(bench: Bench, actor: Any) -> Callable[[], object]:
    get = bench.runtime.get
    return lambda: get([actor.same.remote() for _ in range(EACH)])


def _among(bench: Bench, clients: int) -> float:
    targets = [called(bench, _Echo) for _ in range(2)]
    callers = [made(bench, _Client, bench.runtime.__name__, targets) for _ in range(clients)]
    get = bench.runtime.get
    get([caller.call.remote(1) for caller in callers])
    return bench.rate(
        lambda: get([caller.call.remote(EACH) for caller in callers]), per_call=clients * 2 * EACH, bursts=1
    )
