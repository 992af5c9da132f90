"""A process's connection with itself: in order, nothing shared that can change, both ends closed at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from asyncray.net.local import LocalConnection, local_pair
from asyncray.wire.handshake import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

ME = Identity(b"x" * 16, "here", 1)


class Loop:
    """Runs what is posted when it is told to."""

    def __init__(self) -> None:
        self.posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        self.posted.append((call, arguments))

    def run(self) -> None:
        while self.posted:
            call, arguments = self.posted.popleft()
            call(*arguments)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def ends(loop: Loop) -> tuple[LocalConnection, LocalConnection]:
    return local_pair(loop.post, ME)


def heard(end: LocalConnection) -> list[Any]:
    told: list[Any] = []
    end.on_message = lambda _, message, buffers: told.append((message, [bytes(b) for b in buffers]))
    end.on_close = lambda _, error: told.append(error)
    return told


def test_messages_come_in_order_when_the_loop_turns(
    loop: Loop, ends: tuple[LocalConnection, LocalConnection]
) -> None:
    one, other = ends
    told = heard(other)
    one.push([1, "a"])
    one.send([2], [b"xy"])
    assert not told
    assert len(loop.posted) == 1
    loop.run()
    assert told == [([1, "a"], []), ([2], [b"xy"])]


def test_what_was_sent_is_not_what_comes_where_it_can_change(
    loop: Loop, ends: tuple[LocalConnection, LocalConnection]
) -> None:
    one, other = ends
    told = heard(other)
    row, text = [1, (2, "three")], "x" * 100
    one.send([1, [row, text], {"a": row}])
    row.append(4)
    loop.run()
    ((_, (came, same), extras), _) = told[0]
    assert came == [1, [2, "three"]] == extras["a"]
    assert same is text


def test_drain_handles_what_is_there(loop: Loop, ends: tuple[LocalConnection, LocalConnection]) -> None:
    one, other = ends
    told = heard(other)
    one.push([1])
    other.drain()
    assert told == [([1], [])]
    loop.run()
    assert len(told) == 1


def test_a_closed_one_says_so_on_both_ends_after_its_last_message(
    loop: Loop, ends: tuple[LocalConnection, LocalConnection]
) -> None:
    one, other = ends
    told, mine = heard(other), heard(one)
    one.push([1])
    one.close()
    one.send([2])
    assert other.closed
    loop.run()
    assert told == [([1], []), None]
    assert mine == [None]


def test_many_messages_leave_turns_of_the_loop_to_others(
    loop: Loop, ends: tuple[LocalConnection, LocalConnection]
) -> None:
    one, other = ends
    told = heard(other)
    for number in range(1000):
        one.send([number])
    before: list[int] = []
    loop.post(lambda: before.append(len(told)))
    loop.run()
    assert 0 < before[0] < 100
    assert told == [([number], []) for number in range(1000)]
