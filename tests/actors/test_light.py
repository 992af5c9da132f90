"""Light actors: what is theirs alone. What they have in common with others is in test_isolations."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.client.filling import FEW
from asyncray.process import current

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Cell:
    """One of many."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return int(self.value)

    async def pid(self) -> int:
        return os.getpid()

    async def make(self, count: int) -> list[Any]:
        return [Cell.remote(number) for number in range(count)]

    async def sum_of(self, others: list[Any]) -> int:
        return sum(await asyncio.gather(*[other.add.remote() for other in others]))

    async def change(self, other: list[Any], values: list[int]) -> list[int]:
        await other[0].append_to.remote(values)
        return values

    async def append_to(self, values: list[int]) -> None:
        values.append(self.value)

    async def is_same(self, other: list[Any], value: Any) -> bool:
        """Whether another one gets the very value."""
        return bool(await other[0].id_of.remote(value) == id(value))

    async def keep(self, value: Any) -> None:
        self.value = value

    async def give(self) -> Any:
        return self.value

    async def gives_the_same(self, other: list[Any], value: Any, returns: int) -> bool:
        """Whether what another one returns, one value or so many, is what was given to it."""
        await other[0].keep.remote(value)
        refs = other[0].give.options(num_returns=returns).remote()
        if returns == 1:
            return (await refs) is value
        return all([(await ref) is each for ref, each in zip(refs, value, strict=True)])

    async def pass_on(self, other: list[Any], value: Any, cells: list[Any]) -> tuple[Any, Any]:
        """What another process gets of a result: given to it, and inside what it is given."""
        await other[0].keep.remote(value)
        ref = other[0].give.remote()
        return await cells[0].double.remote(ref), await cells[0].double_in.remote([ref])

    async def id_of(self, value: Any) -> int:
        return id(value)

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - what must not be done

    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def hosted(self) -> int:
        return len(asyncio.all_tasks())


Cell = ray.remote(isolation="shared")(_Cell)


class _Doubler:
    """Is in a process of its own."""

    def double(self, value: Any) -> Any:
        return value, value

    async def double_in(self, refs: list[Any]) -> Any:
        value = await refs[0]
        return value, value


Doubler = ray.remote(_Doubler)


class _Plain:
    def work(self) -> None: ...


def owned() -> int:
    session = current().session
    assert session is not None
    return len(session.lights.owned)


def until_none_is_owned(count: int = 0) -> None:
    while owned() > count:
        time.sleep(0.001)


# --- what is refused ----------------------------------------------------------------------------------------


def test_a_class_without_coroutines_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'_Plain' has none.*async def"):
        ray.remote(_Plain).options(isolation="shared")


@pytest.mark.parametrize(
    "options", [{"num_cpus": 1}, {"memory": 100}, {"resources": {"x": 1}}, {"label_selector": {"a": "b"}}]
)
def test_what_needs_a_process_of_its_own_is_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.*no process of its own"):
        Cell.options(**options)
    assert ray.get(Cell.options(num_cpus=0).remote().add.remote()) == 1


def test_calls_in_order_are_refused_as_for_all_coroutines() -> None:
    with pytest.raises(ValueError, match="allow_out_of_order_execution"):
        Cell.options(allow_out_of_order_execution=False)


# --- hosts --------------------------------------------------------------------------------------------------


def test_many_share_few_processes_evenly() -> None:
    cells = [Cell.remote(number) for number in range(4 * FEW)]
    pids = ray.get([cell.pid.remote() for cell in cells])
    assert len(set(pids)) == 2
    assert pids.count(pids[0]) == 2 * FEW
    assert os.getpid() not in pids


def test_few_share_one_process() -> None:
    until_none_is_owned()
    assert len(set(ray.get([Cell.remote().pid.remote() for _ in range(5)]))) == 1


def test_an_idle_one_has_no_task() -> None:
    cells = [Cell.remote() for _ in range(50)]
    ray.get([cell.add.remote() for cell in cells])
    assert ray.get(cells[0].hosted.remote()) < 10


# --- calls between them -------------------------------------------------------------------------------------


def test_light_actors_make_and_call_each_other() -> None:
    maker = Cell.remote()
    cells = ray.get(maker.make.remote(10))
    assert ray.get(maker.sum_of.remote(cells)) == sum(range(10)) + 10
    assert {*ray.get([cell.pid.remote() for cell in cells])} == {ray.get(maker.pid.remote())}
    assert ray.get([cell.add.remote() for cell in cells]) == [number + 2 for number in range(10)]


def test_arguments_are_copied_between_two_in_one_process() -> None:
    one, other = Cell.remote(1), Cell.remote(2)
    assert ray.get(one.pid.remote()) == ray.get(other.pid.remote())
    assert ray.get(one.change.remote([other], [0])) == [0]


def test_what_cannot_change_is_handed_over_in_one_process() -> None:
    one, other = Cell.remote(), Cell.remote()
    assert ray.get(one.is_same.remote([other], b"x" * 1_000_000))
    assert ray.get(one.is_same.remote([other], ("a", frozenset([1, 2]), None)))
    assert not ray.get(one.is_same.remote([other], ("a", [1])))


@pytest.mark.parametrize(
    "value",
    [b"x" * 1_000_000, "x" * 5000, 2**100, 1j, ("a", frozenset([1, b"x"]), (None, True, 2.5))],
    ids=["bytes", "text", "int", "complex", "tuple"],
)
def test_a_result_that_cannot_change_is_handed_over_in_one_process(value: Any) -> None:
    one, other = Cell.remote(), Cell.remote()
    assert ray.get(one.gives_the_same.remote([other], value, 1))
    assert ray.get(one.gives_the_same.remote([other], (value, value), 2))
    assert ray.get(one.pass_on.remote([other], value, [Doubler.remote()])) == ((value, value),) * 2


def test_a_result_that_can_change_is_copied_in_one_process() -> None:
    one, other = Cell.remote(), Cell.remote()
    assert not ray.get(one.gives_the_same.remote([other], ("a", [1]), 1))
    assert not ray.get(one.gives_the_same.remote([other], [(1, 2), [3]], 2))
    with pytest.raises(ValueError, match="2"):
        ray.get(one.gives_the_same.remote([other], ("a", "b", "c"), 2))


def test_those_that_a_dead_one_has_made_live_on_while_their_process_does() -> None:
    maker = Cell.remote()
    (cell,) = ray.get(maker.make.remote(1))
    ray.kill(maker)
    assert ray.get(cell.add.remote()) == 1


# --- what cannot be contained -------------------------------------------------------------------------------


def test_one_that_blocks_the_loop_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    cell = Cell.remote()
    ray.get(cell.block.remote(0.3))
    told = ""
    while "test_light.py" not in told:
        told += "".join(capfd.readouterr())
    assert "_Cell.block" in told


def test_the_death_of_a_process_is_that_of_all_in_it() -> None:
    until_none_is_owned()
    cells = [Cell.remote(number) for number in range(FEW // 2)]
    ray.get([cell.add.remote() for cell in cells])
    waiting = [cell.wait.remote() for cell in cells]
    cells[0].die.remote()
    for ref in waiting:
        with pytest.raises(exceptions.ActorDiedError, match=r"process that hosted it has died.*SIGKILL"):
            ray.get(ref)
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        ray.get(cells[1].add.remote())
    assert ray.get(Cell.remote(3).add.remote()) == 4


def test_those_that_may_start_again_do() -> None:
    until_none_is_owned()
    options: Any = {"max_restarts": 1, "max_task_retries": 1}
    cells = [Cell.options(**options).remote(number) for number in range(FEW // 2)]
    pid = ray.get(cells[0].pid.remote())
    ray.get([cell.add.remote() for cell in cells])
    refs = [cell.pid.remote() for cell in cells]
    os.kill(pid, signal.SIGKILL)
    refs += [cell.pid.remote() for cell in cells]
    assert len(set(ray.get(refs)) - {pid}) == 1
    assert ray.get([cell.add.remote() for cell in cells]) == [number + 1 for number in range(FEW // 2)]


class _Maker:
    """Owns light actors in a process of its own."""

    def make(self, count: int, **options: Any) -> list[Any]:
        self.cells = [Cell.options(**options).remote(number) for number in range(count)]
        ray.get([cell.add.remote() for cell in self.cells])
        return self.cells

    def pid(self) -> int:
        return os.getpid()


Maker = ray.remote(_Maker)


def test_a_process_dies_with_thousands() -> None:
    until_none_is_owned()
    again: Any = {"max_restarts": 1, "max_task_retries": 1}
    cells = [(Cell.options(**again) if number % 2 else Cell).remote(number) for number in range(4000)]
    pids = ray.get([cell.pid.remote() for cell in cells])
    waiting = [cell.wait.remote() for cell in cells]
    ray.get([cell.add.remote() for cell in cells])
    os.kill(pids[0], signal.SIGKILL)
    died = [number for number in range(4000) if pids[number] == pids[0]]
    refs = [cell.add.remote() for cell in cells]
    for number in died:
        if not number % 2:
            with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
                ray.get(waiting[number])
            with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
                ray.get(refs[number])
    assert all(ray.get(refs[number]) == number + 1 for number in died if number % 2)
    lived = sorted({*range(4000)} - {*died})
    assert ray.get([refs[number] for number in lived]) == [number + 2 for number in lived]
    assert len(lived) >= 1000
    ray.cancel(*waiting)


@ray.remote
def waits_for(cells: list[Any]) -> str:
    try:
        ray.get([cell.wait.remote() for cell in cells])
    except exceptions.ActorDiedError as error:
        return str(error)
    return "?"


def test_the_death_of_the_owner_is_that_of_its_actors() -> None:
    maker = Maker.remote()
    cells = ray.get(maker.make.remote(20))
    waiting = [cell.wait.remote() for cell in cells]
    foreign = waits_for.remote(cells)
    ray.get([cell.add.remote() for cell in cells])
    ray.kill(maker)
    for ref in waiting:
        with pytest.raises(exceptions.ActorDiedError, match="had made it has died"):
            ray.get(ref)
    with pytest.raises(exceptions.ActorDiedError, match="had made it has died"):
        ray.get(cells[0].add.remote())
    assert "had made it has died" in ray.get(foreign)


def test_callers_in_other_processes_hear_what_becomes_of_them() -> None:
    maker = Maker.remote()
    (cell,) = ray.get(maker.make.remote(1))
    waiting = cell.wait.remote()
    ray.get(cell.add.remote())
    ray.kill(cell)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        ray.get(waiting)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        ray.get(cell.add.remote())
    restarting: Any = {"max_restarts": 1, "max_task_retries": 1}
    (cell,) = ray.get(maker.make.remote(1, **restarting))
    pid = ray.get(cell.pid.remote())
    refs = [cell.pid.remote() for _ in range(5)]
    os.kill(pid, signal.SIGKILL)
    refs += [cell.pid.remote() for _ in range(5)]
    assert len(set(ray.get(refs)) - {pid}) <= 1
    assert ray.get(cell.add.remote()) == 1


# --- ten thousand -------------------------------------------------------------------------------------------


def test_ten_thousand_are_created_called_and_ended_without_a_trace() -> None:
    until_none_is_owned()
    session = current().session
    assert session is not None
    cells = [Cell.remote(number) for number in range(10_000)]
    refs = [cell.add.remote() for cell in cells]
    assert ray.get(refs) == list(range(1, 10_001))
    assert len(set(ray.get([cell.pid.remote() for cell in cells]))) == 2
    del cells, refs
    until_none_is_owned()
    assert ray.get(Cell.remote().hosted.remote()) < 10
    until_none_is_owned()
    while session.statistics().objects_owned:
        time.sleep(0.001)
    statistics = session.statistics()
    assert statistics.tasks == 0
    assert statistics.functions < 10
    assert not session.owner.objects.lives
    assert not len(session.lights.strangers)


def test_a_handle_that_keeps_nothing_alive_is_told_what_ended_its_actor() -> None:
    cell = Cell.options(name="brief").remote()
    found = ray.get_actor("brief")
    assert ray.get(found.add.remote()) == 1
    ray.kill(cell)
    del cell
    ray.put(None)  # accounts for what was dropped: nothing is left of the actor's life
    with pytest.raises(exceptions.ActorDiedError, match=r"killed by kill\(\)"):
        ray.get(found.add.remote())
