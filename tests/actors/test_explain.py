"""Why a call of an actor is not done."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.util import explain, wait_graph

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


class _Loner:
    def ask_itself(self, me: ActorHandle[Any]) -> None:
        ray.get(me.answer.remote())

    def answer(self) -> None: ...


Loner = ray.remote(_Loner)


def test_an_actor_that_waits_for_itself_is_a_circle_of_the_wait_graph() -> None:
    loner = Loner.remote()
    stuck = loner.ask_itself.remote(loner)
    while not (graph := wait_graph()).cycles:
        continue
    (circle,) = graph.cycles
    told = graph.describe_cycle(circle)
    assert "waits for the result of '_Loner.answer'" in told
    assert "'_Loner.answer' (pid" in told
    assert "waits for its turn behind '_Loner.ask_itself'" in told
    assert {node.kind for node in graph.nodes if node.id in circle} == {"actor"}
    ray.kill(loner)
    del stuck


def test_actors_that_are_busy_with_each_other_are_a_circle_and_free_ones_are_none() -> None:
    one, other, free = Pair.remote(), Pair.remote(), Pair.options(max_concurrency=2).remote()
    ray.get([each.meet.remote(one) for each in (one, other, free)])
    refs = [one.call.remote(other, free), other.call.remote(one, free)]
    # One look may put together what was not there at the same time, so not the first circle will do.
    while 4 not in [len(circle) for circle in wait_graph().cycles]:
        continue
    for actor in (one, other, free):
        ray.kill(actor)
    del refs


class _Pair:
    def meet(self, other: ActorHandle[Any]) -> None: ...

    def call(self, other: ActorHandle[Any], free: ActorHandle[Any]) -> None:
        ray.get(free.meet.remote(other))
        ray.get(other.meet.remote(free))


Pair = ray.remote(_Pair)
