"""Nested tasks: tasks submit tasks, wait for them and pass on their refs, on two CPUs without deadlock."""

from typing import Any

from tests.compat.harness import Ray, expects


@expects([0, 2, 8, 18])
def tasks_submit_tasks_and_wait_for_them(ray: Ray) -> object:
    @ray.remote
    def square(x: int) -> int:
        return x * x

    @ray.remote
    def twice(x: int) -> int:
        return int(sum(ray.get([square.remote(x), square.remote(x)])))

    return ray.get([twice.remote(x) for x in range(4)])


@expects(6)
def waiting_tasks_as_deep_as_three_times_the_cpus_do_not_deadlock(ray: Ray) -> object:
    @ray.remote
    def descend(levels: int) -> int:
        return 0 if levels == 0 else 1 + int(ray.get(descend.remote(levels - 1)))

    return ray.get(descend.remote(6))


@expects([1, 1, 2, 3, 5, 8])
def a_task_calls_itself(ray: Ray) -> object:
    @ray.remote
    def fibonacci(n: int) -> int:
        return n if n < 2 else int(sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)])))

    return [ray.get(fibonacci.remote(n)) for n in range(1, 7)]


@expects([3, 1])
def a_task_waits_with_wait(ray: Ray) -> object:
    @ray.remote
    def same(x: int) -> int:
        return x

    @ray.remote
    def outer() -> object:
        ready, unready = ray.wait([same.remote(x) for x in range(4)], num_returns=3)
        return [len(ready), len(unready)]

    return ray.get(outer.remote())


@expects([0, 1, 4])
def refs_outlive_the_task_that_submitted_them(ray: Ray) -> object:
    @ray.remote
    def square(x: int) -> int:
        return x * x

    @ray.remote
    def submit() -> list[Any]:
        return [square.remote(x) for x in range(3)]

    return ray.get(ray.get(submit.remote()))


@expects([1, 2, 3, 5, 8, 9])
def a_quicksort_sorts_by_tasks(ray: Ray) -> object:
    @ray.remote
    def quicksort(items: list[int]) -> list[int]:
        if len(items) < 2:
            return items
        pivot, *rest = items
        sides = [x for x in rest if x < pivot], [x for x in rest if x >= pivot]
        less, more = ray.get([quicksort.remote(side) for side in sides])
        return [*less, pivot, *more]

    return ray.get(quicksort.remote([3, 9, 1, 8, 2, 5]))


@expects(42)
def a_ref_given_to_a_task_can_be_given_on(ray: Ray) -> object:
    @ray.remote
    def fetch(boxed: list[Any]) -> int:
        return int(ray.get(boxed[0]))

    @ray.remote
    def pass_on(boxed: list[Any]) -> Any:
        return fetch.remote(boxed)

    return ray.get(ray.get(pass_on.remote([ray.put(42)])))


@expects([5, 5])
def a_task_puts_what_its_caller_gets(ray: Ray) -> object:
    @ray.remote
    def store(value: int) -> list[Any]:
        return [ray.put(value), ray.put(value)]

    return ray.get(ray.get(store.remote(5)))
