"""util.as_completed and util.map_unordered: results in the order they are there."""

from typing import Any

from tests.compat.harness import Ray, caught, expects, finished, pending


@expects([0, 1, 2, 3, 4])
def as_completed_yields_every_value_once(ray: Ray) -> object:
    @ray.remote
    def same(value: int) -> int:
        return value

    return sorted(ray.util.as_completed([same.remote(value) for value in range(5)]))


@expects([True, [0, 1, 2]])
def as_completed_yields_refs_where_asked_to(ray: Ray) -> object:
    refs = finished(ray, 0, 1, 2)
    yielded = list(ray.util.as_completed(refs, yield_obj_refs=True))
    return [set(yielded) == set(refs), sorted(ray.get(yielded))]


@expects([])
def as_completed_of_nothing_is_nothing(ray: Ray) -> object:
    return list(ray.util.as_completed([]))


@expects([1, 2])
def as_completed_yields_what_is_there_before_what_is_not(ray: Ray) -> object:
    late = pending(ray)
    results = ray.util.as_completed([late, *finished(ray, 1, 2)], chunk_size=1)
    first_two = [next(results), next(results)]
    ray.cancel(late)
    return sorted(first_two)


@expects(["ValueError", "RayTaskError"])
def as_completed_raises_what_a_task_raised(ray: Ray) -> object:
    @ray.remote
    def fail() -> None:
        raise ValueError("in the middle")

    return caught((ValueError, ray.exceptions.RayTaskError), list, ray.util.as_completed([fail.remote()]))


@expects([0, 1, 4, 9, 16])
def map_unordered_yields_the_result_of_every_item(ray: Ray) -> object:
    @ray.remote
    def square(x: int) -> int:
        return x * x

    return sorted(ray.util.map_unordered(square, range(5)))


@expects([0, 1, 4, 9, 16])
def map_unordered_takes_an_iterator_and_keeps_few_in_flight(ray: Ray) -> object:
    @ray.remote
    def square(x: int) -> int:
        return x * x

    squares: Any = ray.util.map_unordered(square, iter(range(5)), backpressure_size=2, chunk_size=1)
    return sorted(squares)


@expects([])
def map_unordered_of_nothing_is_nothing(ray: Ray) -> object:
    @ray.remote
    def same(x: int) -> int:
        return x

    return list(ray.util.map_unordered(same, []))


@expects(["KeyError", "RayTaskError"])
def map_unordered_raises_what_a_task_raised(ray: Ray) -> object:
    @ray.remote
    def fail(x: int) -> None:
        raise KeyError(x)

    return caught((KeyError, ray.exceptions.RayTaskError), list, ray.util.map_unordered(fail, [1]))
