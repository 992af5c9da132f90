"""Ids say who made a thing and its number there."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.ids import new_process_id, object_binary, parse_object_binary, short

PROCESS = bytes(range(16))


def test_a_process_id_is_what_the_given_randomness_says() -> None:
    first = new_process_id(random.Random(7).randbytes)

    assert len(first) == 16
    assert first == new_process_id(random.Random(7).randbytes)
    assert first != new_process_id(random.Random(8).randbytes)


def test_randomness_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a process id has 16 bytes, not 3"):
        new_process_id(lambda _: b"abc")


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
def test_an_object_id_gives_back_its_process_and_number(process_id: bytes, number: int) -> None:
    binary = object_binary(process_id, number)

    assert len(binary) == 28
    assert parse_object_binary(binary) == (process_id, number)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2))
def test_ids_of_one_process_sort_by_number(numbers: list[int]) -> None:
    in_order = [object_binary(PROCESS, number) for number in sorted(numbers)]

    assert sorted(in_order) == in_order


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        object_binary(PROCESS, number)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_process_id_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"a process id has 16 bytes, not {length}"):
        object_binary(bytes(length), 1)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_object_id_are_refused_and_never_misread(binary: bytes) -> None:
    try:
        process_id, number = parse_object_binary(binary)
    except ValueError:
        assert len(binary) != 28 or binary[24:] != bytes(4)
    else:
        assert object_binary(process_id, number) == binary


def test_short_forms_tell_processes_and_objects_apart() -> None:
    assert short(PROCESS) == "00010203"
    assert short(object_binary(PROCESS, 17)) == "00010203:17"
    assert short(b"\xff") == "ff"
