"""Options of actors and methods: defaults, rules, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import asyncray as ray
from asyncray.actor_options import ActorOptions, MethodOptions
from asyncray.actor_shape import shape_of
from asyncray.parameters import positional_alone
from asyncray.resources import UNITS


class Plain:
    """Methods of each kind."""

    def __init__(self, value: int) -> None: ...

    def one(self, a: int, b: int = 1) -> None: ...

    @ray.method(num_returns=2, max_task_retries=3)
    def two(self, *values: int) -> None: ...

    @staticmethod
    def static(a: int) -> None: ...

    def _private(self) -> None: ...


class Async(Plain):
    """One coroutine makes all of it async."""

    async def wait(self) -> None: ...


def test_an_actor_needs_a_cpu_to_be_placed_and_holds_none() -> None:
    options = ActorOptions.parse({})
    assert dict(options.placement) == {"CPU": UNITS}
    assert dict(options.resources) == {}


def test_an_actor_with_any_resource_holds_what_it_names_and_a_cpu() -> None:
    options = ActorOptions.parse({"resources": {"disk": 1}})
    assert dict(options.resources) == dict(options.placement) == {"CPU": UNITS, "disk": UNITS}
    assert dict(ActorOptions.parse({"num_cpus": 0}).placement) == {}


def test_options_are_merged() -> None:
    options = ActorOptions.parse({"max_restarts": 3, "num_cpus": 2})
    options = options.merge({"max_restarts": None, "name": "a"})
    assert (options.max_restarts, options.name) == (0, "a")
    assert dict(options.resources) == {"CPU": 2 * UNITS}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_restarts": -2}, "max_restarts"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"lifetime": "forever"}, "detached"),
        ({"isolation": "thread"}, "shared"),
        ({"max_restart": 1}, "max_restarts"),
        ({"num_returns": 2}, "option of tasks"),
        ({"get_if_exists": True}, "name"),
        ({"concurrency_groups": {"io": 0}}, "io"),
        ({"placement_group": 1}, "dropped"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ActorOptions.parse(given)


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match="max_restarts"):
        ActorOptions.parse({"max_restarts": "1"})
    with pytest.raises(TypeError, match="concurrency_groups"):
        ActorOptions.parse({"concurrency_groups": ["io"]})
    with pytest.raises(ValueError, match="max_task_retries"):
        MethodOptions.parse({"max_retries": 1})


def test_groups_belong_to_the_class() -> None:
    with pytest.raises(ValueError, match="concurrency_groups"):
        ray.remote(Plain).options(concurrency_groups={"io": 1})  # type: ignore[call-arg, unused-ignore]


def test_an_option_that_neither_has_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="max_retry"):
        ray.remote(max_retry=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="max_restarts"):
        ray.remote(max_restarts=-5)
    with pytest.raises(ValueError, match="option of tasks"):
        ray.remote(max_calls=1)(Plain)


def test_a_shape_knows_the_methods() -> None:
    shape = shape_of(Plain, ActorOptions.parse({}))
    assert set(shape.methods) == {"one", "two", "static", "_private"}
    assert (shape.methods["one"].fewest, shape.methods["one"].most) == (1, 2)
    assert (shape.methods["two"].returns, shape.methods["two"].max_task_retries) == (2, 3)
    assert (shape.methods["static"].fewest, shape.methods["static"].most) == (1, 1)
    assert (shape.is_async, shape.max_concurrency, shape.ordered, shape.mode) == (False, 1, True, "sync")


def test_one_coroutine_makes_an_actor_async() -> None:
    shape = shape_of(Async, ActorOptions.parse({}))
    assert (shape.is_async, shape.max_concurrency, shape.ordered, shape.mode) == (True, 1000, False, "async")
    assert shape_of(Plain, ActorOptions.parse({"max_concurrency": 4})).mode == "async"


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        lambda a, b: 0,
        lambda a, b=1: 0,
        lambda a, /, b=1, *, c=2: 0,
        lambda a, *, c: 0,
        lambda *a: 0,
        lambda a, *b, c=1, **d: 0,
        lambda **d: 0,
    ],
)
def test_counts_of_arguments_without_names_are_those_that_can_be_bound(function: Any) -> None:
    signature = inspect.signature(function)

    def fits(count: int) -> bool:
        try:
            signature.bind(*range(count))
        except TypeError:
            return False
        return True

    fewest, most = positional_alone(signature)
    assert [fewest <= count <= most for count in range(6)] == [fits(count) for count in range(6)]
