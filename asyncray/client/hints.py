"""The hint that names ``put``, for a large argument that is passed by value again and again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from ..wire.values import Draft, Encoded, is_scalar, size_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config import Config
    from ..state.tasks import Descriptor

_log = logging.getLogger("asyncray")
#: Bytes that tell one large argument from another.
_SAMPLE_BYTES: Final = 1024


class _Seen:
    """What is remembered of a function's last large call, and how many had the same argument."""

    __slots__ = ("_count", "_objects", "_sample")

    def __init__(self) -> None:
        self._count = 0
        self._objects: frozenset[int] = frozenset()
        self._sample = b""

    def again(self, arguments: Any, values: tuple[Any, ...]) -> int:
        """Look at one more call; returns how many in a row had the same large argument."""
        # An object with the same identity may still be another, made where the last one had been; its middle
        # tells. The arguments themselves are not kept: they may be what fills the memory.
        objects = frozenset(id(value) for value in values if not is_scalar(value))
        sample = _sample(arguments)
        same = bool(objects & self._objects) and sample == self._sample
        self._count = self._count + 1 if same else 1
        self._objects, self._sample = objects, sample
        return self._count


def _sample(arguments: Any) -> bytes:
    """Some bytes from the middle of the largest piece of encoded arguments."""
    pieces: tuple[Any, ...] = (arguments,)
    if type(arguments) is Encoded:
        pieces = (arguments.data, *arguments.buffers)
    elif type(arguments) is Draft:
        pieces = (*arguments.parts, *arguments.buffers)
    largest = max((memoryview(piece).cast("B") for piece in pieces), key=len)
    middle = len(largest) // 2
    return bytes(largest[middle : middle + _SAMPLE_BYTES])


class LargeArguments:
    """Counts large calls of each function and gives one hint for it."""

    def __init__(self, config: Config) -> None:
        self._bytes = config.large_argument_hint_bytes
        self._count = config.large_argument_hint_count
        #: The last large calls of each descriptor.
        self._seen: dict[int, _Seen] = {}
        self._hinted: set[int] = set()

    def forget(self, numbers: Iterable[int]) -> None:
        """These descriptors will never be used again."""
        for number in numbers:
            self._seen.pop(number, None)
            self._hinted.discard(number)

    def look(
        self, descriptor: Descriptor, arguments: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Look at one call's encoded arguments."""
        if size_bytes(arguments) < self._bytes or descriptor.number in self._hinted:
            return
        seen = self._seen.get(descriptor.number)
        if seen is None:
            seen = self._seen[descriptor.number] = _Seen()
        count = seen.again(arguments, (*args, *kwargs.values()))
        if count < self._count:
            return
        self._hinted.add(descriptor.number)
        del self._seen[descriptor.number]
        _log.warning(
            "%s was called %d times with the same large argument (%d bytes each time): put it once and pass "
            "the reference, ref = asyncray.put(value)",
            descriptor.name,
            count,
            size_bytes(arguments),
        )
