"""Splitting references into those that are done and the others, as ``wait`` does, at little cost.

Programs drain ten thousand references by calling ``wait`` ten thousand times with a list that shrinks by
one. Each call must look at a list; what it must not do is check all of it again. So the rest that ``wait``
returns carries a copy of itself: as long as both are equal (a comparison of pointers, in C), the list is
known to hold references, and none twice.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from .generators import ObjectRefGenerator
from .refs import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .client.session import Session
    from .client.waiting import LoopWaiter, Tally

T = TypeVar("T")
#: What can be waited for.
W = TypeVar("W", bound="ObjectRef[Any] | ObjectRefGenerator[Any]")
#: Lists shorter than this are checked anew: that costs less than a copy.
_SHORT = 32


class RefList(list[W]):
    """A list of different references that knows what it held when it was checked."""

    __slots__ = ("_copy",)

    def __init__(self, refs: list[W], indices: list[int], copy: list[W]) -> None:
        """All of *refs*, which are different, but those at *indices*.

        Args:
            refs: References.
            indices: From the first to the last.
            copy: Such a list as *refs* for this one to keep and to change.
        """
        super().__init__(refs)
        for index in reversed(indices):
            del self[index], copy[index]
        #: In a box, from which one thread alone can take it; empty once it was taken.
        self._copy = [copy]

    def is_checked(self) -> bool:
        """Whether the list holds what it held when it was checked."""
        return self._copy[:1] == [self]

    def take_copy(self) -> list[W] | None:
        """The copy, when nobody has it yet. Afterwards this list is like any other."""
        try:
            return self._copy.pop()
        except IndexError:
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # for whoever gets it, it is a list


def checked_refs(refs: object, num_returns: object) -> None:
    """Check the arguments of ``wait``.

    Raises:
        SessionClosedError: when a reference is one of an earlier session.
        TypeError: when *refs* is no list of references, or *num_returns* no whole number.
        ValueError: when a reference stands there twice, or *num_returns* does not fit the list.
    """
    if type(refs) is not RefList or not refs.is_checked():
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
        if kind is not ObjectRef and kind is not ObjectRefGenerator:
            wrong = next(ref for ref in refs if type(ref) is kind)
            raise TypeError(f"wait takes references; the list holds {wrong!r} of type {kind.__name__}")
    for owner in {ref._record.owner for ref in refs}:
        owner.check_open()
    if len(set(refs)) != len(refs):
        twice = next(ref for ref in refs if refs.count(ref) > 1)
        raise ValueError(f"wait takes different references; {twice!r} stands there {refs.count(twice)} times")


def done_among(refs: list[W], count: int) -> list[int]:
    """Where the first *count* references stand that are done."""
    at: list[int] = []
    for index, ref in enumerate(refs):
        if ref._record.state:
            at.append(index)
            if len(at) == count:
                break
    return at


def split(refs: list[W], at: list[int]) -> tuple[list[W], list[W]]:
    """The references at some places, and the others; both in the order given."""
    ready = [refs[index] for index in at]
    if len(refs) - len(at) < _SHORT:
        rest = list(refs)
        for index in reversed(at):
            del rest[index]
        return ready, rest
    # The drain of a long list hands the copy on, and makes no other one. A poll that found nothing leaves it
    # where it is: the list that was polled is the one to come back.
    copy = refs.take_copy() if at and type(refs) is RefList else None
    if copy is None or len(copy) != len(refs):
        copy = list(refs)
    return ready, RefList(refs, at, copy)


class Watch(Generic[W]):
    """One call of ``wait``: looks at the references, and says when to look again.

    with Watch(session, refs, num_returns, tally) as watch:
        while not watch.enough():
            if watch.must_wait(fetch_local):
                ...                                   # until the tally rings
    """

    def __init__(self, session: Session, refs: list[W], num_returns: int, tally: Tally) -> None:
        self._session = session
        self._refs = refs
        self._num_returns = num_returns
        self._tally = tally
        #: Where those stand that the last look found done.
        self._at: list[int] = []
        #: What the tally had heard before that look.
        self._heard = 0
        self._waited = False

    def enough(self) -> bool:
        """Look; return whether as many as are wanted are done."""
        self._heard = self._tally.heard
        self._at = done_among(self._refs, self._num_returns)
        return len(self._at) == self._num_returns

    def ask(self, *, fetch_local: bool) -> None:
        """Ask other processes for what they own; who only polls will find it when it comes back."""
        if self._session.owner.objects.borrowed:
            self._session.fetch(self._records(), whole=fetch_local)

    def must_wait(self, *, fetch_local: bool) -> bool:
        """Have the tally ring when enough can be done; False when that may be so already."""
        if not self._waited:
            self._waited = True
            self.ask(fetch_local=fetch_local)
        elif self._tally.only is None:
            # Others completed what rang. In a busy process this would look at its whole list all the time.
            self._tally.only = set(self._records())
        return self._tally.arm(self._heard + self._num_returns - len(self._at))

    def awaited(self) -> tuple[list[Any], int]:
        """What this waits for now, and how many of those are enough; from any thread."""
        records = [record for record in self._records() if not record.state]
        return records, self._num_returns - len(self._at)

    def _records(self) -> list[Any]:
        records: list[Any] = [ref._record for ref in self._refs]
        # A stream's end is news of its own.
        ends = [ref._ref._record for ref in self._refs if isinstance(ref, ObjectRefGenerator)]
        return records + ends if ends else records

    def split(self) -> tuple[list[W], list[W]]:
        """Those that the last look found done, and the others."""
        return split(self._refs, self._at)

    def __enter__(self) -> Watch[W]:
        self._session.waits.watch(self._tally)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.waits.unwatch(self._tally)


class LoopCompletions(Generic[T]):
    """References as they are done, for a coroutine; each costs the same, however many there are.

    As a context manager it forgets, at its end, those that were not taken.
    """

    def __init__(self, refs: Iterable[ObjectRef[T]]) -> None:
        #: References that have not been taken, by their record.
        self._waiting: dict[Any, ObjectRef[T]] = {}
        self._done: deque[Any] = deque()
        #: Wakes the coroutine that waits; None while none does, and when it has been woken.
        self._sleeper: LoopWaiter | None = None
        #: How many references have not been taken.
        self.left = 0
        self._repeated: dict[Any, int] = {}
        #: Of the session that the references belong to; set with the first of them.
        self._waits: Any = None
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
        self._waits = record.owner.session.waits
        self._waits.register(record, self)

    def notify(self, record: Any) -> None:
        """A record is done; called by the thread that completed it."""
        self._done.append(record)
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            sleeper.notify(record)

    async def next_async(self) -> ObjectRef[T]:
        """The next reference that is done, awaiting it."""
        while not self._done:
            # Set before the look, so that a completion in between ends it.
            self._sleeper = sleeper = self._waits.new_loop_bell()
            if not self._done:
                await self._waits.suspend(sleeper.future, self.awaited)
        return self._take()

    def awaited(self) -> tuple[list[Any], int]:
        """What this waits for now, and how many of those are enough; from any thread."""
        return list(self._waiting), 1

    def _take(self) -> ObjectRef[T]:
        record = self._done[0]
        self.left -= 1
        if self._repeated.get(record):
            self._repeated[record] -= 1
            return self._waiting[record]
        self._done.popleft()
        return self._waiting.pop(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for record in self._waiting:
            record.owner.session.waits.unregister(record, self)
        self._waiting.clear()


class Completions(LoopCompletions[T]):
    """The same for a thread that waits."""

    def __init__(self, refs: Iterable[ObjectRef[T]]) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        super().__init__(refs)

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
            self._waits.check_may_block("`async for ref in asyncray.aio.as_completed(refs)`")
            # Closed before the look, so that a completion in between opens it again.
            self._gate.acquire(blocking=False)
            if not self._done:
                self._waits.park(self._gate, None, self.awaited)
        return self._take()
