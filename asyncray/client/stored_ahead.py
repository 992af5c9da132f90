"""Calls that are sent ahead to an actor with arguments in the store, which so cannot be spilled.

An actor that runs one call at a time needs no more of them at hand than the next. The others wait at their
caller, whose store may put their arguments on disk meanwhile.

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
