"""Context variables that travel with calls."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import aio
from asyncray.client.carried import LARGEST_BYTES, variables
from tests.cluster import carried_variables as module
from tests.cluster import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


@pytest.fixture(autouse=True)
def carries_the_modules_alone() -> Iterator[None]:
    """What a test carries, the next does not."""
    before = dict(variables)
    yield
    variables.clear()
    variables.update(before)


def with_value(value: Any, call: Callable[[], Any], variable: ContextVar[Any] = module.trace_id) -> Any:
    """What a call made in a context with that value gives."""
    context = copy_context()
    context.run(variable.set, value)
    return ray.get(context.run(call))


@pytest.mark.parametrize("task", [module.found, module.found_async], ids=["sync", "async"])
@pytest.mark.parametrize("value", ["abc", 7, None, {"id": [1, 2]}, b"raw"], ids=repr)
def test_the_value_at_the_call_is_found_in_the_task(shared_ray: ModuleType, task: Any, value: Any) -> None:
    assert with_value(value, task.remote) == (value, "default")


@pytest.mark.parametrize("task", [module.found_below, module.found_below_async], ids=["sync", "async"])
def test_it_is_passed_on_to_nested_tasks(shared_ray: ModuleType, task: Any) -> None:
    assert with_value("abc", task.remote) == [("abc", "default")] * 2


def test_without_a_value_the_default_is_found(shared_ray: ModuleType) -> None:
    assert ray.get(Context().run(module.found.remote)) == ("none", "default")


def test_what_a_task_sets_is_seen_below_it_and_nowhere_else(shared_ray: ModuleType) -> None:
    before, below = with_value("abc", lambda: module.set_and_find.remote("mine"))
    assert before == ("abc", "default")
    assert below == ("mine", "default")
    everywhere = [Context().run(module.found.remote) for _ in range(10)]
    assert ray.get(everywhere) == [("none", "default")] * 10


def test_each_call_has_the_value_of_its_own_context(shared_ray: ModuleType) -> None:
    async def request(number: int) -> Any:
        module.trace_id.set({"request": number})
        await asyncio.sleep(0)
        return (await module.found_below.remote())[0][0]["request"]

    async def main() -> list[Any]:
        return await asyncio.gather(*[request(number) for number in range(20)])

    assert asyncio.run(main()) == list(range(20))


def test_a_value_is_pickled_once_for_all_calls_of_its_context(shared_ray: ModuleType) -> None:
    class Counted:
        pickled = 0

        def __reduce__(self) -> Any:
            Counted.pickled += 1
            return str, ("restored",)

    async def main() -> list[Any]:
        module.trace_id.set(Counted())
        return await aio.get([module.found.remote() for _ in range(10)])

    assert asyncio.run(main()) == [("restored", "default")] * 10
    assert Counted.pickled == 1


def test_a_local_variable_is_the_one_of_its_name_in_the_worker(shared_ray: ModuleType) -> None:
    variable: ContextVar[str] = aio.carry(ContextVar("of a test", default="default"))

    @ray.remote
    def read() -> str:
        return variable.get()

    @ray.remote
    async def read_below() -> str:
        return await read.remote()

    assert with_value("abc", read.remote, variable) == "abc"
    assert with_value("abc", read_below.remote, variable) == "abc"
    assert ray.get(read.remote()) == "default"


def test_a_task_that_does_not_know_a_variable_passes_it_on(shared_ray: ModuleType) -> None:
    variable: ContextVar[str] = aio.carry(ContextVar("unknown in between"))

    @ray.remote
    def read() -> str:
        return variable.get()

    @ray.remote
    def middle(inner: Any) -> Any:
        return ray.get(inner[0].remote())

    assert with_value("abc", lambda: middle.remote([read]), variable) == "abc"


def test_two_variables_of_one_name_need_other_names(shared_ray: ModuleType) -> None:
    one: ContextVar[int] = aio.carry(ContextVar("same"), "one")
    two: ContextVar[int] = aio.carry(ContextVar("same"), "two")

    @ray.remote
    def read() -> tuple[Any, Any]:
        return one.get(None), two.get(None)

    context = copy_context()
    context.run(one.set, 1)
    context.run(two.set, 2)
    assert ray.get(context.run(read.remote)) == (1, 2)


def test_of_two_variables_under_one_name_the_newer_travels(shared_ray: ModuleType) -> None:
    aio.carry(ContextVar("made anew"))
    newer: ContextVar[int] = aio.carry(ContextVar("made anew"))

    @ray.remote
    def read() -> int:
        return newer.get()

    assert with_value(1, read.remote, newer) == 1


def test_a_scope_of_deadlines_and_variables_is_inherited_together(shared_ray: ModuleType) -> None:
    @ray.remote
    def child() -> tuple[Any, bool]:
        remaining = ray.get_runtime_context().get_remaining_time()
        return module.trace_id.get(), remaining is not None and remaining <= 30

    @ray.remote(timeout=30)
    def parent() -> Any:
        return ray.get(child.remote())

    assert with_value("abc", parent.remote) == ("abc", True)


def test_a_call_without_carried_variables_has_no_extras(shared_ray: ModuleType) -> None:
    variables.clear()
    ref = module.found.remote()
    task = ref._record.task  # type: ignore[attr-defined]
    assert task is None or task.terms is None
    assert ray.get(ref) == ("none", "default")


# ---- bad input ----


@pytest.mark.parametrize("wrong", ["trace_id", None, object], ids=repr)
def test_only_a_context_variable_can_be_carried(wrong: Any) -> None:
    with pytest.raises(TypeError, match="carry takes a ContextVar"):
        aio.carry(wrong)


def test_a_variable_has_one_name() -> None:
    variable: ContextVar[int] = ContextVar("twice")
    assert aio.carry(variable, "name") is aio.carry(variable) is aio.carry(variable, "name") is variable
    with pytest.raises(ValueError, match="carried as 'name' already, not as 'other'"):
        aio.carry(variable, "other")
    with pytest.raises(TypeError, match="a string that is not empty"):
        aio.carry(ContextVar("x"), "")


def test_a_value_that_cannot_be_pickled_is_refused_at_the_call(shared_ray: ModuleType) -> None:
    with pytest.raises(
        TypeError, match=r"carried variable 'tests.cluster.carried_variables:trace_id' has a value"
    ):
        with_value(sys._getframe(), module.found.remote)


def test_a_reference_is_refused_at_the_call(shared_ray: ModuleType) -> None:
    with pytest.raises(TypeError, match="holds an ObjectRef: give it as an argument"):
        with_value([ray.put(1)], module.found.remote)


def test_a_large_value_is_refused_at_the_call(shared_ray: ModuleType) -> None:
    with pytest.raises(ValueError, match=f"at most {LARGEST_BYTES} go with every call"):
        with_value(bytes(LARGEST_BYTES), module.found.remote)


def test_a_variable_that_a_worker_cannot_import_fails_the_call_and_says_so(shared_ray: ModuleType) -> None:
    variable: ContextVar[int] = aio.carry(ContextVar("lost"), "no.such.module:lost")
    with pytest.raises(ImportError, match=r"variable 'no\.such\.module:lost' cannot be had in this worker"):
        with_value(1, module.found.remote, variable)


def test_a_context_variable_that_does_not_travel_cannot_be_pickled(shared_ray: ModuleType) -> None:
    variable: ContextVar[int] = ContextVar("stays")
    with pytest.raises(TypeError, match=r"'stays' cannot be pickled: let it travel by asyncray\.aio\.carry"):
        ray.put(variable)


SCRIPT = """
from contextvars import ContextVar
import asyncray as ray
from asyncray import aio

trace_id = aio.carry(ContextVar("trace_id", default="none"))

@ray.remote
def read():
    return trace_id.get()

@ray.remote
def read_below():
    return ray.get(read.remote())

ray.init(num_cpus=1)
print(ray.get(read.remote()))
trace_id.set("abc")
print(ray.get([read.remote(), read_below.remote()]))
"""


def test_a_variable_of_a_script_travels(tmp_path: Any) -> None:
    assert programs.run(tmp_path, SCRIPT)[0] == "none\n['abc', 'abc']\n"
