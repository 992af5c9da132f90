"""Large objects: read where they lie, and read-only, however they came; what is larger than a message."""

import pickle
from collections.abc import Iterator
from typing import Any

from tests.compat.harness import Ray, caught, expects

LARGE = 1_000_000


class Blob:
    """Bytes that are pickled out of band, as arrays are."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Blob, (pickle.PickleBuffer(self.data),)

    @property
    def view(self) -> memoryview:
        return memoryview(self.data)


def blob(byte: int, size: int = LARGE) -> Blob:
    return Blob(bytearray([byte]) * size)


def write(value: Blob) -> None:
    """Write to the first byte."""
    value.view.cast("B")[0] = 1


def facts(value: Blob) -> list[object]:
    """Bytes, first and last, and whether they can be written to."""
    view = value.view.cast("B")
    return [view.nbytes, view[0], view[-1], view.readonly, caught(TypeError, write, value)]


READ_ONLY = [LARGE, 7, 7, True, ["TypeError"]]


@expects(READ_ONLY)
def what_is_put_is_read_only(ray: Ray) -> object:
    return facts(ray.get(ray.put(blob(7))))


@expects(READ_ONLY)
def a_result_is_read_only(ray: Ray) -> object:
    return facts(ray.get(ray.remote(lambda: blob(7)).remote()))


@expects([READ_ONLY, READ_ONLY])
def arguments_are_read_only_by_reference_and_by_value(ray: Ray) -> object:
    look = ray.remote(facts)
    return ray.get([look.remote(ray.put(blob(7))), look.remote(blob(7))])


@expects([READ_ONLY, READ_ONLY])
def what_an_actor_keeps_is_read_only(ray: Ray) -> object:
    class Keeper:
        def keep(self, value: Blob) -> None:
            self.value = value

        def look(self) -> object:
            return facts(self.value)

        def give(self) -> Blob:
            return self.value

    keeper: Any = ray.remote(Keeper).remote()
    ray.get(keeper.keep.remote(ray.put(blob(7))))
    return [ray.get(keeper.look.remote()), facts(ray.get(keeper.give.remote()))]


@expects([True, False])
def two_reads_are_two_objects_over_the_same_bytes(ray: Ray) -> object:
    ref = ray.put(blob(7))
    one, other = ray.get(ref), ray.get([ref])[0]
    return [one.view == other.view, one is other]


@expects([3, 7])
def what_is_put_does_not_change_with_the_original(ray: Ray) -> object:
    value = blob(7)
    ref = ray.put(value)
    value.data[0] = 3
    return [value.view[0], ray.get(ref).view[0]]


@expects([[7, 7], [8, 8]])
def what_is_read_outlives_its_reference(ray: Ray) -> object:
    ref = ray.put(blob(7))
    value = ray.get(ref)
    made = ray.get(ray.remote(lambda: blob(8)).remote())
    del ref
    others = [ray.put(blob(9)) for _ in range(5)]
    del others
    return [[value.view[0], value.view[-1]], [made.view[0], made.view[-1]]]


@expects([[1, 2, 3], 6 * LARGE])
def several_buffers_of_one_object_keep_their_order(ray: Ray) -> object:
    value = ray.get(ray.put([blob(1), {"two": blob(2, 2 * LARGE)}, (blob(3, 3 * LARGE),)]))
    views = [value[0].view, value[1]["two"].view, value[2][0].view]
    return [[view[-1] for view in views], sum(view.nbytes for view in views)]


@expects([["bytes", LARGE], ["str", LARGE], ["list", LARGE]])
def large_values_keep_their_types(ray: Ray) -> object:
    values: list[Any] = [bytes(LARGE), "x" * LARGE, [0] * LARGE]
    back = ray.get([ray.put(value) for value in values])
    assert back == values
    return [[type(value).__name__, len(value)] for value in back]


@expects([LARGE, 2 * LARGE, 5, "end"])
def large_arguments_go_with_small_ones(ray: Ray) -> object:
    @ray.remote
    def sizes(first: bytes, small: int, *, second: Blob, word: str) -> list[object]:
        return [len(first), second.view.nbytes, small, word]

    return ray.get(sizes.remote(bytes(LARGE), 5, second=blob(1, 2 * LARGE), word="end"))


@expects([[1, 0], [2, 1], [3, 2]])
def several_large_returns_are_objects_each(ray: Ray) -> object:
    make = ray.remote(num_returns=3)(lambda: [blob(1), blob(2), blob(3)])
    refs = make.remote()
    first = [ray.get(ref).view[0] for ref in refs]
    return [[byte, place] for place, byte in enumerate(first)]


@expects([[0, LARGE], [1, LARGE], [2, LARGE]])
def large_items_of_a_stream_come_in_order(ray: Ray) -> object:
    @ray.remote
    def items() -> Iterator[Blob]:
        for byte in range(3):
            yield blob(byte)

    return [[value.view[0], value.view.nbytes] for value in map(ray.get, items.remote())]


@expects([1, 2, [3]])
def refs_lie_beside_large_bytes(ray: Ray) -> object:
    outer = ray.put({"bytes": blob(1), "refs": [ray.put(2), ray.put([3])]})
    inner = ray.get(outer)
    return [inner["bytes"].view[0], *ray.get(inner["refs"])]


@expects([10, LARGE])
def a_large_object_reaches_a_task_inside_another(ray: Ray) -> object:
    @ray.remote
    def total(boxed: list[Any]) -> list[int]:
        values = [ray.get(ref) for ref in boxed]
        return [sum(value.view[0] for value in values), values[0].view.nbytes]

    return ray.get(total.remote([ray.put(blob(byte)) for byte in range(1, 5)]))


@expects([[True, True], [True, True]])
def the_errors_of_the_store_are_ray_errors(ray: Ray) -> object:
    kinds = (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError)
    return [[issubclass(kind, ray.exceptions.RayError), issubclass(kind, Exception)] for kind in kinds]


@expects(500)
def many_large_objects_follow_each_other(ray: Ray) -> object:
    right = 0
    for step in range(500):
        right += ray.get(ray.put(blob(step % 251, 200_000))).view[-1] == step % 251
    return right
