"""Every message is checked by its schema, and a wrong one is a ProtocolError whatever is wrong with it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.exceptions import ProtocolError
from asyncray.wire import handshake, messages
from asyncray.wire.frames import FrameDecoder, FrameEncoder
from asyncray.wire.messages import FIRST_CHECKED, SCHEMAS, check, check_numbers, check_rows

OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**63 - 1),
    float: st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    str: st.text(max_size=10),
    bytes: st.binary(max_size=10),
    bool: st.booleans(),
    list: st.lists(st.integers(0, 9), max_size=3),
    dict: st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3),
    type(None): st.none(),
    object: st.none() | st.integers(0, 9) | st.text(max_size=3),
}
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(*OF_TYPE.values()), lambda inner: st.lists(inner, max_size=4), max_leaves=8
)


def kinds(field: Any) -> tuple[Any, ...]:
    return field if isinstance(field, tuple) else (field,)


@st.composite
def well_formed(draw: st.DrawFn) -> list[Any]:
    number = draw(st.sampled_from(sorted(SCHEMAS)))
    return [
        number,
        *(draw(st.one_of(*(OF_TYPE[kind] for kind in kinds(field)))) for field in SCHEMAS[number][1]),
    ]


@given(well_formed())
def test_a_message_of_its_schema_is_let_through_as_it_is(message: list[Any]) -> None:
    assert check(message) is message


@given(well_formed())
def test_every_well_formed_message_survives_the_wire(message: list[Any]) -> None:
    data = b"".join(bytes(part) for part in FrameEncoder(10_000).encode(message))
    [(arrived, _)] = FrameDecoder(10_000).feed(data)
    assert repr(check(arrived)) == repr(message)  # by repr, because NaN is not itself


@given(well_formed(), st.data())
def test_a_message_cut_or_repeated_is_refused(message: list[Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(message)))
    damaged = data.draw(st.sampled_from([message[:cut], message + message, [*message, None]]))
    if len(damaged) == len(message):
        assert check(damaged) == damaged
        return
    with pytest.raises(
        ProtocolError, match=rf"^{SCHEMAS[message[0]][0]} has \d+ fields, not {len(damaged) - 1}$"
    ):
        check(damaged)


@given(well_formed(), ANYTHING, st.data())
def test_a_damaged_field_is_refused_or_of_an_allowed_type(
    message: list[Any], damage: Any, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(message) - 1))
    damaged = [*message[:position], damage, *message[position + 1 :]]
    if type(damaged[0]) is not int:
        return  # refused with its frame
    try:
        check(damaged)
    except ProtocolError:
        return
    name, fields = SCHEMAS[damaged[0]]
    for value, field in zip(damaged[1:], fields, strict=True):
        assert isinstance(value, field), name


@given(st.integers(-(2**63), 2**64 - 1), st.lists(ANYTHING, max_size=6))
def test_any_message_at_all_is_let_through_or_refused(number: int, fields: list[Any]) -> None:
    with contextlib.suppress(ProtocolError):
        check([number, *fields])


@pytest.mark.parametrize("number", [number for number in range(-1, 300) if number not in SCHEMAS])
def test_an_unknown_number_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match=f"^unknown message number {number}$"):
        check([number])


@pytest.mark.parametrize("number", sorted(SCHEMAS))
def test_each_field_of_each_message_is_checked(number: int) -> None:
    name, fields = SCHEMAS[number]
    example = {int: 1, str: "", bytes: b"", bool: True, list: [], dict: {}, object: 1, float: 1.0}
    message = [number, *(example[kinds(field)[0]] for field in fields)]
    check(message)
    for position, field in enumerate(fields, 1):
        if field is not object:
            damaged = [*message[:position], {1, 2}, *message[position + 1 :]]
            with pytest.raises(ProtocolError, match=f"^field {position} of {name} cannot be set$"):
                check(damaged)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), -1])
def test_seconds_are_finite_and_not_negative(seconds: float) -> None:
    with pytest.raises(ProtocolError, match=r"^field 2 of RESULTS cannot be "):
        check([messages.RESULTS, [], seconds])


@pytest.mark.parametrize("seconds", [0, 0.0, 1e-300, 3, True])
def test_seconds_may_come_as_any_number(seconds: float) -> None:
    message = [messages.RESULTS, [], seconds]
    assert check(message) is message


def test_the_numbers_are_one_per_message_and_apart_from_the_handshake() -> None:
    names = [name for name, _ in SCHEMAS.values()]
    assert len(set(names)) == len(names)
    assert {number: getattr(messages, name) for number, (name, _) in SCHEMAS.items()} == {
        n: n for n in SCHEMAS
    }
    assert min(SCHEMAS) >= FIRST_CHECKED > max(handshake.HELLO, handshake.WELCOME, handshake.REFUSED)


# ---- rows and numbers ----


@given(st.lists(ANYTHING, max_size=4), st.integers(1, 4))
def test_rows_are_lists_of_their_width_that_begin_with_a_number(rows: list[Any], width: int) -> None:
    right = all(type(row) is list and len(row) == width and type(row[0]) is int for row in rows)
    try:
        check_rows("RESULTS", rows, width)
    except ProtocolError as error:
        assert not right
        assert "RESULTS" in str(error)  # noqa: PT017 - the other outcome is right too
    else:
        assert right


@given(st.lists(st.lists(st.integers(), min_size=3, max_size=3), max_size=4))
def test_right_rows_are_let_through(rows: list[Any]) -> None:
    check_rows("RESULTS", rows, 3)


@pytest.mark.parametrize("numbers", [[-1], [1.0], [True], ["1"], [None], [[1]], [0, 1, -5]])
def test_what_is_no_number_of_an_object_is_refused(numbers: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="GET carries something"):
        check_numbers("GET", numbers)


@given(st.lists(st.integers(min_value=0)))
def test_numbers_of_objects_are_let_through(numbers: list[int]) -> None:
    check_numbers("GET", numbers)
