"""What a handle knows of its actor's methods: arguments, options, names. Both isolations know the same."""

from __future__ import annotations

import functools
import pickle
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import asyncray as ray
from asyncray.actor_options import ActorOptions
from asyncray.actor_shape import ActorShape, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("shared_ray")


def _partly(_first: int, second: int) -> int:
    return second


class _Wide:
    """Has a method of each kind of argument."""

    kept = functools.partial(_partly, 1)

    async def add(self, amount: int = 1) -> int:
        return amount

    async def two(self, first: int, second: int, *, key: int = 0) -> list[int]:
        return [first, second, key]

    async def only_named(self, *, must: int) -> int:
        return must

    async def only_placed(self, first: int, /) -> int:
        return first

    async def any_of(self, *args: int, **named: int) -> list[Any]:
        return [*args, named]

    @staticmethod
    def static(value: int) -> int:
        return value

    @classmethod
    def of_class(cls, value: int) -> list[Any]:
        return [cls.__name__, value]

    def __len__(self) -> int:
        return 7

    def count(self, most: int) -> Iterator[int]:
        yield from range(most)

    async def count_later(self, most: int) -> Any:
        for number in range(most):
            yield number

    async def me(self) -> Any:
        return ray.get_runtime_context().current_actor

    async def add_to_me(self) -> int:
        value: int = await ray.get_runtime_context().current_actor.add.remote(5)
        return value

    async def names(self) -> list[str | None]:
        context = ray.get_runtime_context()
        return [context.get_task_name(), context.get_task_function_name()]


Wide = ray.remote(_Wide)


@pytest.fixture(params=["process", "shared"])
def wide(request: pytest.FixtureRequest) -> Any:
    return Wide.options(isolation=request.param).remote()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda wide: wide.add.remote(1, 2), "too many positional arguments"),
        (lambda wide: wide.add.remote(amout=1), "unexpected keyword argument 'amout'"),
        (lambda wide: wide.add.remote(1, amount=2), "multiple values for argument 'amount'"),
        (lambda wide: wide.two.remote(1), "missing a required argument: 'second'"),
        (lambda wide: wide.two.remote(1, key=2), "missing a required argument: 'second'"),
        (lambda wide: wide.only_named.remote(1), "too many positional arguments"),
        (lambda wide: wide.only_named.remote(), "'must'"),
        (lambda wide: wide.only_placed.remote(first=1), "'first'"),
        (lambda wide: wide.static.remote(), "'value'"),
        (lambda wide: wide.kept.remote(1, 2), "too many positional arguments"),
        (lambda wide: wide.__ray_ready__.remote(1), "too many positional arguments"),
        (lambda wide: wide.__ray_call__.remote(), "'function'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_where_they_are_given(
    wide: Any, call: Callable[[Any], object], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        call(wide)


def test_arguments_that_fit_arrive(wide: Any) -> None:
    refs = [
        wide.two.remote(1, second=2, key=3),
        wide.only_named.remote(must=1),
        wide.only_placed.remote(2),
        wide.any_of.remote(1, 2, more=3),
        wide.static.remote(value=4),
        wide.of_class.remote(5),
        wide.kept.remote(6),
        wide.__len__.remote(),
    ]
    assert ray.get(refs) == [[1, 2, 3], 1, 2, [1, 2, {"more": 3}], 4, ["_Wide", 5], 6, 7]


@ray.remote
def _misspelt(wide: Any) -> str:
    try:
        wide.add.remote(amout=1)
    except TypeError as error:
        return str(error)
    return "nothing"


def test_a_handle_that_has_travelled_knows_the_same(wide: Any) -> None:
    assert ray.get(_misspelt.remote(wide)) == (
        "_Wide.add() cannot be called so: got an unexpected keyword argument 'amout'"
    )


def test_the_handle_that_an_actor_has_of_itself_is_a_whole_one(wide: Any) -> None:
    assert ray.get(wide.add_to_me.remote()) == 5
    me = ray.get(wide.me.remote())
    assert me == wide
    assert ray.get(me.add.remote(6)) == 6
    with pytest.raises(TypeError, match="amout"):
        me.add.remote(amout=1)


def test_all_handles_of_a_class_share_what_they_know() -> None:
    shape = shape_of(_Wide, ActorOptions.parse({}))
    first, second = (pickle.loads(pickle.dumps(shape)) for _ in range(2))
    assert first is second
    assert isinstance(first, ActorShape)
    assert first.methods == shape.methods


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("add", {"num_returns": "streaming"}, "'_Wide.add' has no yield"),
        ("add", {"max_unread": 3}, "'_Wide.add' has no yield"),
        ("add", {"concurrency_group": "io"}, r"no concurrency group 'io'; its groups are \[\]"),
        ("count", {"num_returns": 0}, "its body would never run"),
        ("count_later", {"num_returns": 2}, "it can only stream"),
    ],
)
def test_options_that_do_not_fit_a_method_are_refused_where_they_are_given(
    wide: Any, method: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        getattr(wide, method).options(**options)


def test_a_class_whose_methods_options_do_not_fit_is_refused() -> None:
    class Wrong:
        @ray.method(num_returns="streaming")
        def add(self) -> int:
            return 1

    with pytest.raises(ValueError, match="has no yield"):
        ray.remote(Wrong)


class _Plain:
    """Has no coroutine."""


def test_what_is_called_by_ray_call_and_yields_nothing_says_so(wide: Any) -> None:
    for actor in (wide, ray.remote(_Plain).remote()):
        stream = actor.__ray_call__.options(num_returns="streaming").remote(lambda self: 5)
        with pytest.raises(TypeError, match="'int' object is not"):
            ray.get(next(stream))


def test_a_call_can_be_given_a_name(wide: Any) -> None:
    assert ray.get(wide.names.remote()) == ["_Wide.names", "_Wide.names"]
    assert ray.get(wide.names.options(name="audit").remote()) == ["audit", "_Wide.names"]


@pytest.mark.parametrize("namespace", ["", 5])
def test_a_namespace_that_can_have_no_names_is_refused(namespace: Any) -> None:
    with pytest.raises(ValueError, match="a namespace is a string"):
        ray.get_actor("anybody", namespace)


class _Loud:
    """Shows where it is made."""

    made: ClassVar[list[int]] = []

    def __init__(self, what: Any = None) -> None:
        self.made.append(1)

    async def work(self) -> None: ...


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_an_argument_that_cannot_be_pickled_is_named_and_nothing_is_made_here(isolation: Any) -> None:
    with pytest.raises(TypeError, match=r"argument 'what' of _Loud.__init__: what is a _thread.lock"):
        ray.remote(isolation=isolation)(_Loud).remote(threading.Lock())
    assert _Loud.made == []


def test_a_class_that_cannot_be_pickled_is_called_one() -> None:
    class Locked:
        lock = threading.Lock()

    with pytest.raises(TypeError, match=r"the actor class .*Locked' cannot be pickled: \.lock is"):
        ray.remote(Locked).remote()


async def test_what_would_block_a_loop_names_what_there_is_instead() -> None:
    for blocks in (ray.util.list_named_actors, ray.util.memory_summary):
        with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread|aio\.list_named_actors"):
            blocks()


def test_an_argument_that_cannot_be_pickled_is_called_by_its_name(wide: Any) -> None:
    with pytest.raises(TypeError, match=r"argument 'second' of _Wide\.two: second\[0\] is a _thread\.lock"):
        wide.two.remote(1, [threading.Lock()])
