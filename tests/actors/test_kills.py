"""Kills of real processes: many callers, many actors, and nothing left of them."""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.process import current
from tests.cluster.processes import children, kill, left_of, node_pid, template_pid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from asyncray import ActorHandle


class _Ledger:
    """Writes down what it hears, where it survives."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "a", buffering=1)  # noqa: SIM115, PTH123

    def hear(self, caller: str, number: int) -> int:
        self.file.write(f"{os.getpid()} {caller} {number}\n")
        return number

    def pid(self) -> int:
        return os.getpid()

    def wait(self) -> None:
        threading.Event().wait()


class _Caller:
    """Sends numbered messages one batch after another; tells how each ended."""

    def talk(self, ledger: ActorHandle[Any], name: str, count: int) -> list[str]:
        ends = []
        for first in range(0, count, 50):
            refs = [ledger.hear.remote(name, number) for number in range(first, first + 50)]
            ends += [outcome(ref) for ref in refs]
        return ends


def outcome(ref: Any) -> str:
    try:
        return str(ray.get(ref))
    except exceptions.RayActorError as error:
        return type(error).__name__


Ledger = ray.remote(_Ledger)
Caller = ray.remote(_Caller)


@pytest.mark.parametrize("retries", [0, -1])
def test_order_under_load_and_restarts(ray_session: ModuleType, tmp_path: Path, retries: int) -> None:
    """Three processes send numbered messages while the actor is killed again and again."""
    path = tmp_path / "ledger"
    ledger = Ledger.options(max_restarts=-1, max_task_retries=retries).remote(str(path))
    callers = {name: Caller.remote() for name in ("one", "two", "three")}
    told = {name: caller.talk.remote(ledger, name, 1000) for name, caller in callers.items()}
    for _ in range(4):
        try:
            kill(ray.get(ledger.pid.options(max_task_retries=-1).remote()))
        except ProcessLookupError:
            continue
    ends = {name: ray.get(ref) for name, ref in told.items()}
    heard: dict[tuple[str, str], list[int]] = defaultdict(list)
    times: dict[tuple[str, int], int] = defaultdict(int)
    for line in path.read_text().splitlines():
        pid, caller, number = line.split()
        heard[pid, caller].append(int(number))
        times[caller, int(number)] += 1
    for name, outcomes in ends.items():
        assert len(outcomes) == 1000
        assert all(times[name, int(told)] for told in outcomes if told.isdigit())
        assert retries or {told for told in outcomes if not told.isdigit()} <= {"ActorUnavailableError"}
        assert not retries or all(told.isdigit() for told in outcomes)
    assert all(numbers == sorted(numbers) for numbers in heard.values())
    assert retries or max(times.values()) == 1


def test_a_dead_template_takes_its_actors_and_they_start_again(
    ray_session: ModuleType, tmp_path: Path
) -> None:
    ledger = Ledger.options(max_restarts=1).remote(str(tmp_path / "ledger"))
    before = ray.get(ledger.pid.remote())
    waits = ledger.wait.remote()
    kill(template_pid(node_pid()))
    with pytest.raises(exceptions.ActorUnavailableError):
        ray.get(waits)
    assert ray.get(ledger.pid.remote()) != before


def test_a_dead_node_fails_every_call(ray_session: ModuleType, tmp_path: Path) -> None:
    ledger = Ledger.options(max_restarts=-1, max_task_retries=-1).remote(str(tmp_path / "ledger"))
    ray.get(ledger.pid.remote())
    waits = [ledger.wait.remote(), ledger.pid.remote()]
    kill(node_pid())
    for ref in waits:
        with pytest.raises(exceptions.RayError):
            ray.get(ref)


def test_a_stopped_actor_is_killed_by_kill(ray_session: ModuleType, tmp_path: Path) -> None:
    ledger = Ledger.remote(str(tmp_path / "ledger"))
    pid = ray.get(ledger.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    waits = ledger.pid.remote()
    ray.kill(ledger)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(waits)
    assert left_of([pid], 10) == []


@pytest.fixture
def preloaded() -> Iterator[ModuleType]:
    """A session whose workers find this module imported: that takes longer than all the rest of a start."""
    ray.init(num_cpus=2, preload=[__name__])
    try:
        yield ray
    finally:
        ray.shutdown()


def test_many_actors_come_and_go_and_leave_nothing(preloaded: ModuleType, tmp_path: Path) -> None:
    session = current().session
    assert session is not None
    path = str(tmp_path / "ledger")

    def round_of(count: int) -> list[int]:
        actors = [Ledger.remote(path) for _ in range(count)]
        pids: list[int] = ray.get([actor.pid.remote() for actor in actors])
        for actor in actors[::2]:
            ray.kill(actor)
        return pids

    round_of(5)
    assert left_of([pid for pid in children(template_pid(node_pid())) if _is_actor(pid)], 10) == []
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert left_of(round_of(20), 20) == []
    ray.get(ray.remote(lambda: None).remote())
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 2
    assert not session.actors.owned
    assert not session.actors.creating
    assert not session.owner.objects.lives


def _is_actor(pid: int) -> bool:
    return any(link.connection.peer.pid == pid for link in _links() if link.lease and link.lease.group.actor)


def _links() -> list[Any]:
    session = current().session
    assert session is not None
    return list(session.leases.links._links.values())
