"""Dependencies: refs given as arguments are resolved; refs inside containers are passed on as refs."""

import tempfile
from pathlib import Path
from typing import Any

from tests.compat.harness import Ray, caught, expects


@expects([3, 3, 2])
def a_ref_is_resolved_by_position_and_by_name(ray: Ray) -> object:
    @ray.remote
    def add(a: int, b: int) -> int:
        return a + b

    one, two = ray.put(1), add.remote(1, 1)
    return ray.get([add.remote(one, two), add.remote(b=two, a=one), add.remote(one, one)])


@expects([6, 7])
def a_ref_is_resolved_among_variable_arguments(ray: Ray) -> object:
    @ray.remote
    def add(*terms: int, **named: int) -> int:
        return sum(terms) + sum(named.values())

    refs = [ray.put(n) for n in (1, 2, 3)]
    return ray.get([add.remote(*refs), add.remote(*refs, one=ray.put(1))])


@expects(50)
def a_chain_is_followed_to_its_end(ray: Ray) -> object:
    @ray.remote
    def increment(x: int) -> int:
        return x + 1

    ref: Any = 0
    for _ in range(50):
        ref = increment.remote(ref)
    return ray.get(ref)


@expects(8)
def a_diamond_meets_again(ray: Ray) -> object:
    @ray.remote
    def add(a: int, b: int) -> int:
        return a + b

    top = add.remote(1, 1)
    return ray.get(add.remote(add.remote(top, 1), add.remote(top, 3)))


@expects([3, 30])
def each_of_several_returns_is_an_argument(ray: Ray) -> object:
    @ray.remote(num_returns=2)
    def split(total: int) -> tuple[int, int]:
        return total // 10, total - total // 10

    @ray.remote
    def add(a: int, b: int) -> int:
        return a + b

    tenth, rest = split.remote(30)
    return ray.get([tenth, add.remote(tenth, rest)])


@expects(2_000_000)
def a_large_value_is_an_argument_like_another(ray: Ray) -> object:
    @ray.remote
    def make(size: int) -> bytes:
        return bytes(size)

    @ray.remote
    def measure(a: bytes, b: bytes) -> int:
        return len(a) + len(b)

    return ray.get(measure.remote(make.remote(1_000_000), ray.put(bytes(1_000_000))))


@expects([["TypeError", "RayTaskError"]] * 2)
def refs_in_a_container_cannot_be_summed(ray: Ray) -> object:
    @ray.remote
    def add_up(numbers: Any) -> int:
        return sum(numbers)

    @ray.remote
    def add_up_values(numbers: Any) -> int:
        return sum(numbers.values())

    one, task_error = ray.put(1), ray.exceptions.RayTaskError
    return [
        caught((TypeError, task_error), ray.get, add_up.remote([one, one])),
        caught((TypeError, task_error), ray.get, add_up_values.remote({"a": one})),
    ]


@expects([[True, 3], [True, 3], [True, 3], [True, 3]])
def refs_in_containers_arrive_as_refs_and_can_be_fetched(ray: Ray) -> object:
    @ray.remote
    def fetch(container: Any) -> object:
        while not isinstance(container, ray.ObjectRef):
            container = next(iter(container.values() if isinstance(container, dict) else container))
        return [isinstance(container, ray.ObjectRef), ray.get(container)]

    three = ray.put(3)
    return ray.get([fetch.remote(c) for c in ([three], (three,), {"three": three}, [[{"three": (three,)}]])])


@expects([True, 5])
def a_returned_ref_stays_a_ref(ray: Ray) -> object:
    @ray.remote
    def five() -> int:
        return 5

    @ray.remote
    def submit() -> Any:
        return five.remote()

    ref = ray.get(submit.remote())
    return [isinstance(ref, ray.ObjectRef), ray.get(ref)]


@expects(True)
def only_the_outermost_ref_of_an_argument_is_resolved(ray: Ray) -> object:
    @ray.remote
    def submit() -> Any:
        return ray.put(5)

    @ray.remote
    def is_ref(value: Any) -> bool:
        return isinstance(value, ray.ObjectRef)

    return ray.get(is_ref.remote(submit.remote()))


@expects([["ValueError", "RayTaskError"], False])
def a_task_does_not_run_without_its_argument_and_carries_its_error(ray: Ray) -> object:
    @ray.remote
    def fail() -> int:
        raise ValueError("no argument for you")

    @ray.remote
    def touch(path: str, _: int) -> None:
        Path(path).touch()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ran")
        dependent = touch.remote(str(path), fail.remote())
        errors = caught((ValueError, ray.exceptions.RayTaskError), ray.get, dependent)
        return [errors, path.exists()]


@expects([["KeyError", "RayTaskError"]] * 3)
def an_error_is_carried_down_a_chain(ray: Ray) -> object:
    @ray.remote
    def fail() -> int:
        raise KeyError("first")

    @ray.remote
    def same(value: int) -> int:
        return value

    ref, outcomes = fail.remote(), []
    for _ in range(3):
        ref = same.remote(ref)
        outcomes.append(caught((KeyError, ray.exceptions.RayTaskError), ray.get, ref))
    return outcomes
