"""Actors that actors and tasks have made: when they end, and that they can clean up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate
from tests.cluster.processes import left_of
from tests.sim import notes

if TYPE_CHECKING:
    from types import ModuleType

    from asyncray import ActorHandle


class _Inner:
    """Cleans up."""

    def __init__(self, log: str, name: str) -> None:
        self.log, self.name = log, name

    def pid(self) -> int:
        return os.getpid()

    def on_stop(self) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{self.name} ")


Inner = ray.remote(_Inner)
_everywhere: list[Any] = []


class _Outer:
    """Makes an actor for itself."""

    def __init__(self, log: str, *, in_module: bool = False) -> None:
        self.inner = Inner.remote(log, "inner")
        if in_module:
            _everywhere.append(self.inner)

    def pids(self) -> list[int]:
        return [os.getpid(), ray.get(self.inner.pid.remote())]

    def lend(self) -> ActorHandle[Any]:
        return self.inner


class _AsyncOuter(_Outer):
    """The same on a loop."""

    async def pids(self) -> list[int]:  # type: ignore[override]
        return [os.getpid(), await self.inner.pid.remote()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.mark.parametrize("outer_class", [_Outer, _AsyncOuter])
@pytest.mark.parametrize("in_module", [False, True])
def test_what_an_actor_has_made_for_itself_ends_with_it(
    ray_session: ModuleType, log: Path, outer_class: Any, *, in_module: bool
) -> None:
    outer = ray.remote(outer_class).remote(str(log), in_module=in_module)
    pids = ray.get(outer.pids.remote())
    del outer
    assert left_of(pids, 10) == []
    assert log.read_text() == "inner "


def test_what_an_actor_has_lent_lives_on_until_that_is_let_go(ray_session: ModuleType, log: Path) -> None:
    outer = ray.remote(_Outer).remote(str(log))
    pids = ray.get(outer.pids.remote())
    inner = ray.get(outer.lend.remote())
    del outer
    assert ray.get(inner.pid.remote()) == pids[1]
    assert log.read_text() == ""
    del inner
    assert left_of(pids, 10) == []
    assert log.read_text() == "inner "


def test_all_clean_up_at_the_end_of_a_session_whoever_owns_them(log: Path) -> None:
    ray.init(num_cpus=2)
    outer = ray.remote(_Outer).remote(str(log))
    ray.get(outer.pids.remote())
    mine = Inner.remote(str(log), "mine")

    @ray.remote
    def makes() -> None:
        Inner.options(name="kept", lifetime="detached").remote(str(log), "detached")

    ray.get(makes.remote())
    ray.get([mine.pid.remote(), ray.get_actor("kept").pid.remote()])
    ray.shutdown()
    names = log.read_text().split()
    assert names[0] == "mine", "the driver's own go first"
    assert sorted(names) == ["detached", "inner", "mine"]


class _Stubborn(_Inner):
    """Takes its time, or does not survive it."""

    def on_stop(self) -> None:
        if self.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


class _Owner:
    """Owns such an actor."""

    def __init__(self, name: str) -> None:
        self.inner = ray.remote(_Stubborn).remote("", name)
        ray.get(self.inner.pid.remote())

    def ready(self) -> None:
        pass


@pytest.mark.parametrize("name", ["dies", "sleeps"])
def test_an_actor_that_does_not_clean_up_does_not_hold_up_the_end_for_long(name: str) -> None:
    ray.init(num_cpus=2, _system_config={"cancel_grace_s": 0.5})
    owner = ray.remote(_Owner).remote(name)
    ray.get(owner.ready.remote())
    begin = time.monotonic()
    ray.shutdown()
    assert time.monotonic() - begin < 10


class _Noting:
    """Notes its end, in simulation."""

    def __init__(self, name: str, below: int) -> None:
        self.name = name
        self.below = ray.remote(_Noting).remote(name + "i", below - 1) if below else None

    async def ready(self) -> str:
        return self.name if self.below is None else str(await self.below.ready.remote())

    def on_stop(self) -> None:
        notes.note(f"{self.name} stops")


def test_a_chain_of_actors_ends_from_the_top() -> None:
    notes.noted.clear()

    async def main(cluster: SimulatedCluster) -> None:
        top = ray.remote(_Noting).remote("i", 3)
        assert await top.ready.remote() == "iiii"
        async with top:
            pass
        await asyncio.sleep(60.0)

    simulate(main)
    assert list(notes.noted) == [f"{'i' * depth} stops" for depth in (1, 2, 3, 4)]
