"""Actors: state, order, errors, handles on their ways, ends, restarts, names, kinds, helpers."""

import asyncio
import os
import signal
import time
from typing import Any

from tests.compat.harness import Ray, caught, expects


class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[int] = []

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def note(self, number: int) -> None:
        self.seen.append(number)

    def noted(self) -> list[int]:
        return self.seen

    def fail(self) -> None:
        raise ValueError("no")

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@expects([11, 16, 20])
def an_actor_keeps_its_state(ray: Ray) -> object:
    counter = ray.remote(Counter).remote(10)
    return ray.get([counter.add.remote(), counter.add.remote(5), counter.add.remote(amount=4)])


@expects(True)
def calls_run_in_the_order_made(ray: Ray) -> object:
    counter = ray.remote(Counter).remote()
    for number in range(200):
        counter.note.remote(number)
    return ray.get(counter.noted.remote()) == list(range(200))


@expects([["RayTaskError", "ValueError"], 1])
def a_method_raises_and_the_actor_lives(ray: Ray) -> object:
    counter = ray.remote(Counter).remote()
    kinds = (ray.exceptions.RayTaskError, ValueError)
    return [caught(kinds, ray.get, counter.fail.remote()), ray.get(counter.add.remote())]


@expects([["RayActorError", "ActorDiedError"], ["RayActorError", "ActorDiedError"]])
def a_constructor_that_raises_fails_every_call(ray: Ray) -> object:
    class Broken:
        def __init__(self) -> None:
            raise KeyError("broken")

        def work(self) -> None: ...

    broken = ray.remote(Broken).remote()
    kinds = (ray.exceptions.RayActorError, ray.exceptions.ActorDiedError)
    return [caught(kinds, ray.get, broken.work.remote()) for _ in range(2)]


@expects([1, 2, 3])
def handles_go_to_tasks_and_actors_and_back(ray: Ray) -> object:
    class Holder:
        def __init__(self, counter: Any) -> None:
            self.counter = counter

        def add(self) -> int:
            return int(ray.get(self.counter.add.remote()))

        def give(self) -> list[Any]:
            return [self.counter]

    @ray.remote
    def add(counter: Any) -> int:
        return int(ray.get(counter.add.remote()))

    counter = ray.remote(Counter).remote()
    holder = ray.remote(Holder).remote(counter)
    first, second = ray.get(add.remote(counter)), ray.get(holder.add.remote())
    return [first, second, ray.get(ray.get(holder.give.remote())[0].add.remote())]


@expects([3, -3])
def a_method_has_several_returns(ray: Ray) -> object:
    class Pair:
        @ray.method(num_returns=2)
        def both(self) -> tuple[int, int]:
            return 3, -3

    return ray.get(ray.remote(Pair).remote().both.remote())


@expects([["AttributeError"], ["TypeError"], ["TypeError"]])
def misuse_is_refused(ray: Ray) -> object:
    counter_class = ray.remote(Counter)
    counter = counter_class.remote()
    return [
        caught(AttributeError, getattr, counter, "nothing"),
        caught(TypeError, counter_class),
        caught(TypeError, counter.add),
    ]


@expects([["ActorDiedError"], ["ActorDiedError"]])
def a_killed_actor_is_dead(ray: Ray) -> object:
    killed, crashed = ray.remote(Counter).remote(), ray.remote(Counter).remote()
    ray.get(killed.add.remote())
    ray.kill(killed)
    died = ray.exceptions.ActorDiedError
    return [caught(died, ray.get, killed.add.remote()), caught(died, ray.get, crashed.crash.remote())]


class Killer:
    """Does not own what it kills."""

    def kill(self, ray: str, actors: list[Any]) -> list[Any]:
        import importlib

        module = importlib.import_module(ray)
        module.get(actors[0].add.remote())
        module.kill(actors[0])
        refs = [actors[0].add.remote() for _ in range(5)]
        return [caught(module.exceptions.ActorDiedError, module.get, ref) for ref in refs]


@expects([["ActorDiedError"]] * 5)
def who_kills_others_actor_is_not_answered_by_it_any_more(ray: Ray) -> object:
    counter = ray.remote(Counter).remote()
    ray.get(counter.add.remote())
    return ray.get(ray.remote(Killer).remote().kill.remote(ray.__name__, [counter]))


@expects([["RayActorError"], 1])
def a_crashed_actor_starts_again(ray: Ray) -> object:
    counter = ray.remote(Counter).options(max_restarts=1, max_task_retries=0).remote()
    ray.get(counter.add.remote())
    error = caught(ray.exceptions.RayActorError, ray.get, counter.crash.remote())
    while True:
        try:
            return [error, ray.get(counter.add.remote())]
        except ray.exceptions.ActorUnavailableError:
            time.sleep(0.1)


@expects([1, 2, ["ValueError"], 3, ["ValueError"]])
def a_named_actor_is_found(ray: Ray) -> object:
    counter_class = ray.remote(Counter)
    counter = counter_class.options(name="compat").remote()
    found: list[object] = [ray.get(counter.add.remote())]
    found.append(ray.get(ray.get_actor("compat").add.remote()))
    found.append(caught(ValueError, counter_class.options(name="compat").remote))
    again = counter_class.options(name="compat", get_if_exists=True).remote()
    found.append(ray.get(again.add.remote()))
    found.append(caught(ValueError, ray.get_actor, "nobody"))
    return found


@expects([[0, 1, 2], 3])
def coroutines_of_an_actor_run_at_the_same_time(ray: Ray) -> object:
    class Door:
        def __init__(self) -> None:
            self.waiting = 0
            self.event = asyncio.Event()

        async def wait(self, value: int) -> int:
            self.waiting += 1
            if self.waiting == 3:
                self.event.set()
            await self.event.wait()
            return value

        def count(self) -> int:
            return self.waiting

    door = ray.remote(Door).remote()
    return [ray.get([door.wait.remote(number) for number in range(3)]), ray.get(door.count.remote())]


@expects([True, 7])
def every_actor_has_built_in_methods(ray: Ray) -> object:
    counter = ray.remote(Counter).remote(3)
    called = counter.__ray_call__.remote(lambda self, more: self.value + more, 4)
    return ray.get([counter.__ray_ready__.remote(), called])


@expects([["ValueError"], ["TaskCancelledError"]])
def a_call_that_runs_as_a_coroutine_is_cancelled(ray: Ray) -> object:
    class Sleeper:
        async def sleep(self) -> None:
            await asyncio.sleep(60)

        async def ready(self) -> None: ...

    sleeper = ray.remote(Sleeper).remote()
    ray.get(sleeper.ready.remote())
    ref = sleeper.sleep.remote()
    force = caught(ValueError, lambda: ray.cancel(ref, force=True))
    ray.cancel(ref)
    return [force, caught(ray.exceptions.TaskCancelledError, ray.get, ref)]


@expects([[0, 2, 4, 6], [0, 2, 4, 6]])
def a_pool_maps(ray: Ray) -> object:
    class Doubler:
        def double(self, value: int) -> int:
            return 2 * value

    pool = ray.util.ActorPool([ray.remote(Doubler).remote() for _ in range(2)])
    ordered = list(pool.map(lambda actor, value: actor.double.remote(value), range(4)))
    return [ordered, sorted(pool.map_unordered(lambda actor, value: actor.double.remote(value), range(4)))]


@expects([1, 2, ["Empty"], ["Full"]])
def a_queue_is_first_in_first_out(ray: Ray) -> object:
    import importlib

    module: Any = importlib.import_module(f"{ray.__name__}.util.queue")
    queue = module.Queue(maxsize=1)
    queue.put(1)
    first = queue.get()
    queue.put(2)
    full = caught(module.Full, queue.put_nowait, 3)
    return [first, queue.get(), caught(module.Empty, queue.get_nowait), full]


@expects([["TypeError"]] * 5)
def arguments_that_do_not_fit_are_refused_where_they_are_given(ray: Ray) -> object:
    counter = ray.remote(Counter).remote()
    return [
        caught(TypeError, counter.add.remote, amout=1),
        caught(TypeError, counter.add.remote, 1, 2),
        caught(TypeError, lambda: counter.add.remote(1, amount=2)),
        caught(TypeError, counter.note.remote),
        caught(TypeError, counter.__ray_ready__.remote, 1),
    ]


@expects([["ValueError"], ["ValueError"]])
def what_does_not_fit_is_refused(ray: Ray) -> object:
    counter = ray.remote(Counter).remote()
    get_actor: Any = ray.get_actor
    return [
        caught(ValueError, lambda: counter.add.options(num_returns="streaming").remote()),
        caught(ValueError, get_actor, "anybody", ""),
    ]


@expects([True, 6, "audit", 2])
def an_actor_hands_itself_out(ray: Ray) -> object:
    import importlib

    context: Any = importlib.import_module(ray.__name__).get_runtime_context

    class Self:
        def me(self) -> Any:
            return context().current_actor

        def add(self, value: int) -> int:
            return value + 1

        def name(self) -> Any:
            return context().get_task_name()

        def __len__(self) -> int:
            return 2

    actor = ray.remote(Self).remote()
    me = ray.get(actor.me.remote())
    named = actor.name.options(name="audit")
    return [me == actor, *ray.get([me.add.remote(5), named.remote(), actor.__len__.remote()])]


@expects([[[1, -1], [2, -2]], 3])
def a_pool_returns_all_values_of_a_call(ray: Ray) -> object:
    class Both:
        def both(self, value: int) -> tuple[int, int]:
            return value, -value

    pool = ray.util.ActorPool([ray.remote(Both).remote()])
    both = [
        list(pair)
        for pair in pool.map(lambda actor, value: actor.both.options(num_returns=2).remote(value), [1, 2])
    ]

    def broken(actor: Any, value: int) -> Any:
        raise KeyError(value)

    caught(KeyError, pool.submit, broken, 1)
    pool = ray.util.ActorPool([ray.remote(Counter).remote()])
    pool.submit(lambda actor, value: actor.add.remote(value), 3)
    return [both, pool.get_next()]
