"""Values come back as they were: types, buffers and references too; a damaged field is a ProtocolError."""

from __future__ import annotations

import enum
import math
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.exceptions import ProtocolError, SessionClosedError
from asyncray.process import Process, enter, leave
from asyncray.refs import restore
from asyncray.wire.frames import FrameDecoder, FrameEncoder
from asyncray.wire.values import (
    OUT_OF_BAND_BYTES,
    SCALARS,
    BufferFeed,
    Encoded,
    Payload,
    are_numbers,
    check_addresses,
    decode,
    encode,
    encode_in_band,
    encode_pickled,
    from_wire,
    is_scalar,
    size_bytes,
    to_wire,
)
from tests.fakes import FakeOwner

SCALAR_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.text()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALAR_VALUES.filter(lambda value: value == value) | st.binary(),  # noqa: PLR0124 - NaN is not itself
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=12,
)
FIELDS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


class Number(int):
    pass


class Text(str):
    __slots__ = ()


class Real(float):
    pass


class Colour(enum.IntEnum):
    RED = 1


def carried(payload: Payload) -> tuple[Payload, list[Any]]:
    """A payload after a journey in a frame."""
    buffers: list[Any] = []
    parts = FrameEncoder(1 << 28).encode([1, to_wire(payload, buffers)], buffers)
    [(message, arrived)] = FrameDecoder(1 << 28).feed(b"".join(bytes(part) for part in parts))
    payload, addresses = from_wire(message[1], BufferFeed(arrived))
    return payload, addresses


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and (left == right or (left != left and right != right))  # noqa: PLR0124 - NaN


# ---- round trips ----


@given(SCALAR_VALUES)
def test_scalars_come_back_as_their_exact_types(value: Any) -> None:
    assert same(decode(encode(value)), value)
    payload, addresses = carried(encode(value))
    assert same(decode(payload), value)
    assert addresses == []


@given(VALUES)
def test_any_value_comes_back(value: Any) -> None:
    payload, _ = carried(encode(value))
    assert decode(payload) == value
    payload, _ = carried(encode_pickled(value))
    assert decode(payload) == value


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63) - 1,
        2**200,
        "\ud800",
        "a\udfffb",
        "x" * 1025,
        "é" * 2000,
        "\ud800" * 2000,
        -0.0,
        math.inf,
    ],
)
def test_what_msgpack_could_not_carry_comes_back(value: Any) -> None:
    payload, _ = carried(encode(value))
    assert same(decode(payload), value)
    assert str(decode(payload)) == str(value)


@pytest.mark.parametrize("value", [Number(5), Text("a"), Real(1.5), Colour.RED, True, False])
def test_a_subclass_of_a_scalar_keeps_its_type(value: Any) -> None:
    assert is_scalar(value) == (type(value) is bool)
    payload, _ = carried(encode(value))
    assert same(decode(payload), value)


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        (2**63 - 1, True),
        (2**63, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        ("x" * 1024, True),
        ("x" * 1025, False),
        ("é", True),
        ("\ud800", False),
        (b"", False),
        ((), False),
        (1j, False),
    ],
)
def test_only_small_values_that_cannot_change_travel_as_themselves(value: object, scalar: bool) -> None:
    assert is_scalar(value) == scalar
    assert (type(encode(value)) in SCALARS) == scalar


@given(st.lists(SCALAR_VALUES | st.integers(-(2**64), 2**64)))
def test_several_numbers_are_told_at_a_look(values: list[Any]) -> None:
    expected = all(is_scalar(value) and type(value) is not str for value in values)
    assert are_numbers(values) == expected


def test_functions_of_the_place_go_by_value() -> None:
    offset = 2
    payload, _ = carried(encode(lambda x: x + offset))
    assert decode(payload)(1) == 3


def test_each_decoding_makes_a_new_value() -> None:
    payload = encode([1, [2]])
    assert decode(payload) == decode(payload)
    assert decode(payload) is not decode(payload)


def test_what_cannot_be_pickled_raises_what_pickle_raises() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        encode(threading.Lock())


# ---- buffers ----


@pytest.mark.parametrize("count", [1, OUT_OF_BAND_BYTES - 1, OUT_OF_BAND_BYTES, OUT_OF_BAND_BYTES * 3])
def test_an_array_travels_beside_its_pickle_when_it_is_large(count: int) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(count, dtype=numpy.uint8)
    payload = encode({"a": array, "b": [array[::2], array]})
    assert (type(payload) is Encoded) == (count >= OUT_OF_BAND_BYTES)
    arrived, _ = carried(payload)
    value = decode(arrived)
    assert numpy.array_equal(value["a"], array)
    assert numpy.array_equal(value["b"][0], array[::2])
    assert value["b"][1] is value["a"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_shape_order_and_type_of_an_array_survive(order: Any) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(60_000, dtype=">i4").reshape(200, 300).copy(order=order)
    value = decode(carried(encode(array))[0])
    assert numpy.array_equal(value, array)
    assert (value.dtype, value.flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)


def test_a_payload_shares_no_memory_with_its_value() -> None:
    numpy = pytest.importorskip("numpy")
    for count in (10, OUT_OF_BAND_BYTES):
        array = numpy.zeros(count, dtype=numpy.uint8)
        payload = encode(array)
        array[:] = 1
        assert not decode(payload).any()


def test_the_buffers_of_several_payloads_come_back_to_their_own() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(OUT_OF_BAND_BYTES + step, step, dtype=numpy.uint8) for step in range(4)]
    buffers: list[Any] = []
    values = [arrays[:2], "text", arrays[2], [1], arrays[3]]
    fields = [to_wire(encode(value), buffers) for value in values]
    feed = BufferFeed([memoryview(buffer) for buffer in buffers])
    arrived = [decode(from_wire(field, feed)[0]) for field in fields]
    assert numpy.array_equal(arrived[0][1], arrays[1])
    assert arrived[1] == "text"
    assert numpy.array_equal(arrived[2], arrays[2])
    assert numpy.array_equal(arrived[4], arrays[3])


def test_sizes_count_the_pickle_and_its_buffers() -> None:
    assert size_bytes(None) == size_bytes(5) == 16
    assert size_bytes("abc") == size_bytes(b"abc") == 3
    assert size_bytes(Encoded(b"12", [b"345", memoryview(bytes(8)).cast("q")])) == 13


# ---- references ----


def test_references_inside_are_noted_held_and_restored() -> None:
    owner = FakeOwner()
    first, second = owner.ref(7), owner.ref(8)
    payload = encode({"a": first, "b": [second, first]})
    assert type(payload) is Encoded
    assert list(payload.refs) == [first, second]
    arrived, addresses = carried(payload)
    assert addresses == [(owner.process_id, owner.address, 7), (owner.process_id, owner.address, 8)]
    assert type(arrived) is Encoded
    assert list(arrived.refs) == []
    with owner.current():
        arrived.refs = [restore(*address) for address in addresses]
        value = decode(arrived)
    assert [ref._record.number for ref in (value["a"], *value["b"])] == [7, 8, 7]
    assert value["b"][1] is value["a"]
    assert owner.restored == addresses


def test_a_reference_alone_is_a_value_like_any_other() -> None:
    owner = FakeOwner()
    payload, addresses = carried(encode(owner.ref(3)))
    assert [number for _, _, number in addresses] == [3]
    assert type(payload) is Encoded
    with owner.current():
        payload.refs = [restore(*address) for address in addresses]
        assert decode(payload) is payload.refs[0]


def test_a_value_whose_references_did_not_come_along_is_refused() -> None:
    payload, _ = carried(encode([FakeOwner().ref(3)]))
    with pytest.raises(ProtocolError, match="names reference 0"):
        decode(payload)


def test_references_in_a_closure_are_noted() -> None:
    ref = FakeOwner().ref(5)
    payload = encode(lambda: ref)
    assert type(payload) is Encoded
    assert list(payload.refs) == [ref]


def test_a_reference_needs_a_session_where_it_arrives() -> None:
    data, _ = encode_in_band([FakeOwner().ref(1)])
    token = enter(Process())
    try:
        with pytest.raises(SessionClosedError, match="open session"):
            pickle.loads(data)
    finally:
        leave(token)


# ---- damage ----


@given(FIELDS, st.integers(0, 3))
def test_any_field_is_a_payload_or_refused(field: Any, buffers: int) -> None:
    feed = BufferFeed([memoryview(b"x")] * buffers)
    try:
        payload, addresses = from_wire(field, feed)
    except ProtocolError:
        return
    assert type(payload) in {*SCALARS, bytes, Encoded}
    assert addresses == check_addresses([list(address) for address in addresses])


@given(st.integers(0, 2), FIELDS, st.integers(0, 2))
def test_a_payload_with_a_damaged_part_is_a_payload_or_refused(
    position: int, damage: Any, buffers: int
) -> None:
    field: list[Any] = [b"pickle", buffers, [[b"p", "a", 1]]]
    field[position] = damage
    feed = BufferFeed([memoryview(b"x")] * buffers)
    try:
        payload, _ = from_wire(field, feed)
    except ProtocolError:
        return
    assert type(payload) is Encoded
    assert len(payload.buffers) <= buffers


@pytest.mark.parametrize(
    "field", [[], [b""], [b"", 0], [b"", 0, [], 1], ["", 0, []], [b"", True, []], {}, [1, 2]]
)
def test_a_field_of_another_shape_is_refused(field: Any) -> None:
    with pytest.raises(ProtocolError, match="a value cannot travel as"):
        from_wire(field, BufferFeed([]))


@pytest.mark.parametrize("count", [1, 3, 2**62, -1, -(2**62)])
def test_more_buffers_than_came_are_refused(count: int) -> None:
    feed = BufferFeed([memoryview(b"x"), memoryview(b"y")])
    feed.take(2)
    with pytest.raises(ProtocolError, match="more buffers than its frame carries"):
        from_wire([b"", count, []], feed)


@pytest.mark.parametrize(
    "refs",
    [None, {}, [1], [[]], [[b"", ""]], [["", "", 1]], [[b"", b"", 1]], [[b"", "", True]], [[b"", "", 1, 1]]],
)
def test_references_of_another_shape_are_refused(refs: Any) -> None:
    with pytest.raises(ProtocolError, match="reference"):
        check_addresses(refs)


@given(st.data())
def test_a_damaged_pickle_never_brings_the_decoder_down(data: st.DataObject) -> None:
    payload = encode([1, "text", {"a": 2.0}])
    assert type(payload) is bytes
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    with pytest.raises((EOFError, pickle.UnpicklingError, ValueError, IndexError)):
        decode(cut)
