"""What of the store's memory can go back to the system: only what nobody has had for a whole turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncray.state.extent_cache import ExtentCache
from asyncray.state.extents import PAGE, Extents
from asyncray.state.idle_space import Spans

MIB = 1 << 20
PLACES = st.integers(0, 30)


@given(st.lists(st.tuples(st.booleans(), PLACES, PLACES)))
def test_spans_are_the_parts_that_were_added_and_not_cut(steps: list[tuple[bool, int, int]]) -> None:
    spans, model = Spans(), set[int]()
    for add, one, other in steps:
        begin, end = min(one, other), max(one, other) + 1
        if add:
            spans.add(begin, end)
            model |= set(range(begin, end))
        else:
            spans.cut(begin, end)
            model -= set(range(begin, end))
        assert {place for begin, end in spans.spans for place in range(begin, end)} == model
        assert spans.spans == sorted(spans.spans)
        assert all(before[1] < after[0] for before, after in zip(spans.spans, spans.spans[1:], strict=False))
        assert spans.size_bytes == len(model)


def due(extents: Extents) -> list[tuple[int, int]]:
    """What would go back now, as it goes."""
    found = []
    while (piece := extents.idle.next_due(MIB)) is not None:
        extents.idle.bared(*piece)
        found.append(piece)
    return found


def taken(extents: Extents, size: int) -> int:
    extent = extents.take(size)
    assert extent is not None
    return extent[0]


def test_what_was_free_for_a_turn_goes_back_piece_by_piece() -> None:
    extents = Extents(16 * MIB)
    starts = [taken(extents, 2 * MIB) for _ in range(3)]
    extents.give(starts[0])
    extents.give(starts[1])
    assert extents.turn()
    assert due(extents) == []
    assert not extents.turn()
    assert due(extents) == [(place * MIB, MIB) for place in range(4)]
    assert extents.usage().grown == 2 * MIB
    extents.turn()
    assert due(extents) == []


def test_a_loop_that_takes_and_gives_keeps_its_memory() -> None:
    extents = Extents(16 * MIB)
    for _ in range(5):
        for _ in range(3):
            extents.give(taken(extents, 4 * MIB))
        assert extents.turn()
        assert due(extents) == []
    assert extents.usage().grown == 4 * MIB


def test_what_is_taken_again_does_not_go_back() -> None:
    extents = Extents(16 * MIB)
    for start in [taken(extents, 2 * MIB) for _ in range(2)]:
        extents.give(start)
    extents.turn()
    extents.turn()
    assert extents.idle.next_due(MIB) == (0, MIB)
    extents.idle.bared(0, MIB)
    assert taken(extents, 2 * MIB) == 2 * MIB
    assert due(extents) == [(MIB, MIB)]
    assert extents.usage().grown == 2 * MIB


def test_a_process_gives_back_what_it_did_not_need_between_two_looks() -> None:
    cache = ExtentCache()
    cache.add([(place * MIB, MIB) for place in range(5)])
    assert cache.unneeded() == []
    both = [cache.take(MIB), cache.take(MIB)]
    for extent in both:
        assert extent is not None
        cache.recycle(extent[0])
    assert cache.unneeded() == [0, MIB, 2 * MIB]
    assert cache.free_bytes == 2 * MIB
    assert cache.take(MIB) is not None
    cache.recycle(3 * MIB)
    assert len(cache.unneeded()) == 1
    assert len(cache.unneeded()) == 1
    assert cache.free_bytes == 0
    assert cache.unneeded() == []


def test_what_a_process_gave_back_for_room_does_not_count_twice() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB), (MIB, MIB)])
    cache.unneeded()
    assert cache.surplus(MIB) == [0]
    cache.add([(2 * MIB, MIB)])
    assert cache.unneeded() == [MIB]


class GivingBack(RuleBasedStateMachine):
    """A store whose free memory goes back, at any moment between the steps of those who use it."""

    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents(8 * MIB)
        self.mine: dict[int, int] = {}
        #: Pages that take memory, and for how many turns nobody has had them.
        self.pages: dict[int, int] = {}

    @rule(size=st.integers(1, 3 * MIB))
    def take(self, size: int) -> None:
        extent = self.extents.take(size)
        if extent is not None:
            self.mine[extent[0]] = extent[1]
            self.pages.update(dict.fromkeys(self.pages_of(*extent), 0))

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted(self.mine)))
        self.pages.update(dict.fromkeys(self.pages_of(start, self.mine.pop(start)), 0))
        self.extents.give(start)

    @rule()
    def turn(self) -> None:
        held = {page for extent in self.mine.items() for page in self.pages_of(*extent)}
        for page in self.pages:
            self.pages[page] = 0 if page in held else self.pages[page] + 1
        self.extents.turn()

    @rule(most=st.integers(1, 100))
    def give_back(self, most: int) -> None:
        piece = self.extents.idle.next_due(most * PAGE)
        if piece is None:
            return
        for page in self.pages_of(*piece):
            assert self.pages.pop(page) >= 2
        self.extents.idle.bared(*piece)

    @rule()
    def give_all_back(self) -> None:
        for _ in range(3):
            self.turn()
            while self.extents.idle.next_due(8 * MIB) is not None:
                self.give_back(2048)
        assert len(self.pages) * PAGE == sum(self.mine.values())

    @invariant()
    def what_is_said_to_take_memory_does(self) -> None:
        assert self.extents.usage().grown == len(self.pages) * PAGE
        self.extents.validate()

    @staticmethod
    def pages_of(start: int, length: int) -> range:
        return range(start // PAGE, (start + length) // PAGE)


TestGivingBack = GivingBack.TestCase
