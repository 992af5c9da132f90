"""The allocator of the store: extents never overlap, lie on pages, and all come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncray.state.extent_cache import ExtentCache
from asyncray.state.extents import PAGE, Extents, room_for

MIB = 1 << 20
SIZES = st.one_of(st.integers(1, 40 * PAGE), st.integers(1, 64 * MIB))


@given(st.integers(1, 1 << 45))
def test_an_extent_holds_its_value_and_wastes_at_most_an_eighth(size: int) -> None:
    room = room_for(size)
    assert room % PAGE == 0
    assert 0 <= room - size < max(PAGE, size / 8)
    assert room_for(room) == room


def test_nothing_takes_no_extent() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        room_for(0)


def test_what_is_given_back_is_used_again_at_once() -> None:
    extents = Extents(64 * MIB)
    start, _ = extents.take(MIB) or (None, 0)
    assert start is not None
    extents.give(start)
    assert extents.take(MIB) == (start, MIB)
    assert extents.usage().grown == MIB


def test_small_pieces_that_are_free_become_a_large_one() -> None:
    extents = Extents(64 * MIB)
    starts = [extents.take(MIB) for _ in range(64)]
    assert extents.take(PAGE) is None
    for extent in starts:
        assert extent is not None
        extents.give(extent[0])
    assert extents.take(64 * MIB) == (0, 64 * MIB)


def test_free_space_right_before_the_fresh_part_is_used_with_it() -> None:
    extents = Extents(10 * MIB)
    start, _ = extents.take(4 * MIB) or (-1, 0)
    extents.give(start)
    assert extents.take(10 * MIB) == (0, 10 * MIB)


def test_changing_sizes_do_not_keep_the_pages_of_every_size() -> None:
    extents = Extents(1 << 40)
    for step in range(100):
        start, _ = extents.take(100 * MIB + step * 16 * MIB) or (-1, 0)
        extents.give(start)
    # The last is 1.7 GiB; all of them together would be 90.
    assert extents.usage().grown < 5 << 30


def test_fragmentation_is_the_share_that_one_extent_cannot_have() -> None:
    extents = Extents(4 * MIB)
    starts = [extents.take(MIB) for _ in range(4)]
    for extent in starts[::2]:
        assert extent is not None
        extents.give(extent[0])
    usage = extents.usage()
    assert (usage.free, usage.largest_free, usage.fragmentation) == (2 * MIB, MIB, 0.5)


class Allocating(RuleBasedStateMachine):
    """Extents of random sizes, taken and given back in any order, in a store that is often full."""

    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents(256 * MIB)
        self.mine: dict[int, int] = {}

    @rule(size=SIZES)
    def take(self, size: int) -> None:
        extent = self.extents.take(size)
        if extent is None:
            assert self.extents.usage().largest_free < room_for(size)
            return
        start, room = extent
        assert start % PAGE == 0
        assert room >= size
        assert start not in self.mine
        self.mine[start] = room

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted(self.mine)))
        assert self.extents.give(start) == self.mine.pop(start)

    @rule()
    def look(self) -> None:
        usage = self.extents.usage()
        assert usage.taken == sum(self.mine.values())
        assert 0 <= usage.fragmentation <= 1

    @invariant()
    def nothing_overlaps(self) -> None:
        self.extents.validate()
        assert self.extents.taken == self.mine

    def teardown(self) -> None:
        for start in self.mine:
            self.extents.give(start)
        assert self.extents.take(256 * MIB) == (0, 256 * MIB)


TestAllocating = Allocating.TestCase


def test_a_process_takes_what_it_used_last() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB), (MIB, MIB), (2 * MIB, 2 * MIB)])
    assert cache.take(MIB) == (MIB, MIB)
    assert cache.take(MIB) == (0, MIB)
    assert cache.take(MIB) is None
    assert cache.recycle(MIB)
    assert not cache.recycle(MIB)
    assert cache.take(MIB) == (MIB, MIB)


def test_only_the_owner_of_a_result_frees_its_extent() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB)])
    cache.take(MIB)
    cache.hand_over(0, b"owner")
    assert not cache.recycle_from(0, b"another")
    assert cache.recycle_from(0, b"owner")
    assert not cache.recycle_from(0, b"owner")


def test_results_of_a_dead_owner_are_not_this_process_s_any_more() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB), (MIB, MIB)])
    for start, _ in (cache.take(MIB), cache.take(MIB)):  # type: ignore[misc]
        cache.hand_over(start, b"dead" if start else b"alive")
    assert cache.orphans(b"dead") == [MIB]
    assert cache.orphans(b"dead") == []
    assert not cache.recycle(MIB)


def test_the_surplus_is_what_lay_unused_for_longest() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB), (MIB, MIB), (2 * MIB, MIB)])
    assert cache.surplus(2 * MIB) == [0]
    assert cache.free_bytes == 2 * MIB
    assert cache.surplus(0) == [MIB, 2 * MIB]
    assert cache.free_bytes == 0


def test_what_was_used_last_is_spared_however_long_it_is() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB), (MIB, MIB), (8 * MIB, 8 * MIB), (16 * MIB, 8 * MIB)])
    last = cache.take(8 * MIB)
    assert last == (16 * MIB, 8 * MIB)
    cache.recycle(16 * MIB)
    assert cache.surplus(MIB, spare_last=True) == [8 * MIB, 0]
    assert cache.free_bytes == 9 * MIB
    assert cache.surplus(MIB, spare_last=True) == []
    assert cache.take(8 * MIB) == last
    assert cache.surplus(0, spare_last=True) == [MIB]


def test_nothing_is_spared_when_all_must_go() -> None:
    cache = ExtentCache()
    cache.add([(0, MIB)])
    cache.take(MIB)
    cache.recycle(0)
    assert cache.surplus(0) == [0]
