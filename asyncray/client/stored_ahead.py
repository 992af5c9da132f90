"""Calls that are sent ahead to an actor with arguments in the store, which so cannot be spilled.

An actor that runs one call at a time needs no more of them at hand than the next. The others wait at their
caller, whose store may put their arguments on disk meanwhile.

Of an actor that runs several at a time, each call may be what another one waits for, so none is held back.
But only so many go with the places of their arguments. The others name them: the actor asks for the values
when it starts the call, and until then they can be put on disk.

Rule 1: pure, but for looking at records. The lock of the owner's tables is held.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..wire.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Container

    from ..refs import RefAddress
    from ..state.tasks import Task

    #: What tells an object from others, without keeping it.
    Key: TypeAlias = tuple[RefAddress | None, int]

#: Calls that may be at an actor whatever they hold: the one that runs, and the next.
_CALLS: Final = 2
#: Objects that those behind them may hold together.
_OBJECTS: Final = 4
#: Share of the store that calls of actors which run several at a time may hold together, as a divisor.
_SHARE: Final = 8


class StoredAhead:
    """Those of one process's calls of one actor."""

    __slots__ = ("_calls", "_objects")

    def __init__(self) -> None:
        #: Number and objects of each, in the order of sending.
        self._calls: deque[tuple[int, list[Key]]] = deque()
        #: In how many of them each object is.
        self._objects: Counter[Key] = Counter()

    def admit(self, task: Task, under_way: Container[int]) -> bool:
        """Whether a call may be sent now; if so, it counts until it has ended.

        Args:
            task: A call with dependencies.
            under_way: Numbers of the calls that were sent and have not ended.
        """
        records: list[Any] = [ref._record for _, ref in task.dependencies or ()]
        keys: list[Key] = [(record.home, record.number) for record in records if type(record.value) is Stored]
        if not keys:
            return True
        calls, objects = self._calls, self._objects
        while calls and calls[0][0] not in under_way:
            objects -= Counter(calls.popleft()[1])
        if len(calls) >= _CALLS and len(objects.keys() | set(keys)) > _OBJECTS:
            return False
        calls.append((task.number, keys))
        objects.update(keys)
        return True


class PlacesSent:
    """What calls of actors that run several at a time hold of the store, of all such actors together."""

    __slots__ = ("_calls", "_refused", "_size_bytes")

    def __init__(self) -> None:
        #: Where each is under way, its number, and the bytes it holds; in the order of sending.
        self._calls: deque[tuple[Container[int], int, int]] = deque()
        self._size_bytes = 0
        #: Calls without places since all of these were looked at.
        self._refused = 0

    def admit(self, task: Task, under_way: Container[int], capacity: int) -> bool:
        """Whether a call may go with the places of its arguments.

        Args:
            task: A call with dependencies.
            under_way: Numbers of those calls of its actor that were sent and have not ended.
            capacity: Bytes of the store.
        """
        records: list[Any] = [ref._record for _, ref in task.dependencies or ()]
        size = sum(record.value.room for record in records if type(record.value) is Stored)
        if not size:
            return True
        while self._calls and self._calls[0][1] not in self._calls[0][0]:
            self._size_bytes -= self._calls.popleft()[2]
        if self._calls and self._size_bytes + size > capacity // _SHARE:
            self._refused += 1
            if self._refused <= len(self._calls):
                return False
            # The first of them takes long, and others may have ended: seldom, because it looks at all.
            self._refused = 0
            self._calls = deque(call for call in self._calls if call[1] in call[0])
            self._size_bytes = sum(call[2] for call in self._calls)
            if self._calls and self._size_bytes + size > capacity // _SHARE:
                return False
        self._calls.append((under_way, task.number, size))
        self._size_bytes += size
        return True
