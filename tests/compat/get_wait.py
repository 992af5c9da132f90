"""get and wait: order, duplicates, counts, timeouts, and what is refused.

Both libraries keep the list's order in both lists that `wait` returns. Where more refs are ready than asked
for, asyncray returns the first of them; which ones Ray returns is not fixed, so no program depends on it.
"""

from typing import Any

from tests.compat.harness import Ray, caught, expects, finished, pending


@expects([[3, 1, 2], [1, 1], [], 1])
def get_returns_values_in_the_order_of_the_list(ray: Ray) -> object:
    refs = finished(ray, 3, 1, 2)
    return [ray.get(refs), ray.get([refs[1], refs[1]]), ray.get([]), ray.get(refs[1])]


@expects([["ValueError"]] * 4 + [["TypeError"]] * 2)
def get_takes_a_ref_or_a_list_of_refs(ray: Ray) -> object:
    one = ray.put(1)
    wrong: list[Any] = [1, "one", (one,), {one}, [one, 1], [None]]
    return [caught((ValueError, TypeError), ray.get, value) for value in wrong]


@expects([["GetTimeoutError", "TimeoutError", "RayError"]] * 3)
def get_raises_when_its_time_is_up(ray: Ray) -> object:
    late, errors = pending(ray), ray.exceptions
    kinds = (errors.GetTimeoutError, TimeoutError, errors.RayError)
    outcomes = [
        caught(kinds, ray.get, late, timeout=0),
        caught(kinds, ray.get, late, timeout=0.05),
        caught(kinds, ray.get, [*finished(ray, 1), late], timeout=0.05),
    ]
    ray.cancel(late)
    return outcomes


@expects([1, [1, 2]])
def get_with_timeout_zero_returns_what_is_there(ray: Ray) -> object:
    refs = finished(ray, 1, 2)
    return [ray.get(refs[0], timeout=0), ray.get(refs, timeout=0)]


@expects([["ValueError"], ["ValueError"]])
def get_raises_the_first_error_without_waiting_for_the_rest(ray: Ray) -> object:
    @ray.remote
    def fail() -> None:
        raise ValueError("at once")

    late = pending(ray)
    orders = [[fail.remote(), late], [late, fail.remote()]]
    outcomes = [caught(ValueError, ray.get, refs, timeout=20) for refs in orders]
    ray.cancel(late)
    return outcomes


@expects([True, True, 3, 2])
def wait_keeps_the_order_of_the_list_and_gives_no_more_than_asked(ray: Ray) -> object:
    refs = finished(ray, *range(5))
    ready, unready = ray.wait(refs, num_returns=3)
    in_order = [sorted(part, key=refs.index) == part for part in (ready, unready)]
    return [*in_order, len(ready), len(unready)]


@expects([[0, 2, 4], [1, 3]])
def wait_parts_what_is_ready_from_what_is_not(ray: Ray) -> object:
    done, late = finished(ray, 0, 2, 4), [pending(ray), pending(ray)]
    refs = [done[0], late[0], done[1], late[1], done[2]]
    ready, unready = ray.wait(refs, num_returns=3)
    for ref in late:
        ray.cancel(ref)
    return [[refs.index(ref) for ref in ready], [refs.index(ref) for ref in unready]]


@expects([1, 4])
def wait_gives_one_unless_told_otherwise(ray: Ray) -> object:
    ready, unready = ray.wait(finished(ray, *range(5)))
    return [len(ready), len(unready)]


@expects([[1, 1], [0, 1], [1, 1]])
def wait_gives_fewer_when_its_time_is_up(ray: Ray) -> object:
    done, late = finished(ray, 1), pending(ray)
    found = [
        ray.wait([late, *done], num_returns=2, timeout=0.05),
        ray.wait([late], timeout=0.05),
        ray.wait([late, *done], num_returns=2, timeout=0),
    ]
    ray.cancel(late)
    return [[len(ready), len(unready)] for ready, unready in found]


@expects([[], []])
def wait_on_nothing_returns_at_once(ray: Ray) -> object:
    return list(ray.wait([]))


@expects([["ValueError"]] * 4)
def wait_refuses_duplicates_and_impossible_counts(ray: Ray) -> object:
    one = ray.put(1)
    return [
        caught(ValueError, ray.wait, [one, one]),
        caught(ValueError, ray.wait, [one], num_returns=2),
        caught(ValueError, ray.wait, [one], num_returns=0),
        caught(ValueError, ray.wait, [one], timeout=-1),
    ]


@expects([["TypeError"]] * 4)
def wait_takes_a_list_of_refs_and_nothing_else(ray: Ray) -> object:
    one = ray.put(1)
    wrong: list[Any] = [one, (one,), [1], [one, None]]
    return [caught(TypeError, ray.wait, value) for value in wrong]


@expects([1, ["ValueError"]])
def wait_counts_a_failed_task_as_ready(ray: Ray) -> object:
    @ray.remote
    def fail() -> None:
        raise ValueError("ready all the same")

    ready, _ = ray.wait([fail.remote()], timeout=20)
    return [len(ready), caught(ValueError, ray.get, ready[0])]


@expects([2, 3])
def wait_takes_what_put_returned_and_does_not_consume_it(ray: Ray) -> object:
    refs = [ray.put(1), ray.put(2)]
    first, _ = ray.wait(refs, num_returns=2, fetch_local=False)
    second, _ = ray.wait(refs, num_returns=2)
    return [len(first), sum(ray.get(second))]


@expects([0, 1, 2, 3, 4])
def waiting_for_one_at_a_time_drains_the_list(ray: Ray) -> object:
    @ray.remote
    def same(value: int) -> int:
        return value

    waiting, values = [same.remote(i) for i in range(5)], []
    while waiting:
        ready, waiting = ray.wait(waiting)
        values += ray.get(ready)
    return sorted(values)
