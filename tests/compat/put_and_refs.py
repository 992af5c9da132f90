"""put, and refs wherever they go: in containers, closures, globals, return values."""

from typing import Any

from tests.compat.harness import Ray, caught, expects

_held: Any = None


@expects([[1, "two", {"three": 3.0}, None], 1_000_000])
def what_is_put_is_what_is_got(ray: Ray) -> object:
    large = ray.put(bytes(1_000_000))
    return [[ray.get(ray.put(value)) for value in (1, "two", {"three": 3.0}, None)], len(ray.get(large))]


@expects([[1], [1, 2], [1]])
def what_is_put_is_a_copy(ray: Ray) -> object:
    items = [1]
    ref = ray.put(items)
    items.append(2)
    first = ray.get(ref)
    return [list(first), items, ray.get(ref)]


@expects(["TypeError"])
def a_ref_cannot_be_put(ray: Ray) -> object:
    return caught(TypeError, ray.put, ray.put(1))


@expects([True, 1])
def a_ref_inside_what_is_put_stays_a_ref(ray: Ray) -> object:
    outer = ray.put({"inner": [ray.put(1)]})
    inner = ray.get(outer)["inner"][0]
    return [isinstance(inner, ray.ObjectRef), ray.get(inner)]


@expects([True, True, False, 1, True])
def refs_compare_and_hash_by_what_they_refer_to(ray: Ray) -> object:
    one, other = ray.put(1), ray.put(1)
    same = ray.get(ray.put([one]))[0]
    return [one == same, hash(one) == hash(same), one == other, len({one, same}), one.hex() == same.hex()]


@expects([[True, True], [True, True]])
def a_ref_is_itself_again_after_a_task(ray: Ray) -> object:
    @ray.remote
    def same(boxed: list[Any]) -> list[Any]:
        return boxed

    put, made = ray.put(1), same.remote([])
    returned = [ray.get(same.remote([ref]))[0] for ref in (put, made)]
    return [[back == ref, back.hex() == ref.hex()] for ref, back in zip((put, made), returned, strict=True)]


@expects(8)
def a_ref_in_a_closure_is_fetched_inside_the_task(ray: Ray) -> object:
    held = ray.put(5)

    @ray.remote
    def add(x: int) -> int:
        return x + int(ray.get(held))

    return ray.get(add.remote(3))


@expects(8)
def a_ref_in_a_global_is_fetched_inside_the_task(ray: Ray) -> object:
    global _held  # noqa: PLW0603 - a global that holds a ref is the subject
    _held = ray.put(5)

    @ray.remote
    def add(x: int) -> int:
        return x + int(ray.get(_held))

    try:
        return ray.get(add.remote(3))
    finally:
        _held = None


@expects([7, 7])
def a_closure_keeps_its_ref_alive(ray: Ray) -> object:
    def make() -> Any:
        held = ray.put(7)

        @ray.remote
        def fetch() -> int:
            return int(ray.get(held))

        return fetch

    fetch = make()
    return [ray.get(fetch.remote()), ray.get(fetch.remote())]


@expects([1, 2])
def refs_in_a_return_value_outlive_their_makers_hold_on_them(ray: Ray) -> object:
    @ray.remote
    def double(x: int) -> int:
        return 2 * x

    @ray.remote
    def make() -> dict[str, Any]:
        one = ray.put(1)
        return {"put": one, "made": double.remote(one)}

    made = ray.get(make.remote())
    return [ray.get(made["put"]), ray.get(made["made"])]


@expects(6)
def a_ref_dropped_at_once_still_reaches_the_task(ray: Ray) -> object:
    @ray.remote
    def add_up(boxed: list[Any], direct: int) -> int:
        return int(sum(ray.get(boxed))) + direct

    return ray.get(add_up.remote([ray.put(1), ray.put(2)], ray.put(3)))


@expects([3, 3])
def a_ref_inside_a_ref_inside_a_ref_is_reached_one_at_a_time(ray: Ray) -> object:
    @ray.remote
    def unwrap(boxed: list[Any]) -> int:
        (inner,) = ray.get(boxed[0])
        return int(ray.get(inner))

    outer = ray.put([ray.put(3)])
    return [ray.get(ray.get(outer)[0]), ray.get(unwrap.remote([outer]))]
