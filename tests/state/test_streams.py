"""Both ends of a stream count: nothing is lost, repeated or read out of order, and nobody waits for ever."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncray.exceptions import ProtocolError
from asyncray.state.streams import LARGE_BYTES, WITHOUT_END, Inflow, Outflow


def run_ahead(flow: Outflow) -> int:
    """Make as many items as may be; returns how many those are."""
    made = 0
    while flow.may_go_on() and made < 10_000:
        flow.made(1)
        made += 1
    return made


class TestTheProducer:
    @pytest.mark.parametrize("bound", [1, 2, 7, 1000])
    def test_makes_exactly_as_many_items_as_may_be_unread(self, bound: int) -> None:
        flow = Outflow(bound, 0, None)
        assert run_ahead(flow) == bound
        flow.credit(1)
        assert run_ahead(flow) == 1
        flow.credit(bound)
        assert run_ahead(flow) == bound - 1

    def test_without_a_bound_never_pauses(self) -> None:
        assert run_ahead(Outflow(0, 0, None)) == 10_000

    def test_takes_news_that_are_old_for_what_they_are(self) -> None:
        flow = Outflow(1, 0, None)
        flow.made(1)
        flow.credit(1)
        flow.credit(0)
        assert flow.may_go_on()

    def test_says_that_it_can_go_on_as_soon_as_it_can(self) -> None:
        heard = []
        flow = Outflow(1, 0, None)
        flow.on_credit = lambda: heard.append(flow.may_go_on())
        flow.made(1)
        flow.credit(0)
        flow.credit(1)
        assert heard == [True]

    def test_pauses_when_large_items_take_too_much_whatever_their_number(self) -> None:
        flow = Outflow(1000, 2 * LARGE_BYTES, None)
        flow.made(LARGE_BYTES)
        assert flow.may_go_on()
        flow.made(LARGE_BYTES)
        assert not flow.may_go_on()
        flow.credit(1)
        assert flow.may_go_on()

    def test_makes_one_item_however_large_it_is(self) -> None:
        flow = Outflow(1000, 1, None)
        flow.made(10 * LARGE_BYTES)
        assert not flow.may_go_on()
        flow.credit(1)
        assert flow.may_go_on()

    def test_counts_no_bytes_of_what_will_not_be_read(self) -> None:
        flow = Outflow(10, LARGE_BYTES, None)
        flow.credit(WITHOUT_END)
        for _ in range(100):
            flow.made(LARGE_BYTES)
            assert flow.may_go_on()

    def test_that_is_run_again_begins_behind_what_was_delivered(self) -> None:
        flow = Outflow(3, 0, [5, 4, 77])
        assert (flow.skip, flow.skipped_digest) == (5, 77)
        assert run_ahead(flow) == 2


class TestTheConsumer:
    def test_refuses_items_that_are_not_the_next_ones(self) -> None:
        flow = Inflow(10, soft=False)
        flow.arrive(0, ["a", "b"], 1)
        for first in (0, 1, 3):
            with pytest.raises(ProtocolError, match="where those from 2 on were due"):
                flow.arrive(first, ["c"], 2)

    def test_tells_of_each_item_when_few_may_be_unread(self) -> None:
        flow = Inflow(1, soft=False)
        flow.arrive(0, ["a"], 1)
        assert flow.due() is None
        flow.unread.popleft()
        assert flow.due() == 1
        assert flow.due() is None

    def test_tells_of_many_items_at_once_when_many_may_be_unread(self) -> None:
        flow = Inflow(800, soft=False)
        flow.arrive(0, list(range(800)), 1)
        told = []
        while flow.unread:
            flow.unread.popleft()
            if (read := flow.due()) is not None:
                told.append(read)
        assert told == [100, 200, 300, 400, 500, 600, 700, 800]

    def test_tells_of_each_item_once_large_ones_have_come(self) -> None:
        flow = Inflow(800, soft=True)
        flow.arrive(0, ["a", "b"], 1, large=True)
        flow.unread.popleft()
        assert flow.due() == 1

    def test_tells_of_a_large_item_that_nobody_will_read(self) -> None:
        flow = Inflow(800, soft=True)
        flow.discard()
        flow.arrive(0, ["a"], 1, large=True)
        assert flow.due() == 1

    def test_says_nothing_where_the_producer_never_pauses(self) -> None:
        flow = Inflow(0, soft=False)
        flow.arrive(0, ["a"] * 10_000, 1, large=True)
        flow.unread.clear()
        assert flow.due() is None

    def test_lifts_the_default_bound_alone(self) -> None:
        assert not Inflow(5, soft=False).lift()
        assert not Inflow(0, soft=False).lift()
        flow = Inflow(5, soft=True)
        assert flow.lift()
        assert not flow.lift()
        assert flow.position() == [0, WITHOUT_END, 0]

    def test_that_discards_hands_back_what_was_unread_and_keeps_nothing_more(self) -> None:
        flow = Inflow(5, soft=False)
        flow.arrive(0, ["a", "b"], 1)
        assert flow.discard() == ["a", "b"]
        flow.arrive(2, ["c"], 2)
        assert (flow.read, flow.received, list(flow.unread)) == (3, 3, [])

    def test_has_no_position_before_anything_came(self) -> None:
        flow = Inflow(5, soft=True)
        assert flow.position() is None
        flow.arrive(0, ["a", "b"], 9)
        flow.unread.popleft()
        assert flow.position() == [2, 1, 9]


class Stream(RuleBasedStateMachine):
    """A producer, which may die at any moment, and its consumer; messages between them take their time."""

    @initialize(bound=st.integers(0, 20), soft=st.booleans(), bound_bytes=st.integers(0, 4 * LARGE_BYTES))
    def begin(self, bound: int, soft: bool, bound_bytes: int) -> None:
        self.bound = bound
        self.bound_bytes = bound_bytes if soft and bound else 0
        self.inflow = Inflow(bound, soft=soft)
        self.lifted = False
        self.discarding = False
        self.read: list[int] = []
        self.start()

    def start(self) -> None:
        """A worker gets the task: what the last one had sent has arrived, what it was told is lost."""
        self.outflow = Outflow(self.bound, self.bound_bytes, self.inflow.position())
        self.gathered: list[tuple[int, bool]] = []
        self.sent = self.outflow.skip
        self.items: deque[tuple[int, list[tuple[int, bool]]]] = deque()
        self.credits: deque[int] = deque()

    def tell(self) -> None:
        if (read := self.inflow.due()) is not None:
            self.credits.append(read)

    @precondition(lambda self: self.outflow.may_go_on())
    @rule(large=st.booleans())
    def make(self, large: bool) -> None:
        if self.bound and not self.lifted:
            assert self.outflow.produced - len(self.read) < self.bound or self.discarding
        self.gathered.append((self.outflow.produced, large))
        self.outflow.made(LARGE_BYTES if large else 1)

    @precondition(lambda self: self.gathered)
    @rule()
    def send(self) -> None:
        self.items.append((self.sent, self.gathered))
        self.sent += len(self.gathered)
        self.gathered = []

    @precondition(lambda self: self.items)
    @rule()
    def items_arrive(self) -> None:
        first, items = self.items.popleft()
        self.inflow.arrive(first, items, first, large=any(large for _, large in items))
        self.tell()

    @precondition(lambda self: self.credits)
    @rule()
    def credit_arrives(self) -> None:
        self.outflow.credit(self.credits.popleft())

    @precondition(lambda self: self.inflow.unread)
    @rule()
    def take(self) -> None:
        self.read.append(self.inflow.unread.popleft()[0])
        self.tell()

    @rule(late=st.booleans())
    def die(self, late: bool) -> None:
        if late:  # what it had sent still arrives, before the news of its death
            while self.items:
                self.items_arrive()
        self.start()

    @rule()
    def lift(self) -> None:
        if self.inflow.lift():
            self.lifted = True
            self.credits.append(WITHOUT_END)

    @rule()
    def discard(self) -> None:
        self.read += [number for number, _ in self.inflow.discard()]
        self.discarding = True
        self.tell()

    @invariant()
    def what_was_read_is_the_stream_in_order(self) -> None:
        if not self.discarding:
            assert self.read == list(range(len(self.read)))
        self.inflow.validate()

    @invariant()
    def nobody_waits_for_the_other(self) -> None:
        under_way: list[Any] = [*self.items, *self.credits, *self.gathered, *self.inflow.unread]
        assert under_way or self.outflow.may_go_on()


TestAnyOrder = Stream.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
