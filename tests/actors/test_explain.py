"""Why a call of an actor is not done."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.util import explain

if TYPE_CHECKING:
    from asyncray import ActorHandle

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Desk:
    def ready(self) -> None: ...

    def slow(self) -> None:
        threading.Event().wait()

    def quick(self) -> None: ...


Desk = ray.remote(_Desk)


@ray.remote
def ask(desk: ActorHandle[Any]) -> None:
    ray.get(desk.quick.remote())


def test_a_call_behind_a_slow_one_is_explained_by_that() -> None:
    desk = Desk.remote()
    ray.get(desk.ready.remote())
    slow, quick = desk.slow.remote(), desk.quick.remote()
    while "_Desk.slow' has been running" not in str(explain(slow)):
        continue
    told = str(explain(quick))
    assert "'_Desk.quick' is queued at the worker" in told
    assert "'_Desk.slow' has been running there" in told
    ray.kill(desk)


def test_a_call_of_an_actor_without_a_place_tells_what_that_needs() -> None:
    desk = Desk.options(resources={"a desk": 1}).remote()
    assert "a desk" in str(explain(desk.quick.remote()))


def test_a_task_that_waits_for_an_actor_is_explained_through_it() -> None:
    desk = Desk.remote()
    ray.get(desk.ready.remote())
    slow, asked = desk.slow.remote(), ask.remote(desk)
    while "queued at the worker" not in (told := str(explain(asked))):
        continue
    assert "'_Desk.slow' has been running there" in told
    ray.kill(desk)
    del slow
