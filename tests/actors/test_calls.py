"""Making actors and calling them: values, errors, order, handles on their ways."""

from __future__ import annotations

import copy
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions

if TYPE_CHECKING:
    from types import ModuleType

    from asyncray import ActorHandle

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Counter:
    """Counts, and remembers what it was told."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[Any] = []

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def note(self, what: Any) -> None:
        self.seen.append(what)

    def noted(self) -> list[Any]:
        return self.seen

    def pid(self) -> int:
        return os.getpid()

    def fail(self, text: str) -> None:
        raise ValueError(text)

    @ray.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.value, -self.value


Counter = ray.remote(_Counter)


@ray.remote
def added(counter: ActorHandle[Any], amount: int) -> int:
    value: int = ray.get(counter.add.remote(amount))
    return value


class _Holder:
    """Holds a handle."""

    def __init__(self, counter: ActorHandle[Any]) -> None:
        self.counter = counter

    def add(self, amount: int) -> int:
        value: int = ray.get(self.counter.add.remote(amount))
        return value

    def give(self) -> dict[str, ActorHandle[Any]]:
        return {"counter": self.counter}


Holder = ray.remote(_Holder)


# --- calls --------------------------------------------------------------------------------------------------


def test_an_actor_keeps_its_state_between_calls() -> None:
    counter = Counter.remote(10)
    assert ray.get(counter.add.remote()) == 11
    assert ray.get(counter.add.remote(5)) == 16
    assert ray.get(counter.add.remote(amount=4)) == 20


def test_an_actor_has_a_process_of_its_own() -> None:
    counters = [Counter.remote() for _ in range(3)]
    pids = ray.get([counter.pid.remote() for counter in counters])
    assert len({*pids, os.getpid()}) == 4
    assert ray.get(counters[0].pid.remote()) == pids[0]


def test_calls_start_in_the_order_made() -> None:
    counter = Counter.remote()
    for number in range(1000):
        counter.note.remote(number)
    assert ray.get(counter.noted.remote()) == list(range(1000))


def test_a_call_that_waits_for_its_argument_holds_those_behind_it_back() -> None:
    counter, other = Counter.remote(), Counter.remote()
    for number in range(20):
        counter.note.remote(other.add.remote() if number % 5 == 0 else number)
    noted = ray.get(counter.noted.remote())
    assert [value for place, value in enumerate(noted) if place % 5] == [n for n in range(20) if n % 5]


def test_calls_behind_one_whose_argument_fails_go_on() -> None:
    counter = Counter.remote()
    failed = counter.note.remote(counter.fail.remote("no"))
    counter.note.remote("after")
    with pytest.raises(ValueError, match="no"):
        ray.get(failed)
    assert ray.get(counter.noted.remote()) == ["after"]


def test_calls_behind_a_cancelled_one_go_on() -> None:
    counter = Counter.remote()
    never = Counter.options(resources={"nobody has it": 1}).remote()
    waits = counter.note.remote(never.add.remote())
    after = counter.add.remote()
    ray.cancel(waits)
    assert ray.get(after) == 1
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(waits)


def test_several_returns_are_several_references() -> None:
    first, second = Counter.remote(3).pair.remote()
    assert ray.get([first, second]) == [3, -3]
    assert ray.get(Counter.remote(4).pair.options(num_returns=1).remote()) == (4, -4)
    assert Counter.remote().add.options(num_returns=0).remote() is None


def test_what_a_method_raises_is_raised_and_the_actor_lives() -> None:
    counter = Counter.remote()
    with pytest.raises(ValueError, match="oh") as caught:
        ray.get(counter.fail.remote("oh"))
    assert isinstance(caught.value, exceptions.RayTaskError)
    assert "Counter.fail" in str(caught.value)
    assert ray.get(counter.add.remote()) == 1


def test_references_in_arguments_are_values_there() -> None:
    counter = Counter.remote(ray.put(7))
    assert ray.get(counter.add.remote(ray.put(1))) == 8


async def test_calls_can_be_awaited() -> None:
    counter = Counter.remote()
    assert await counter.add.remote() == 1


# --- constructors -------------------------------------------------------------------------------------------


class _Broken:
    """Cannot be made."""

    def __init__(self) -> None:
        raise KeyError("broken")

    def work(self) -> None:
        pass


Broken = ray.remote(_Broken)


@ray.remote
def works(actor: ActorHandle[Any]) -> str:
    try:
        ray.get(actor.work.remote())
    except exceptions.ActorDiedError as error:
        return f"{error} / {type(error.__cause__).__name__}"
    return "it does"


def test_what_a_constructor_raises_is_the_cause_of_every_calls_failure() -> None:
    broken = Broken.remote()
    for ref in [broken.work.remote(), broken.work.remote()]:
        with pytest.raises(exceptions.ActorDiedError, match="constructor") as caught:
            ray.get(ref)
        assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(exceptions.ActorDiedError, match="broken"):
        ray.get(broken.work.remote())


def test_what_a_constructor_raises_reaches_callers_in_other_processes() -> None:
    told = ray.get(works.remote(Broken.remote()))
    assert "constructor" in told
    assert "KeyError" in told


@ray.remote
def lets_pass(actor: ActorHandle[Any]) -> None:
    ray.get(actor.work.remote())


def test_the_cause_of_a_death_passes_through_tasks_and_pickles() -> None:
    with pytest.raises(exceptions.ActorDiedError, match="constructor") as caught:
        ray.get(lets_pass.remote(Broken.remote()))
    again = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, again):
        assert type(error) is exceptions.ActorDiedError
        assert isinstance(error.__cause__, KeyError)
        assert isinstance(error.__cause__, exceptions.RayTaskError)


class _Leaver:
    """Does not want to be made."""

    def __init__(self) -> None:
        ray.actor.exit_actor()

    def work(self) -> None: ...


def test_a_constructor_can_leave_its_actor() -> None:
    with pytest.raises(exceptions.ActorDiedError, match="its constructor left it") as caught:
        ray.get(ray.remote(_Leaver).remote().work.remote())
    assert "exit_actor" in str(caught.value.__cause__)


def test_a_failed_argument_of_the_constructor_is_its_failure() -> None:
    counter = Counter.remote(Counter.remote().fail.remote("early"))
    with pytest.raises(exceptions.ActorDiedError) as caught:
        ray.get(counter.add.remote())
    assert isinstance(caught.value.__cause__, ValueError)


# --- handles ------------------------------------------------------------------------------------------------


def test_handles_go_to_tasks() -> None:
    counter = Counter.remote()
    assert sorted(ray.get([added.remote(counter, 1) for _ in range(5)])) == [1, 2, 3, 4, 5]
    assert ray.get(counter.add.remote()) == 6


def test_handles_go_to_constructors_and_come_back_in_containers() -> None:
    counter = Counter.remote()
    holder = Holder.remote(counter)
    assert ray.get(holder.add.remote(2)) == 2
    back = ray.get(holder.give.remote())["counter"]
    assert back == counter
    assert {back, counter} == {counter}
    assert ray.get(back.add.remote()) == 3


def test_an_actor_made_in_a_task_lives_with_its_handle(shared_ray: ModuleType) -> None:
    class _Maker:
        def make(self) -> ActorHandle[Any]:
            return Counter.remote(5)

    maker = ray.remote(_Maker).remote()
    counter = ray.get(maker.make.remote())
    assert ray.get(counter.add.remote()) == 6


def test_a_handle_is_copied_as_itself() -> None:
    counter = Counter.remote()
    assert copy.copy(counter) == counter
    assert copy.deepcopy([counter]) == [counter]


def test_an_unknown_method_is_an_attribute_error_that_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="'add'"):
        _ = Counter.remote().ad


def test_neither_classes_nor_methods_are_called_directly() -> None:
    with pytest.raises(TypeError, match=r"Counter\.remote\(\)"):
        Counter()
    with pytest.raises(TypeError, match=r"handle\.add\.remote\(\)"):
        Counter.remote().add()


def test_wrong_arguments_are_refused_at_the_caller() -> None:
    with pytest.raises(TypeError, match="Counter"):
        Counter.remote(1, 2, 3)
    with pytest.raises(TypeError, match="add"):
        Counter.remote().add.remote(1, 2)


def test_every_actor_has_rays_methods() -> None:
    counter = Counter.remote(3)
    assert ray.get(counter.__ray_ready__.remote()) is True
    assert ray.get(counter.__ray_call__.remote(lambda self, more: self.value + more, 4)) == 7


# --- inheritance --------------------------------------------------------------------------------------------


class _Doubling(Counter):  # type: ignore[misc, valid-type]
    """Adds twice as much."""

    def add(self, amount: int = 1) -> int:
        value: int = super().add(2 * amount)
        return value


Doubling = ray.remote(_Doubling)


def test_an_actor_class_can_be_inherited_from() -> None:
    doubling = Doubling.remote(1)
    assert ray.get(doubling.add.remote(2)) == 5
    doubling.note.remote("x")
    assert ray.get(doubling.noted.remote()) == ["x"]
