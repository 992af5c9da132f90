"""The plug is pulled while actors work: the node dies, the template dies, both do, also after a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import asyncray as ray
from asyncray.exceptions import LocalRayletDiedError
from tests.cluster.processes import adopting_orphans, descendants, left_of, node_pid, template_pid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

#: Seconds for what must not hang.
SOON_S = 20.0


class _Parent:
    """Has a child of its own, which knows nothing of us."""

    def __init__(self) -> None:
        self.child = subprocess.Popen(["/bin/sleep", "1000"])

    def pids(self) -> list[int]:
        return [os.getpid(), self.child.pid]

    def wait(self) -> None:
        threading.Event().wait()


Parent = ray.remote(_Parent)


@pytest.fixture
def orphans() -> Iterator[None]:
    """Whoever loses a parent stays in the process table until this process has reaped it."""
    with adopting_orphans():
        yield


class _Doomed:
    """A session with an actor that has a child and a call under way."""

    def __init__(self) -> None:
        parent = Parent.remote()
        self.family: list[int] = ray.get(parent.pids.remote(), timeout=SOON_S)
        self.call = parent.wait.remote()
        self.node = node_pid()
        self.template = template_pid(self.node)
        self.below = descendants(self.node)

    def dies_with_template(self) -> None:
        """At once: the node is stopped, or it would hear of the template's death before its own."""
        os.kill(self.node, signal.SIGSTOP)
        os.kill(self.template, signal.SIGKILL)
        os.kill(self.node, signal.SIGKILL)
        self.is_told()

    def is_told(self) -> None:
        with pytest.raises(LocalRayletDiedError, match=f"node process {self.node} .*died"):
            ray.get(self.call, timeout=SOON_S)

    def left(self, within_s: float) -> list[str]:
        return left_of(self.below, within_s, reaping=self.below)


def test_a_stopped_template_ends_everything_when_the_node_dies(
    orphans: None, ray_session: ModuleType
) -> None:
    doomed = _Doomed()
    os.kill(doomed.template, signal.SIGSTOP)
    os.kill(doomed.node, signal.SIGKILL)
    doomed.is_told()
    assert doomed.left(within_s=0.9) == [], "and not only when the driver looks after it"


def test_what_is_left_when_node_and_template_die_at_once_is_ended_by_the_driver(
    orphans: None, ray_session: ModuleType
) -> None:
    doomed = _Doomed()
    doomed.dies_with_template()
    assert doomed.left(within_s=5) == []


def test_a_shutdown_or_a_new_session_ends_what_is_left_at_once(
    orphans: None, ray_session: ModuleType
) -> None:
    doomed = _Doomed()
    doomed.dies_with_template()
    ray.init(num_cpus=1)
    assert doomed.left(within_s=0.5) == []
    assert len(ray.get(Parent.remote().pids.remote(), timeout=SOON_S)) == 2


def test_a_template_that_dies_before_it_tells_of_a_worker_leaves_nothing_of_that() -> None:
    with ray.init(num_cpus=1, preload=["tests.actors.stops_after_fork"]):
        family = ray.get(Parent.remote().pids.remote(), timeout=SOON_S)
        os.kill(template_pid(node_pid()), signal.SIGKILL)
        assert left_of(family, within_s=5) == []
