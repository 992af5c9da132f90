"""Actors: how they run several calls, what ends them, what is cancelled in them, what they stream."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.compat.harness import Ray, caught, expects


class Gate:
    """Calls wait for each other; with threads."""

    def __init__(self) -> None:
        self.together = threading.Barrier(3)

    def meet(self) -> int:
        self.together.wait(20)
        return 1

    def pid(self) -> int:
        return os.getpid()


class Talker:
    """Streams, and is cancelled."""

    def __init__(self) -> None:
        self.told = ""

    def count(self, most: int) -> Iterator[int]:
        yield from (number for number in range(most))  # Ray sends to it, which a range does not take

    def fails(self) -> Iterator[int]:
        yield 1
        raise ValueError("no")

    def until_canceled(self, ray: str) -> str:
        import importlib

        context = importlib.import_module(ray).get_runtime_context()
        self.told = "runs"
        while not context.is_canceled():
            time.sleep(0.01)
        self.told = "was cancelled"
        return "ended"

    def ready(self) -> str:
        return self.told


class AsyncTalker:
    """The same with coroutines."""

    async def acount(self, most: int) -> AsyncIterator[int]:
        for number in range(most):
            await asyncio.sleep(0)
            yield number

    def count(self, most: int) -> Iterator[int]:
        yield from (number for number in range(most))  # Ray sends to it, which a range does not take

    async def asks(self, ray: str) -> object:
        import importlib

        return caught(RuntimeError, importlib.import_module(ray).get_runtime_context().is_canceled)


@expects([1, 1, 1])
def threads_of_an_actor_run_at_the_same_time(ray: Ray) -> object:
    gate = ray.remote(Gate).options(max_concurrency=3).remote()
    return ray.get([gate.meet.remote() for _ in range(3)])


@expects([[1, 1, 1], True])
def groups_of_an_actor_run_beside_each_other(ray: Ray) -> object:
    class Grouped(Gate):
        @ray.method(concurrency_group="io")
        def read(self) -> bool:
            return True

    grouped = ray.remote(concurrency_groups={"io": 1, "work": 3})(Grouped).remote()
    meeting = [grouped.meet.options(concurrency_group="work").remote() for _ in range(2)]
    read = ray.get(grouped.read.remote())
    return [ray.get([*meeting, grouped.meet.options(concurrency_group="work").remote()]), read]


@expects([["ValueError"], ["ValueError"], ["ValueError"], ["ValueError"], ["ValueError"], ["TypeError"]])
def options_of_actors_are_checked(ray: Ray) -> object:
    gate = ray.remote(Gate)
    return [
        caught(ValueError, gate.options, no_such_option=1),
        caught(
            ValueError, lambda: ray.remote(AsyncTalker).options(allow_out_of_order_execution=False).remote()
        ),
        caught(ValueError, lambda: gate.options(get_if_exists=True).remote()),
        caught(ValueError, lambda: gate.options(lifetime="forever").remote()),
        caught(ValueError, gate.options, concurrency_groups={"io": 1}),
        caught(TypeError, lambda: gate.remote(1, 2)),
    ]


@expects([[0, 1, 2], [1, ["ValueError"]]])
def a_generator_method_streams(ray: Ray) -> object:
    talker = ray.remote(Talker).remote()
    failing = talker.fails.remote()
    first = ray.get(next(failing))
    return [
        [ray.get(ref) for ref in talker.count.remote(3)],
        [first, caught(ValueError, lambda: ray.get(next(failing)))],
    ]


@expects([[0, 1, 2], [0, 1]])
def a_generator_method_streams_from_a_thread(ray: Ray) -> object:
    talker = ray.remote(Talker).options(max_concurrency=2).remote()
    one, other = talker.count.remote(3), talker.count.remote(2)
    return [[ray.get(ref) for ref in one], [ray.get(ref) for ref in other]]


@expects([[0, 1, 2], [0, 1]])
def a_generator_method_of_an_async_actor_streams(ray: Ray) -> object:
    talker = ray.remote(AsyncTalker).remote()
    return [
        [ray.get(ref) for ref in talker.acount.remote(3)],
        [ray.get(ref) for ref in talker.count.remote(2)],
    ]


@expects([["TaskCancelledError"], "was cancelled"])
def a_method_is_told_that_it_is_cancelled(ray: Ray) -> object:
    talker = ray.remote(Talker).options(max_concurrency=2).remote()
    ref = talker.until_canceled.remote(ray.__name__)
    while ray.get(talker.ready.remote()) != "runs":
        time.sleep(0.01)
    ray.cancel(ref)
    error = caught(ray.exceptions.TaskCancelledError, ray.get, ref)
    while (told := ray.get(talker.ready.remote())) == "runs":
        time.sleep(0.01)
    return [error, told]


@expects([["RuntimeError"], ["RuntimeError"]])
def only_methods_without_a_loop_ask_whether_they_are_cancelled(ray: Ray) -> object:
    talker = ray.remote(AsyncTalker).remote()
    return [
        ray.get(talker.asks.remote(ray.__name__)),
        caught(RuntimeError, ray.get_runtime_context().is_canceled),
    ]


@expects([["TaskCancelledError"], 1])
def a_call_that_waits_for_its_turn_is_cancelled(ray: Ray) -> object:
    class Slow:
        def work(self, seconds: float) -> int:
            time.sleep(seconds)
            return 1

    slow = ray.remote(Slow).remote()
    first, waiting = slow.work.remote(0.5), slow.work.remote(60)
    ray.cancel(waiting)
    return [caught(ray.exceptions.TaskCancelledError, ray.get, waiting), ray.get(first)]


@expects([["ActorDiedError"], ["ActorDiedError"]])
def an_actor_leaves_by_itself(ray: Ray) -> object:
    class Leaver:
        def leave(self, name: str) -> None:
            import importlib

            importlib.import_module(name).actor.exit_actor()

        def ready(self) -> None: ...

    leaver = ray.remote(Leaver).remote()
    died = ray.exceptions.ActorDiedError
    first = caught(died, ray.get, leaver.leave.remote(ray.__name__))
    return [first, caught(died, ray.get, leaver.ready.remote())]


@expects([False, True, True])
def a_killed_actor_that_may_starts_again(ray: Ray) -> object:
    class Again:
        def reborn(self, name: str) -> tuple[bool, int]:
            import importlib

            context = importlib.import_module(name).get_runtime_context()
            return context.was_current_actor_reconstructed, os.getpid()

    again = ray.remote(Again).options(max_restarts=1, max_task_retries=-1).remote()
    before, pid = ray.get(again.reborn.remote(ray.__name__))
    ray.kill(again, no_restart=False)
    while True:
        after, other = ray.get(again.reborn.remote(ray.__name__))
        if other != pid:
            return [before, after, other != pid]
        time.sleep(0.05)


@expects([["ActorDiedError"], ["ValueError"]])
def the_handle_of_a_name_keeps_no_actor_alive(ray: Ray) -> object:
    gate = ray.remote(Gate).options(name="weak").remote()
    pid = ray.get(gate.pid.remote())
    weak = ray.get_actor("weak")
    del gate
    while os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 - as short in both
        time.sleep(0.05)
    return [
        caught(ray.exceptions.ActorDiedError, ray.get, weak.pid.remote()),
        caught(ValueError, ray.get_actor, "weak"),
    ]


@expects([["ActorDiedError"], True])
def an_actor_dies_with_its_maker_and_a_detached_one_does_not(ray: Ray) -> object:
    class Maker:
        def make(self, name: str, cls: Any) -> list[Any]:
            import importlib

            module = importlib.import_module(name)
            kept = module.remote(cls).options(lifetime="detached", name="outlives").remote()
            module.get(kept.pid.remote())
            return [module.remote(cls).remote()]

    maker = ray.remote(Maker).remote()
    (dies,) = ray.get(maker.make.remote(ray.__name__, Gate))
    ray.get(dies.pid.remote())
    ray.kill(maker)
    while True:
        try:
            ray.get(dies.pid.remote())
        except ray.exceptions.RayActorError:
            break
    outlives = ray.get_actor("outlives")
    alive = ray.get(outlives.pid.remote()) > 0
    ray.kill(outlives)
    return [caught(ray.exceptions.ActorDiedError, ray.get, dies.pid.remote()), alive]


@expects([["PendingCallsLimitExceeded"], 3])
def pending_calls_are_limited(ray: Ray) -> object:
    class Slow:
        def work(self, seconds: float) -> int:
            time.sleep(seconds)
            return 1

    limited = ray.remote(Slow).options(max_pending_calls=2).remote()
    refs = [limited.work.remote(0.5) for _ in range(2)]
    error = caught(ray.exceptions.PendingCallsLimitExceeded, limited.work.remote, 0)
    free = ray.remote(Slow).options(max_pending_calls=0).remote()
    ray.get(refs)
    return [error, sum(ray.get([free.work.remote(0) for _ in range(3)]))]


@expects([[1, [True]], 4])
def arguments_are_values_and_what_they_contain_are_references(ray: Ray) -> object:
    class Taker:
        def take(self, value: int, items: list[Any]) -> list[Any]:
            return [value, [type(item).__name__ == "ObjectRef" for item in items]]

        def add(self, one: int, two: int) -> int:
            return one + two

    taker = ray.remote(Taker).remote()
    one = ray.put(1)
    total = taker.add.remote(taker.add.remote(one, one), two=2)
    return [ray.get(taker.take.remote(one, [one])), ray.get(total)]


@expects([["inner"], ["outer", "inner"]])
def names_are_listed_and_namespaces_part_them(ray: Ray) -> object:
    gate = ray.remote(Gate)
    outer = gate.options(name="outer", namespace="elsewhere").remote()
    inner = gate.options(name="inner").remote()
    ray.get([outer.pid.remote(), inner.pid.remote()])
    here = [name for name in ray.util.list_named_actors() if name in ("outer", "inner")]
    all_names = [item["name"] for item in ray.util.list_named_actors(all_namespaces=True)]
    return [here, [name for name in ("outer", "inner") if name in all_names]]
