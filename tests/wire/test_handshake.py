"""A connection's first message is accepted whole or refused, and tells no secret."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.exceptions import AuthenticationError, ProtocolError
from asyncray.wire.frames import FrameEncoder
from asyncray.wire.handshake import (
    HELLO,
    HELLO_BYTES,
    PROTOCOL_VERSION,
    PURPOSES,
    REFUSED,
    WELCOME,
    Credentials,
    Hello,
    Identity,
    check_hello,
    hello,
    refused,
    welcome,
)

OURS = Credentials(b"session-" * 2, b"secret token of ours")
CALLER = Identity(bytes(range(16)), "unix:@asyncray/abc", 4711)

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def good(purpose: str = "control") -> list[Any]:
    return hello(OURS, purpose, CALLER)


@pytest.mark.parametrize("purpose", sorted(PURPOSES))
def test_a_hello_of_the_session_is_accepted(purpose: str) -> None:
    assert check_hello(good(purpose), OURS) == Hello(purpose, CALLER)


@given(st.binary(max_size=64), st.binary(max_size=64), st.text(max_size=200), st.integers(0, 2**31))
def test_any_identity_and_credentials_survive(session: bytes, token: bytes, address: str, pid: int) -> None:
    credentials = Credentials(session, token)
    caller = Identity(session, address, pid)
    assert check_hello(hello(credentials, "peer", caller), credentials) == Hello("peer", caller)


def test_a_hello_fits_the_frame_that_is_allowed_before_it() -> None:
    FrameEncoder(HELLO_BYTES).encode(hello(Credentials(bytes(16), bytes(64)), "control", CALLER))


def test_answers_tell_the_version_and_the_reason() -> None:
    assert welcome() == [WELCOME, PROTOCOL_VERSION]
    assert refused("no") == [REFUSED, "no"]


@given(st.binary(max_size=40).filter(lambda other: other != OURS.session_id))
def test_another_session_is_refused(session_id: bytes) -> None:
    with pytest.raises(AuthenticationError, match=r"^the peer belongs to another session$"):
        check_hello(hello(Credentials(session_id, OURS.token), "control", CALLER), OURS)


@given(st.binary(max_size=40).filter(lambda other: other != OURS.token))
def test_another_token_is_refused_and_not_repeated(token: bytes) -> None:
    with pytest.raises(AuthenticationError) as refusal:
        check_hello(hello(Credentials(OURS.session_id, token), "control", CALLER), OURS)
    assert str(refusal.value) == "the peer's token is wrong"


@given(ANYTHING.filter(lambda version: version != PROTOCOL_VERSION))
def test_another_version_is_refused_with_both_numbers_before_anything_else(version: Any) -> None:
    for message in ([HELLO, version], [HELLO, version, "new", "fields"], [HELLO, version, *good()[2:]]):
        with pytest.raises(ProtocolError) as refusal:
            check_hello(message, OURS)
        assert f"version {version!r}; this process speaks {PROTOCOL_VERSION}" in str(refusal.value)
        assert not isinstance(refusal.value, AuthenticationError)


@given(st.integers().filter(lambda number: number != HELLO))
def test_another_first_message_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match=rf"must begin with a hello, not with message number {number}$"):
        check_hello([number, *good()[1:]], OURS)


@pytest.mark.parametrize("purpose", ["", "CONTROL", "other"])
def test_another_purpose_is_refused(purpose: str) -> None:
    with pytest.raises(ProtocolError, match=r"one of \['control', 'peer', 'task'\], not "):
        check_hello(good(purpose), OURS)


@pytest.mark.parametrize("length", range(1, 16))
def test_a_hello_cut_or_repeated_is_refused(length: int) -> None:
    message = (good() + good())[:length]
    if length == len(good()):
        return
    with pytest.raises(ProtocolError):
        check_hello(message, OURS)


@given(st.integers(1, 7), ANYTHING)
def test_a_damaged_field_is_accepted_whole_or_refused(position: int, damage: Any) -> None:
    message = good()
    message[position] = damage
    with contextlib.suppress(ProtocolError):
        assert check_hello(message, OURS).purpose in PURPOSES


@given(st.lists(ANYTHING, max_size=10))
def test_any_fields_are_accepted_or_refused(fields: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        check_hello([HELLO, *fields], OURS)


@given(st.integers(2, 7), st.data())
def test_no_refusal_repeats_a_secret(position: int, data: st.DataObject) -> None:
    message = good()
    message[position] = data.draw(ANYTHING)
    for damaged in (message, message[:position], [9, *message[1:]]):
        try:
            check_hello(damaged, OURS)
        except ProtocolError as error:
            assert "secret" not in str(error)  # noqa: PT017 - a damage may also be none
