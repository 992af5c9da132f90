"""Arguments arrive as they were given; references given directly become dependencies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.client.arguments import (
    Arguments,
    arguments_from_wire,
    arguments_to_wire,
    decode_arguments,
    encode_arguments,
    with_numbers,
)
from asyncray.exceptions import ProtocolError
from asyncray.refs import ObjectRef, restore
from asyncray.state.objects import FAILED, PENDING, READY
from asyncray.wire.frames import FrameDecoder, FrameEncoder
from asyncray.wire.values import BufferFeed, Encoded
from tests.fakes import FakeOwner

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
POSITIONAL = st.lists(VALUES, max_size=5)
KEYWORDS = st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=3)
FIELDS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def carried(arguments: Any) -> Arguments:
    """Arguments after a journey in a frame."""
    buffers: list[Any] = []
    parts = FrameEncoder(1 << 28).encode([1, arguments_to_wire(arguments, buffers)], buffers)
    [(message, arrived)] = FrameDecoder(1 << 28).feed(b"".join(bytes(part) for part in parts))
    payload, addresses = arguments_from_wire(message[1], BufferFeed(arrived))
    if addresses:
        assert type(payload) is Encoded
        payload.refs = [restore(*address) for address in addresses]
    return payload


def arrived(*args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """What a function would be called with; a reference's value is "value of" and its number."""
    arguments, dependencies = encode_arguments(args, kwargs)
    return decode_arguments(
        carried(arguments), list(dependencies or ()), lambda ref: f"value of {ref._record.number}"
    )


@given(POSITIONAL, KEYWORDS)
def test_arguments_arrive_as_they_were_given(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert arrived(*args, **kwargs) == (args, kwargs)


@given(POSITIONAL, KEYWORDS, st.data())
def test_references_given_directly_arrive_as_their_values(
    args: list[Any], kwargs: dict[str, Any], data: st.DataObject
) -> None:
    owner = FakeOwner()
    numbers = iter(range(100))
    expected_args, expected_kwargs = list(args), dict(kwargs)
    for position in range(len(args)):
        if data.draw(st.booleans()):
            number = next(numbers)
            args[position], expected_args[position] = owner.ref(number), f"value of {number}"
    for name in kwargs:
        if data.draw(st.booleans()):
            number = next(numbers)
            kwargs[name], expected_kwargs[name] = owner.ref(number), f"value of {number}"
    assert arrived(*args, **kwargs) == (expected_args, expected_kwargs)
    assert owner.sent == []


@pytest.mark.parametrize(
    ("args", "form"),
    [
        ((), None),
        ((1, "a", None, 2.5, True), [1, "a", None, 2.5, True]),
        ((b"bytes",), bytes),
        ((2**64,), bytes),
        (("\ud800",), bytes),
        (([],), bytes),
    ],
)
def test_the_common_call_pickles_nothing(args: Any, form: Any) -> None:
    arguments, dependencies = encode_arguments(args, {})
    assert dependencies is None
    assert type(arguments) is form if isinstance(form, type) else arguments == form


def test_scalars_and_references_pickle_nothing_either() -> None:
    ref = FakeOwner().ref(7)
    assert encode_arguments((1, ref), {}) == ([1, None], [(1, ref)])


def test_the_same_reference_twice_is_two_dependencies() -> None:
    ref = FakeOwner().ref(7)
    assert encode_arguments((ref, ref), {"k": ref})[1] == [(0, ref), (1, ref), ("k", ref)]


def test_the_arguments_of_the_caller_are_not_changed() -> None:
    ref = FakeOwner().ref(7)
    args, kwargs = (ref, [1]), {"k": ref}
    encode_arguments(args, kwargs)
    assert args == (ref, [1])
    assert kwargs == {"k": ref}


def test_references_inside_containers_stay_references() -> None:
    owner = FakeOwner()
    inside = owner.ref(7)
    arguments, dependencies = encode_arguments(([inside],), {})
    assert type(arguments) is Encoded
    assert dependencies is None
    assert list(arguments.refs) == [inside]
    buffers: list[Any] = []
    field = arguments_to_wire(arguments, buffers)
    _, addresses = arguments_from_wire(_through_msgpack(field), BufferFeed([]))
    assert [number for _, _, number in addresses] == [7]
    with owner.current():
        [[value]], _ = decode_arguments(carried(arguments), [], lambda ref: ref)
    assert type(value) is ObjectRef


def test_large_arrays_travel_beside_the_message() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    buffers: list[Any] = []
    arguments: Any = encode_arguments((1, array), {"k": array})[0]
    arguments_to_wire(arguments, buffers)
    assert [len(buffer) for buffer in buffers] == [array.nbytes]
    [_, positional], keywords = arrived(1, array, k=array)
    assert numpy.array_equal(positional, array)
    assert numpy.array_equal(keywords["k"], array)


@given(FIELDS, st.integers(0, 2))
def test_any_field_is_arguments_or_refused(field: Any, buffers: int) -> None:
    try:
        arguments, _ = arguments_from_wire(field, BufferFeed([memoryview(b"x")] * buffers))
    except ProtocolError:
        return
    assert arguments is None or type(arguments) in {list, bytes, Encoded}


@pytest.mark.parametrize("field", [5, "text", 1.5, True, {}, [[]], [[b"", 0]], [[b"", 1, []]]])
def test_a_field_that_is_no_arguments_is_refused(field: Any) -> None:
    with pytest.raises(ProtocolError):
        arguments_from_wire(field, BufferFeed([]))


def _through_msgpack(field: Any) -> Any:
    [(message, _)] = FrameDecoder(10_000).feed(b"".join(map(bytes, FrameEncoder(10_000).encode([1, field]))))
    return message[1]


def test_numbers_that_are_there_stand_in_the_places_of_their_references() -> None:
    owner = FakeOwner()
    values: list[Any] = [1, -2.5, None, True, "text", b"pickled", 7, 8]
    states = [READY] * 6 + [FAILED, PENDING]
    refs = [owner.ref(number) for number in range(8)]
    for ref, value, state in zip(refs, values, states, strict=True):
        ref._record.value, ref._record.state = value, state  # type: ignore[attr-defined]
    arguments, dependencies = encode_arguments((0, *refs), {})
    assert arguments == [0, *[None] * 8]
    assert dependencies is not None
    filled, others = with_numbers(arguments, dependencies)
    assert filled == [0, 1, -2.5, None, True, None, None, None, None]
    assert others == [(place, refs[place - 1]) for place in range(5, 9)]
    assert arguments == [0, *[None] * 8]
    assert with_numbers(arguments, dependencies[:2])[1] is None
