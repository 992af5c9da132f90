"""Calls of remote functions keep the types of what is called. Checked by mypy, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import asyncray as ray
from asyncray import ObjectRef, ObjectRefGenerator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@ray.remote
def add(a: int, b: int) -> int:
    return a + b


@ray.remote(num_cpus=2, max_retries=0)
def shout(text: str, times: int = 1) -> str:
    return text.upper() * times


@ray.remote
async def fetch(url: str) -> bytes:
    return url.encode()


@ray.remote
def nothing() -> None:
    pass


@ray.remote
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@ray.remote(max_unread=5)
async def words(count: int) -> AsyncIterator[str]:
    yield "a" * count


def plain(x: float) -> list[float]:
    return [x]


def a_call_gives_a_ref_of_what_the_function_returns() -> None:
    assert_type(add.remote(1, 2), ObjectRef[int])
    assert_type(shout.remote("a"), ObjectRef[str])
    assert_type(shout.remote("a", 2), ObjectRef[str])
    assert_type(nothing.remote(), ObjectRef[None])
    assert_type(ray.remote(plain).remote(1.5), ObjectRef[list[float]])


def a_call_of_a_coroutine_function_gives_a_ref_of_what_it_resolves_to() -> None:
    assert_type(fetch.remote("x"), ObjectRef[bytes])


def a_call_of_a_generator_function_gives_a_generator_of_what_it_yields() -> None:
    stream = numbers.remote(3)
    assert_type(stream, ObjectRefGenerator[int])
    assert_type(next(stream), ObjectRef[int])
    assert_type(words.remote(numbers_wanted()), ObjectRefGenerator[str])
    assert_type(numbers.remote(add.remote(1, 2)), ObjectRefGenerator[int])
    assert_type(numbers.options(max_unread=1).remote(3), ObjectRefGenerator[int])
    assert_type(ray.get(stream), ObjectRefGenerator[int])
    numbers.remote("3")  # expect: error[arg-type|call-overload]


def numbers_wanted() -> int:
    return 3


def arguments_can_be_named() -> None:
    assert_type(add.remote(1, b=2), ObjectRef[int])
    assert_type(shout.remote(text="a", times=2), ObjectRef[str])


def a_ref_is_taken_where_its_value_is() -> None:
    three = add.remote(1, 2)
    assert_type(add.remote(three, 2), ObjectRef[int])
    assert_type(add.remote(1, three), ObjectRef[int])
    assert_type(add.remote(three, three), ObjectRef[int])
    assert_type(shout.remote("a", three), ObjectRef[str])
    assert_type(shout.remote(ray.put("a")), ObjectRef[str])


def a_wrong_argument_is_found() -> None:
    add.remote("1", 2)  # expect: error[arg-type|call-overload]
    add.remote(1, None)  # expect: error[arg-type|call-overload]
    shout.remote("a", "b")  # expect: error[arg-type|call-overload]
    fetch.remote(1)  # expect: error[arg-type|call-overload]
    ray.remote(plain).remote("x")  # expect: error[arg-type|call-overload]


def a_ref_of_the_wrong_type_is_found() -> None:
    word = shout.remote("a")
    add.remote(word, 2)  # expect: error[arg-type|call-overload]
    shout.remote(add.remote(1, 2))  # expect: error[arg-type|call-overload]


def a_wrong_number_of_arguments_is_found() -> None:
    add.remote(1)  # expect: error[call-arg|arg-type|call-overload]
    add.remote(1, 2, 3)  # expect: error[call-arg|arg-type|call-overload]
    nothing.remote(1)  # expect: error[call-arg|arg-type|call-overload]


def options_keep_the_types_of_the_call() -> None:
    assert_type(add.options(num_cpus=0.5, name="sum").remote(1, 2), ObjectRef[int])
    add.options(num_cpus=2).remote("1", 2)  # expect: error[arg-type|call-overload]


def a_wrong_option_is_found() -> None:
    add.options(num_cpus="two")  # expect: error[arg-type|call-overload]
    add.options(num_cpu=2)  # expect: error[call-arg|call-overload]
