"""Splitting references into those that are done and the others, as ``wait`` does, at little cost.

Programs drain ten thousand references by calling ``wait`` ten thousand times with a list that shrinks by
one. Each call must look at a list; what it must not do is check all of it again. So the rest that ``wait``
returns carries a copy of itself: as long as both are equal (a comparison of pointers, in C), the list is
known to hold references, and none twice.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .refs import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .client.session import Session

T = TypeVar("T")
#: Lists shorter than this are checked anew: that costs less than a copy.
_SHORT = 32


class RefList(list[ObjectRef[T]]):
    """A list of different references that knows what it held when it was checked."""

    __slots__ = ("checked",)

    def __init__(self, refs: Any) -> None:
        super().__init__(refs)
        self.checked = list(self)


def checked_refs(refs: object, num_returns: object) -> None:
    """Check the arguments of ``wait``.

    Raises:
        TypeError: when *refs* is no list of references, or *num_returns* no whole number.
        ValueError: when a reference stands there twice, or *num_returns* does not fit the list.
    """
    if type(refs) is not RefList or refs != refs.checked:
        _check_list(refs)
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"num_returns must be a whole number, not {num_returns!r}")
    if num_returns <= 0:
        raise ValueError(f"num_returns must be > 0, not {num_returns}")
    count = len(refs)  # type: ignore[arg-type]
    if num_returns > count > 0:
        raise ValueError(f"num_returns is {num_returns}, but there are only {count} references")


def _check_list(refs: object) -> None:
    if isinstance(refs, ObjectRef):
        raise TypeError("wait takes a list of references, not a single one: wait([ref])")
    if not isinstance(refs, list):
        raise TypeError(f"wait takes a list of references, not {refs!r} of type {type(refs).__name__}")
    for kind in set(map(type, refs)):
        if kind is not ObjectRef:
            wrong = next(ref for ref in refs if type(ref) is kind)
            raise TypeError(f"wait takes references; the list holds {wrong!r} of type {kind.__name__}")
    if len(set(refs)) != len(refs):
        twice = next(ref for ref in refs if refs.count(ref) > 1)
        raise ValueError(f"wait takes different references; {twice!r} stands there {refs.count(twice)} times")


def ready_first(refs: list[ObjectRef[T]], num_returns: int) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """The first *num_returns* references that are done, and the others; both in the order given."""
    at: list[int] = []
    for index, ref in enumerate(refs):
        if ref._record.state:
            at.append(index)
            if len(at) == num_returns:
                break
    ready = [refs[index] for index in at]
    rest: list[ObjectRef[T]] = refs[:]
    for index in reversed(at):
        del rest[index]
    return ready, RefList(rest) if len(rest) >= _SHORT else rest


class Completions(Generic[T]):
    """References as they are done, for a thread that waits; each costs the same, however many there are.

    As a context manager it forgets, at its end, those that were not taken.
    """

    def __init__(self, refs: Iterable[ObjectRef[T]]) -> None:
        #: References that have not been taken, by their record.
        self._waiting: dict[Any, ObjectRef[T]] = {}
        self._done: deque[Any] = deque()
        self._gate = threading.Lock()
        self._gate.acquire()
        #: How many references have not been taken.
        self.left = 0
        self._repeated: dict[Any, int] = {}
        for ref in refs:
            self.add(ref)

    def add(self, ref: ObjectRef[T]) -> None:
        """Wait for one more."""
        record = ref._record
        self.left += 1
        if record in self._waiting:
            self._repeated[record] = self._repeated.get(record, 0) + 1
            return
        self._waiting[record] = ref
        owner: Session = record.owner  # type: ignore[assignment]
        owner.waits.register(record, self)  # type: ignore[arg-type]

    def notify(self, record: Any) -> None:
        """A record is done; called by the thread that completed it."""
        self._done.append(record)
        if self._gate.locked():
            try:
                self._gate.release()
            except RuntimeError:  # two completions at once: the gate is open already
                return

    def next(self) -> ObjectRef[T]:
        """The next reference that is done, waiting for it.

        Raises:
            RuntimeError: when this would block a running event loop.
        """
        while not self._done:
            self._wait()
        record = self._done[0]
        self.left -= 1
        if self._repeated.get(record):
            self._repeated[record] -= 1
            return self._waiting[record]
        self._done.popleft()
        return self._waiting.pop(record)

    def _wait(self) -> None:
        owner: Session = next(iter(self._waiting)).owner
        owner.waits.check_may_block("`async for ref in asyncray.aio.as_completed(refs)`")
        # Closed before the look, so that a completion in between opens it again.
        self._gate.acquire(blocking=False)
        if not self._done:
            owner.waits.park(self._gate, None)

    def __enter__(self) -> Completions[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for record in self._waiting:
            record.owner.waits.unregister(record, self)
        self._waiting.clear()
