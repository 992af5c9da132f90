"""Whatever bytes arrive, frames or a ProtocolError come out, and nothing large is kept on a peer's word."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.exceptions import ProtocolError
from asyncray.wire.frames import LARGEST_PART_BYTES, PREFIX_BYTES, FrameDecoder, FrameEncoder, Message

LIMIT = 1 << 20

FIELDS: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
MESSAGES = st.builds(
    lambda number, fields: [number, *fields], st.integers(0, 100), st.lists(FIELDS, max_size=5)
)
BUFFERS = st.lists(st.binary(max_size=50), max_size=4)
FRAMES = st.lists(st.tuples(MESSAGES, BUFFERS), min_size=1, max_size=4)


def encoded(message: Message, buffers: list[bytes] | tuple[bytes, ...] = ()) -> bytes:
    return b"".join(bytes(part) for part in FrameEncoder(LIMIT).encode(message, buffers))


def stream(frames: list[tuple[Message, list[bytes]]]) -> bytes:
    return b"".join(encoded(message, buffers) for message, buffers in frames)


def decoded(decoder: FrameDecoder, data: bytes) -> list[tuple[Message, list[bytes]]]:
    return [(message, [bytes(buffer) for buffer in buffers]) for message, buffers in decoder.feed(data)]


def frame(header: bytes, raw: bytes = b"") -> bytes:
    return struct.pack("<II", len(header), len(raw)) + header + raw


# ---- what is sent arrives ----


@given(FRAMES)
def test_frames_arrive_whole(frames: list[tuple[Message, list[bytes]]]) -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoded(decoder, stream(frames)) == frames
    assert decoder.pending_bytes == 0


@given(FRAMES)
def test_frames_arrive_byte_by_byte(frames: list[tuple[Message, list[bytes]]]) -> None:
    decoder = FrameDecoder(LIMIT)
    arrived = []
    for byte in stream(frames):
        arrived += decoded(decoder, bytes([byte]))
    assert arrived == frames
    assert decoder.pending_bytes == 0


@given(FRAMES, st.data())
def test_frames_arrive_in_any_pieces(frames: list[tuple[Message, list[bytes]]], data: st.DataObject) -> None:
    whole = stream(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    decoder = FrameDecoder(LIMIT)
    arrived = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        arrived += decoded(decoder, whole[start:end])
    assert arrived == frames


@given(MESSAGES, BUFFERS, MESSAGES)
def test_a_frame_cut_at_any_byte_waits_for_the_rest(
    first: Message, buffers: list[bytes], second: Message
) -> None:
    whole = encoded(first, buffers)
    trailing = encoded(second)
    for cut in range(len(whole)):
        decoder = FrameDecoder(LIMIT)
        assert decoder.feed(whole[:cut]) == []
        assert decoder.pending_bytes == cut
        assert decoded(decoder, whole[cut:] + trailing) == [(first, buffers), (second, [])]


@given(MESSAGES, MESSAGES)
def test_the_beginning_of_a_trailing_frame_is_kept(first: Message, second: Message) -> None:
    whole, trailing = encoded(first), encoded(second)
    for cut in range(len(trailing)):
        decoder = FrameDecoder(LIMIT)
        assert decoded(decoder, whole + trailing[:cut]) == [(first, [])]
        assert decoder.pending_bytes == cut
        assert decoded(decoder, trailing[cut:]) == [(second, [])]


def test_empty_input_is_no_frame() -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(b"") == []
    assert decoded(decoder, encoded([1])) == [([1], [])]


def test_buffers_of_any_kind_go_beside_the_header_uncopied() -> None:
    parts = (b"bytes", bytearray(b"more"), memoryview(struct.pack("<3i", 1, 2, 3)).cast("i"))
    frame_parts = FrameEncoder(LIMIT).encode([1, "x"], parts)
    assert all(sent is given_ for sent, given_ in zip(frame_parts[-3:], parts, strict=True))
    arrived = decoded(FrameDecoder(LIMIT), b"".join(bytes(part) for part in frame_parts))
    assert arrived == [([1, "x"], [b"bytes", b"more", struct.pack("<3i", 1, 2, 3)])]


def test_the_buffers_of_a_frame_share_the_memory_that_arrived() -> None:
    data = encoded([1], [bytes(10_000)])
    [(_, [buffer])] = FrameDecoder(LIMIT).feed(data)
    assert buffer.obj is data


# ---- what is damaged is refused ----


@given(FRAMES, st.data())
def test_any_damaged_byte_gives_frames_or_a_protocol_error(
    frames: list[tuple[Message, list[bytes]]], data: st.DataObject
) -> None:
    damaged = bytearray(stream(frames))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    only_protocol_errors(bytes(damaged), data.draw(st.integers(1, len(damaged))))


@given(st.binary(max_size=200), st.integers(1, 200))
def test_any_bytes_give_frames_or_a_protocol_error(garbage: bytes, step: int) -> None:
    only_protocol_errors(garbage, step)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_header_and_raw_part_give_a_frame_or_a_protocol_error(header: bytes, raw: bytes) -> None:
    only_protocol_errors(frame(header, raw), 1000)
    only_protocol_errors(frame(b"\x91\x01", raw), 1000)


def only_protocol_errors(data: bytes, step: int) -> None:
    """Feed *data* in pieces; a decoder that has failed stays so, and keeps nothing."""
    decoder = FrameDecoder(LIMIT)
    for at in range(0, len(data), step):
        try:
            frames = decoder.feed(data[at : at + step])
        except ProtocolError:
            assert decoder.pending_bytes == 0
            with pytest.raises(ProtocolError, match="broke at an earlier frame"):
                decoder.feed(encoded([1]))
            return
        for message, _ in frames:
            assert type(message) is list
            assert type(message[0]) is int
    assert decoder.pending_bytes <= len(data)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        msgpack.packb([1]) + b"\x01",
        msgpack.packb({}),
        msgpack.packb([]),
        msgpack.packb(["1"]),
        msgpack.packb([True]),
        msgpack.packb([1.0]),
        msgpack.packb([None]),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x92\x01\xa1\xff",  # text that is no UTF-8
        b"\x92\x01\x81\x90\x01",  # a list as a key
        b"\x92\x01" + b"\x91" * 5000 + b"\x01",  # nested without end
        b"\x92\x01\xd7\xff" + b"\xff" * 8,  # an impossible time stamp
        b"\x92\x01\xc7\x03\xff\x00\x00\x00",  # a time stamp of three bytes
    ],
)
def test_a_header_that_is_no_message_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameDecoder(LIMIT).feed(frame(header))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x01",
        b"\x01\x00\x00",
        struct.pack("<I", 1),
        struct.pack("<I", 2**32 - 1),
        struct.pack("<IQ", 1, 1),
        struct.pack("<IQ", 1, 2**64 - 1),
        struct.pack("<IQQ", 2, 2**64 - 1, 1),
        struct.pack("<IQQ", 2, 2**63, 2**63),
        struct.pack("<IQ", 1, 0) + b"x",
        struct.pack("<I", 0) + b"x",
        struct.pack("<IQ", 2, 0),
    ],
)
def test_a_table_of_sizes_that_lies_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"raw part"):
        FrameDecoder(LIMIT).feed(frame(b"\x91\x01", raw))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5), st.integers(0, 2**32 - 1), st.binary(max_size=40))
def test_no_table_of_sizes_makes_buffers_that_were_not_sent(
    sizes: list[int], count: int, rest: bytes
) -> None:
    raw = struct.pack(f"<I{len(sizes)}Q", count, *sizes) + rest
    try:
        [(_, buffers)] = FrameDecoder(LIMIT).feed(frame(b"\x91\x01", raw))
    except ProtocolError:
        return
    assert len(buffers) == count
    assert sum(len(buffer) for buffer in buffers) == len(raw) - 4 - 8 * count


# ---- sizes are bounded ----


@given(st.integers(0, LARGEST_PART_BYTES), st.integers(0, LARGEST_PART_BYTES), st.integers(1, PREFIX_BYTES))
def test_an_oversized_announcement_is_refused_with_its_prefix(header: int, raw: int, step: int) -> None:
    prefix = struct.pack("<II", header, raw)
    decoder = FrameDecoder(1000)
    pieces = [prefix[at : at + step] for at in range(0, len(prefix), step)]
    for piece in pieces[:-1]:
        assert decoder.feed(piece) == []
    if header + raw <= 1000:
        return
    with pytest.raises(ProtocolError, match=f"announces {header + raw} bytes; the limit is 1000"):
        decoder.feed(pieces[-1])
    assert decoder.pending_bytes == 0


def test_nothing_of_an_announced_size_is_kept_before_it_arrives() -> None:
    decoder = FrameDecoder(LARGEST_PART_BYTES)
    tracemalloc.start()
    try:
        decoder.feed(struct.pack("<II", 2**31, 2**30))
        decoder.feed(b"x" * 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert decoder.pending_bytes == PREFIX_BYTES + 100


def test_the_limit_counts_the_header_and_the_raw_part() -> None:
    data = encoded([1], [bytes(100)])
    exact = len(data) - PREFIX_BYTES
    assert len(FrameDecoder(exact).feed(data)) == 1
    with pytest.raises(ProtocolError):
        FrameDecoder(exact - 1).feed(data)


def test_a_limit_can_be_raised_between_two_frames() -> None:
    decoder = FrameDecoder(10)
    small, large = encoded([1]), encoded([2, "x" * 100])
    assert decoded(decoder, small) == [([1], [])]
    decoder.limit(1000)
    assert decoded(decoder, large) == [([2, "x" * 100], [])]


@pytest.mark.parametrize(
    ("message", "buffers"), [([1, "x" * 200], []), ([1], [bytes(200)]), ([1], [b""] * 30)]
)
def test_an_encoder_refuses_what_no_decoder_would_take(message: Message, buffers: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="larger than the limit of 150 bytes"):
        FrameEncoder(150).encode(message, buffers)


@given(MESSAGES, BUFFERS, st.integers(0, 300))
def test_encoder_and_decoder_agree_on_the_limit(message: Message, buffers: list[bytes], limit: int) -> None:
    try:
        parts = FrameEncoder(limit).encode(message, buffers)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            FrameDecoder(limit).feed(encoded(message, buffers))
    else:
        assert len(FrameDecoder(limit).feed(b"".join(bytes(part) for part in parts))) == 1
