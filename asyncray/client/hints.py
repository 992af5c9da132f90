"""The hint that names ``put``, for a large argument that is passed by value again and again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..wire.values import size_bytes

if TYPE_CHECKING:
    from ..config import Config
    from ..state.tasks import Descriptor

_log = logging.getLogger("asyncray")


class LargeArguments:
    """Counts large calls of each function and gives one hint for it."""

    def __init__(self, config: Config) -> None:
        self._bytes = config.large_argument_hint_bytes
        self._count = config.large_argument_hint_count
        #: Large calls with the same argument objects, by descriptor and their identity.
        self._seen: dict[int, tuple[tuple[int, ...], int]] = {}
        self._hinted: set[int] = set()

    def look(
        self, descriptor: Descriptor, arguments: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Look at one call's encoded arguments."""
        if size_bytes(arguments) < self._bytes or descriptor.number in self._hinted:
            return
        same = tuple(map(id, (*args, *kwargs.values())))
        before, count = self._seen.get(descriptor.number, ((), 0))
        # At least one object must be the same: otherwise putting it would save nothing.
        count = count + 1 if set(before) & set(same) or not before else 1
        self._seen[descriptor.number] = (same, count)
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
