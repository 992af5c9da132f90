"""Frames: a message and its raw buffers as bytes, and back.

A frame is an 8-byte prefix (little-endian: bytes of the header, bytes of the raw part), the header (one
msgpack value, the message) and the raw part. The raw part, when there is one, begins with the number of
buffers (u32) and their sizes (u64 each); the buffers follow, so that a large value is never copied into
the header.

Rule 1: bytes in, messages out; this file never touches a socket.
Rule 2: whatever bytes arrive, the only exception that leaves is ProtocolError. After it the stream has no
        frame boundary any more, so the decoder refuses further input.
Rule 3: sizes are checked before anything of that size is kept.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import msgpack

from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

Message = list[Any]
Buffer = bytes | bytearray | memoryview
Frame = tuple[Message, list[memoryview]]

_PREFIX: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<I")
PREFIX_BYTES: Final = _PREFIX.size
#: Largest size a prefix can state: the two lengths are unsigned 32-bit numbers.
LARGEST_PART_BYTES: Final = 2**32 - 1
_NO_BUFFERS: Final[list[memoryview]] = []


class FrameEncoder:
    """Turns messages into frames. Not thread-safe: each connection has its own, used under its lock."""

    __slots__ = ("_limit", "_pack")

    def __init__(self, max_frame_bytes: int) -> None:
        self._pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack
        self._limit = min(max_frame_bytes, LARGEST_PART_BYTES)

    def encode(self, message: Message, buffers: Sequence[Buffer] = ()) -> list[Buffer]:
        """Return the parts of one frame, to be written in this order.

        Raises:
            ProtocolError: when the frame would be larger than the limit.
        """
        header = self._pack(message)
        if not buffers:
            if len(header) > self._limit:
                raise self._too_large(len(header))
            return [_PREFIX.pack(len(header), 0) + header]
        sizes = [memoryview(buffer).nbytes for buffer in buffers]
        table = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        raw_bytes = len(table) + sum(sizes)
        if len(header) + raw_bytes > self._limit:
            raise self._too_large(len(header) + raw_bytes)
        return [_PREFIX.pack(len(header), raw_bytes), header, table, *buffers]

    def _too_large(self, size: int) -> ProtocolError:
        return ProtocolError(f"a frame of {size} bytes is larger than the limit of {self._limit} bytes")


class FrameDecoder:
    """Collects bytes and gives back whole frames."""

    __slots__ = ("_buffer", "_failed", "_limit", "_single", "_wanted")

    def __init__(self, max_frame_bytes: int) -> None:
        self._limit = max_frame_bytes
        self._buffer = bytearray()
        #: Bytes the buffer must hold before another frame can be whole.
        self._wanted = PREFIX_BYTES
        self._failed = False
        self._single = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)

    def limit(self, max_frame_bytes: int, *, single: bool = False) -> None:
        """Change the largest frame accepted from here on.

        Args:
            max_frame_bytes: The limit.
            single: Whether feed returns one frame at a time: what follows a hello is subject to another
                limit, which is not known before the hello was looked at. ``feed(b"")`` returns the next.
        """
        self._limit = max_frame_bytes
        self._single = single

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that *data* completes, in order.

        Raises:
            ProtocolError: when the bytes are not a frame, or one over the limit.
        """
        if self._failed:
            raise ProtocolError("this stream broke at an earlier frame")
        try:
            if self._buffer:
                return self._feed_buffered(data)
            if len(data) >= PREFIX_BYTES:
                header_bytes, raw_bytes = _PREFIX.unpack_from(data)
                if not raw_bytes and PREFIX_BYTES + header_bytes == len(data) and header_bytes <= self._limit:
                    # One frame without buffers: what a single call sends.
                    return [(_unpack(memoryview(data)[PREFIX_BYTES:]), _NO_BUFFERS)]
            return self._feed_whole(data)
        except ProtocolError:
            self._failed = True
            raise

    def _feed_whole(self, data: bytes) -> list[Frame]:
        """Parse straight from *data*; keep only an unfinished tail."""
        frames, used = self._parse(data)
        if used < len(data):
            self._buffer += memoryview(data)[used:]
        return frames

    def _feed_buffered(self, data: bytes) -> list[Frame]:
        self._buffer += data
        if len(self._buffer) < self._wanted:
            return []
        whole = bytes(self._buffer)
        self._buffer = bytearray()
        return self._feed_whole(whole)

    def _parse(self, data: bytes) -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        view = memoryview(data)
        size, at = len(data), 0
        self._wanted = PREFIX_BYTES
        while size - at >= PREFIX_BYTES:
            header_bytes, raw_bytes = _PREFIX.unpack_from(data, at)
            if header_bytes + raw_bytes > self._limit:
                raise ProtocolError(
                    f"a frame announces {header_bytes + raw_bytes} bytes; the limit is {self._limit}"
                )
            start = at + PREFIX_BYTES
            end = start + header_bytes + raw_bytes
            if end > size:
                self._wanted = end - at
                break
            message = _unpack(view[start : start + header_bytes])
            buffers = _split(view[start + header_bytes : end]) if raw_bytes else _NO_BUFFERS
            frames.append((message, buffers))
            at = end
            if self._single:
                break
        return frames, at


def _unpack(header: memoryview) -> Message:
    try:
        message = msgpack.unpackb(header, raw=False, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise ProtocolError(f"a frame's header is not msgpack: {why}") from error
    if type(message) is not list or not message or type(message[0]) is not int:
        raise ProtocolError(f"a message is a list that begins with its number, not {type(message).__name__}")
    return message


def _split(raw: memoryview) -> list[memoryview]:
    """Cut the raw part into its buffers, by the table of sizes it begins with."""
    if len(raw) < _COUNT.size:
        raise ProtocolError("a frame's raw part is too short for its table of sizes")
    (count,) = _COUNT.unpack_from(raw)
    table_bytes = _COUNT.size + 8 * count
    if table_bytes > len(raw):
        raise ProtocolError(f"a frame's raw part has no room for the {count} sizes that it announces")
    sizes = struct.unpack_from(f"<{count}Q", raw, _COUNT.size)
    if table_bytes + sum(sizes) != len(raw):
        raise ProtocolError("the sizes of a frame's buffers do not add up to its raw part")
    buffers, at = [], table_bytes
    for size in sizes:
        buffers.append(raw[at : at + size])
        at += size
    return buffers
