"""Calls that depend on others: arguments that come later, calls that make calls, failures carried on."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import GetTimeoutError, RayTaskError, TaskCancelledError
from tests.cluster.tables import settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from asyncray import ObjectRef
    from tests.cluster.gates import Gates

LIMIT_S = 30
LARGE = 300_000
Pair = namedtuple("Pair", "first second")  # noqa: PYI024 - untyped ones are values too


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=LIMIT_S)


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
async def same_async(value: Any) -> Any:
    return value


@ray.remote
def add(*numbers: int, **named: int) -> int:
    return sum(numbers) + sum(named.values())


@ray.remote
async def add_async(*numbers: int, **named: int) -> int:
    return sum(numbers) + sum(named.values())


@ray.remote
def increment(number: int) -> int:
    return number + 1


@ray.remote
def fail(text: str) -> None:
    raise ValueError(text)


@ray.remote
def put_one(value: Any) -> list[Any]:
    """A reference that a worker owns."""
    return [ray.put(value)]


@ray.remote
def submit_one(value: Any) -> list[Any]:
    """A reference that a worker owns, to what another task makes."""
    return [same.remote(value)]


# ---- arguments ----


@pytest.mark.parametrize("summing", [add, add_async])
def test_references_given_directly_are_resolved(shared_ray: ModuleType, summing: Any) -> None:
    one, two = ray.put(1), same.remote(2)
    assert get(summing.remote(one, two)) == 3
    assert get(summing.remote(a=one, b=two)) == 3
    assert get(summing.remote(one, 10, two, one, x=two, y=100, z=one)) == 1 + 10 + 2 + 1 + 2 + 100 + 1
    assert get(summing.remote(*[one] * 50, **{f"n{i}": two for i in range(50)})) == 150


def test_a_reference_is_resolved_where_a_default_stood(shared_ray: ModuleType) -> None:
    @ray.remote
    def scale(number: int, factor: int = 2, *, offset: int = 0) -> int:
        return number * factor + offset

    ten: Any = ray.put(10)
    assert get([scale.remote(ten), scale.remote(ten, ten), scale.remote(ten, offset=ten)]) == [20, 100, 30]


@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("function", [same, same_async])
def test_only_the_outermost_reference_is_resolved(shared_ray: ModuleType, function: Any, size: int) -> None:
    inner = ray.put("inner")
    outer = ray.put([inner, bytes(size)])
    assert get(function.remote(outer))[0] is inner


@dataclass
class Holder:
    ref: Any
    more: dict[str, Any]


def boxes(ref: Any) -> list[tuple[Any, Callable[[Any], Any]]]:
    """Containers with a reference inside, each with the way to it."""
    return [
        ([ref], lambda box: box[0]),
        ((ref,), lambda box: box[0]),
        ({"ref": ref}, lambda box: box["ref"]),
        ({ref: 1}, lambda box: next(iter(box))),
        ({ref}, lambda box: next(iter(box))),
        (frozenset([ref]), lambda box: next(iter(box))),
        ([[{"ref": (ref,)}]], lambda box: box[0][0]["ref"][0]),
        (Holder(ref, {"again": ref}), lambda box: box.ref if box.ref is box.more["again"] else None),
        (Pair(1, ref), lambda box: box.second),
        (lambda: ref, lambda box: box()),
    ]


@pytest.mark.parametrize("position", range(10))
def test_references_inside_containers_stay_references(shared_ray: ModuleType, position: int) -> None:
    box, unbox = boxes(ray.put("value"))[position]

    @ray.remote
    def look(box: Any, *, named: Any) -> Any:
        refs = [unbox(box), unbox(named)]
        return [isinstance(ref, ray.ObjectRef) for ref in refs], ray.get(refs), box

    kinds, values, back = get(look.remote(box, named=box))
    assert (kinds, values) == ([True, True], ["value", "value"])
    assert unbox(back) is unbox(box)


def test_references_inside_containers_cannot_be_summed(shared_ray: ModuleType) -> None:
    @ray.remote
    def add_up(numbers: Any) -> int:
        return sum(numbers)

    refs = [ray.put(1), same.remote(2)]
    for box in (refs, tuple(refs), dict.fromkeys(refs)):
        with pytest.raises(TypeError, match=r"unsupported operand type.*'ObjectRef'") as caught:
            get(add_up.remote(box))
        assert isinstance(caught.value, RayTaskError)


def test_references_in_functions_work(shared_ray: ModuleType) -> None:
    in_closure, in_default = ray.put("closure"), same.remote("default")

    @ray.remote
    def read(given: Any = (in_default,), *, named: Any = {"ref": in_default}) -> Any:  # noqa: B006
        return ray.get([in_closure, _in_global[0], given[0], named["ref"]])

    _in_global.append(ray.put("global"))
    try:
        assert get(read.remote()) == ["closure", "global", "default", "default"]
    finally:
        _in_global.clear()


_in_global: list[Any] = []


def test_a_default_that_is_a_reference_stays_one(shared_ray: ModuleType) -> None:
    """Nothing was given: there is nothing to resolve."""
    default = ray.put("value")

    @ray.remote
    def read(ref: Any = default) -> Any:
        return [isinstance(ref, ray.ObjectRef), ray.get(ref) if isinstance(ref, ray.ObjectRef) else ref]

    assert get(read.remote()) == [True, "value"]
    assert get(read.remote(default)) == [False, "value"]


# ---- graphs ----


@pytest.mark.parametrize("length", [1000])
def test_a_chain_of_a_thousand_tasks_is_followed_to_its_end(shared_ray: ModuleType, length: int) -> None:
    ref: Any = 0
    for _ in range(length):
        ref = increment.remote(ref)
    assert get(ref) == length


def test_a_chain_that_waits_for_its_beginning_is_followed_to_its_end(
    shared_ray: ModuleType, gates: Gates
) -> None:
    gate = gates.new()
    ref = gate.ref(0)
    for _ in range(1000):
        ref = increment.remote(ref)
    gate.open()
    assert get(ref) == 1000


def test_many_depend_on_one_and_one_on_many(shared_ray: ModuleType, gates: Gates) -> None:
    gate = gates.new()
    spread = [add.remote(gate.ref(1) if i == 0 else i, i) for i in range(1000)]
    gathered = add.remote(*spread)
    tree = spread
    while len(tree) > 1:
        tree = [add.remote(*tree[i : i + 10]) for i in range(0, len(tree), 10)]
    gate.open()
    expected = 1 + sum(2 * i for i in range(1, 1000))
    assert [get(gathered), get(tree[0])] == [expected, expected]


def test_a_diamond_meets_again(shared_ray: ModuleType, gates: Gates) -> None:
    gate = gates.new()
    top = gate.ref(1)
    for _ in range(20):
        left, right = increment.remote(top), add.remote(top, 2)
        top = add.remote(left, right)
    gate.open()
    expected = 1
    for _ in range(20):
        expected = expected + 1 + expected + 2
    assert get(top) == expected


def test_each_of_several_returns_is_an_argument(shared_ray: ModuleType, gates: Gates) -> None:
    @ray.remote(num_returns=3)
    def split(number: int) -> Any:
        return number, [ray.put(number)], bytes(LARGE)

    gate = gates.new()
    returns: Any = split.remote(gate.ref(5))
    first, boxed, large = returns
    same_later, length = same.remote(boxed), ray.remote(len).remote(large)
    gate.open()
    assert [get(add.remote(first, first)), get(get(same_later)[0]), get(length)] == [10, 5, LARGE]


def test_tasks_make_tasks_as_they_go(shared_ray: ModuleType) -> None:
    @ray.remote
    def fib(n: int) -> Any:
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    @ray.remote
    def quicksort(numbers: list[int]) -> list[int]:
        if len(numbers) <= 2:
            return sorted(numbers)
        pivot, *rest = numbers
        small = quicksort.remote([n for n in rest if n < pivot])
        large = quicksort.remote([n for n in rest if n >= pivot])
        return [*ray.get(small), pivot, *ray.get(large)]

    assert get(fib.remote(7)) == 13
    assert get(quicksort.remote([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])) == [1, 1, 2, 3, 3, 4, 5, 5, 5, 6, 9]


def test_a_task_returns_what_a_later_one_will_make(shared_ray: ModuleType, gates: Gates) -> None:
    """A promise of a promise: neither of the makers waits."""
    gate = gates.new()

    @ray.remote
    def later(boxed: list[Any]) -> Any:
        return [increment.remote(boxed[0])]

    (promise,) = get(later.remote([gate.ref(1)]))
    (further,) = get(later.remote([promise]))
    gate.open()
    assert get(further) == 3


def test_a_callback_makes_calls(shared_ray: ModuleType, gates: Gates) -> None:
    gate, made = gates.new(), []
    called = threading.Event()

    def go_on(ref: ObjectRef[Any]) -> None:
        made.append(increment.remote(ref))
        called.set()

    gate.ref(1).add_done_callback(go_on)
    gate.open()
    assert called.wait(LIMIT_S)
    assert get(made[0]) == 2


def test_a_destructor_makes_calls(shared_ray: ModuleType) -> None:
    made = []

    class Last:
        def __del__(self) -> None:
            made.append(increment.remote(1))

    for _ in range(100):
        Last()
    assert get(made) == [2] * 100


# ---- arguments that live elsewhere ----


@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("function", [same, same_async])
@pytest.mark.parametrize("making", [put_one, submit_one])
def test_an_argument_may_live_in_another_worker(
    shared_ray: ModuleType, making: Any, function: Any, size: int
) -> None:
    (ref,) = get(making.remote(bytes(size)))
    assert len(get(function.remote(ref))) == size
    (ref,) = get(making.remote(bytes(size)))
    length = ray.remote(len).remote(function.remote(ref))
    del ref
    assert get(length) == size


@pytest.mark.parametrize("function", [same, same_async])
def test_an_argument_may_still_be_made_in_another_worker(
    shared_ray: ModuleType, gates: Gates, function: Any
) -> None:
    gate = gates.new()

    @ray.remote
    def submit(boxed: list[Any]) -> Any:
        return [increment.remote(boxed[0])]

    (ref,) = get(submit.remote([gate.ref(1)]))
    waiting = [function.remote(ref), add.remote(ref, ref, x=ref)]
    gate.open()
    assert get(waiting) == [2, 6]


@pytest.mark.parametrize("how", ["done", "wait", "get"])
@pytest.mark.parametrize("size", [1, LARGE])
def test_who_polls_a_reference_of_another_process_sees_it_come(
    shared_ray: ModuleType, how: str, size: int
) -> None:
    @ray.remote
    def poll(boxed: list[Any]) -> Any:
        (ref,) = boxed
        if how == "done":
            settled(ref.done)
        elif how == "wait":
            settled(lambda: bool(ray.wait(boxed, timeout=0)[0]))
        else:
            settled(lambda: bool(got(ref)))
        return len(ray.get(ref))

    def got(ref: Any) -> Any:
        try:
            return ray.get(ref, timeout=0)
        except GetTimeoutError:
            return None

    assert get(poll.remote([ray.put(bytes(size))])) == size


# ---- failures ----


def touch(folder: str) -> None:
    os.close(os.open(f"{folder}/ran", os.O_CREAT))


@ray.remote
def note(folder: str, *values: Any) -> Any:
    touch(folder)
    return values


@pytest.mark.parametrize("function", ["later", "now"])
def test_a_task_whose_argument_failed_never_runs_and_carries_the_failure(
    shared_ray: ModuleType, gates: Gates, tmp_path: Path, function: str
) -> None:
    gate = gates.new()
    failed = gate.ref(ValueError("first"))
    if function == "now":
        gate.open()
        with pytest.raises(ValueError, match="first"):
            get(failed)
    ran = tmp_path / "calls"
    ran.mkdir()
    last = note.remote(str(ran), 1, failed)
    for _ in range(50):
        last = same.remote(last)
    if function == "later":
        gate.open()
    with pytest.raises(ValueError, match="first") as caught:
        get(last)
    assert isinstance(caught.value, RayTaskError)
    assert "behind" in caught.value.function_name
    assert not list(ran.iterdir())


def test_the_first_of_several_failed_arguments_is_told(shared_ray: ModuleType) -> None:
    refs: list[Any] = [ray.put(0), fail.remote("one"), fail.remote("two")]
    ray.wait(refs, num_returns=3)
    with pytest.raises(ValueError, match="one"):
        get(add.remote(*refs))
    with pytest.raises(ValueError, match="two"):
        get(add.remote(refs[0], b=refs[2], c=refs[1]))


def test_a_failure_in_one_branch_leaves_the_others_alone(shared_ray: ModuleType, gates: Gates) -> None:
    gate = gates.new()
    top = gate.ref(1)
    left, right = increment.remote(top), same.remote(fail.remote("right"))
    both = add.remote(left, right)
    gate.open()
    assert get(left) == 2
    with pytest.raises(ValueError, match="right"):
        get(both)


def test_the_failure_of_a_borrowed_argument_is_carried_on(shared_ray: ModuleType) -> None:
    @ray.remote
    def submit() -> Any:
        return [fail.remote("elsewhere")]

    (ref,) = get(submit.remote())
    with pytest.raises(ValueError, match="elsewhere"):
        get(same.remote(same.remote(ref)))


# ---- cancelling ----


def test_what_waits_for_a_cancelled_argument_never_runs(
    shared_ray: ModuleType, gates: Gates, tmp_path: Path
) -> None:
    argument = gates.pending()
    ran = tmp_path / "calls"
    ran.mkdir()
    waiting = same.remote(note.remote(str(ran), argument))
    ray.cancel(argument)
    for ref in (argument, waiting):
        with pytest.raises(TaskCancelledError):
            get(ref)
    assert not list(ran.iterdir())


def test_a_task_that_is_cancelled_while_it_waits_leaves_its_argument_alone(
    shared_ray: ModuleType, gates: Gates, tmp_path: Path
) -> None:
    gate = gates.new()
    argument = gate.ref(1)
    ran = tmp_path / "calls"
    ran.mkdir()
    waiting = note.remote(str(ran), argument)
    after, beside = same.remote(waiting), increment.remote(argument)
    ray.cancel(waiting)
    for ref in (waiting, after):
        with pytest.raises(TaskCancelledError):
            get(ref)
    gate.open()
    assert get([argument, beside]) == [1, 2]
    assert not list(ran.iterdir())
