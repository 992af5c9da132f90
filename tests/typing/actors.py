"""What a type checker knows of actors. Checked by mypy, never run.

mypy leaves a decorated class as it was, so a class is made remote by a call here; other checkers see
``@ray.remote`` as well.
"""

from __future__ import annotations

from typing import Any, assert_type

import asyncray as ray
from asyncray import ActorHandle
from asyncray.actor import ActorClass


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    @ray.method(num_returns=1)
    def add(self, amount: int) -> int:
        return amount


RemoteCounter = ray.remote(Counter)


def a_class_made_remote_knows_what_it_was() -> None:
    assert_type(RemoteCounter, ActorClass[Counter])
    assert_type(ray.remote(max_restarts=3)(Counter), ActorClass[Counter])
    assert_type(ray.remote(num_cpus=1)(Counter), ActorClass[Counter])


def handles_know_the_class() -> None:
    assert_type(RemoteCounter.remote(1), ActorHandle[Counter])
    assert_type(RemoteCounter.options(name="a", max_concurrency=2).remote(), ActorHandle[Counter])


async def handles_know_the_class_when_awaited() -> None:
    assert_type(await RemoteCounter.remote_async(1), ActorHandle[Counter])


def a_decorated_method_keeps_its_type() -> None:
    assert_type(Counter(1).add(2), int)


def a_wrong_option_is_found() -> None:
    RemoteCounter.options(max_restarts="3")  # expect: error[arg-type]
    RemoteCounter.options(max_restart=3)  # expect: error[call-arg]
    ray.remote(max_restart=3)  # expect: error[call-overload]


def a_wrong_option_of_a_method_is_found() -> None:
    RemoteCounter.remote(1).add.options(num_returns="streaming", max_unread=3)
    RemoteCounter.remote(1).add.options(num_return=2)  # expect: error[call-arg]
    ray.method(retry_exceptions=3)  # expect: error[call-overload]


def an_actor_is_not_called_directly() -> None:
    ray.kill(Counter(1))  # expect: error[arg-type]


def a_handle_found_by_name_may_be_of_any_class() -> None:
    assert_type(ray.get_actor("a"), ActorHandle[Any])
