"""A pool of actors that share the work of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import asyncray

from .ending import end_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..actor import ActorHandle
    from ..refs import ObjectRef

    #: Makes a call of an actor with a value, and returns its reference.
    Call = Callable[[ActorHandle[Any], Any], ObjectRef[Any]]


class ActorPool:
    """Actors, each of which works at one thing at a time; what all are too busy for waits here.

    As an asynchronous context manager it ends its actors: those of a block that is left in order do first
    what they were called for, those of one that has failed are killed.

        pool = ActorPool([Worker.remote() for _ in range(4)])
        print(list(pool.map(lambda actor, value: actor.work.remote(value), range(100))))

    Args:
        actors: Handles of actors.
    """

    def __init__(self, actors: Iterable[ActorHandle[Any]]) -> None:
        self._idle = list(actors)
        self._busy: list[ActorHandle[Any]] = []
        #: Who makes the value of each reference, and its place in the order of submission.
        self._under_way: dict[ObjectRef[Any], tuple[int, ActorHandle[Any]]] = {}
        #: What each call has returned: a reference, or a list of them.
        self._by_place: dict[int, Any] = {}
        self._next_place = 0
        #: Place of the value that get_next returns.
        self._next_return = 0
        self._waiting: list[tuple[Call, Any]] = []

    def map(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The results of ``fn(actor, value)`` for all values, in their order."""
        self._submit_all(fn, values)
        return self._results(self.get_next)

    def map_unordered(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The same, each as soon as it is there."""
        self._submit_all(fn, values)
        return self._results(self.get_next_unordered)

    def _submit_all(self, fn: Call, values: Iterable[Any]) -> None:
        # As in Ray: what earlier calls have left is not part of this one.
        while self.has_next():
            self.get_next_unordered()
        for value in values:
            self.submit(fn, value)

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def submit(self, fn: Call, value: Any) -> None:
        """Have ``fn(actor, value)`` called as soon as an actor is free.

        Args:
            fn: Calls the actor and returns the reference.
            value: Its second argument.
        """
        if not self._idle:
            self._waiting.append((fn, value))
            return
        returned = fn(self._idle[-1], value)
        ref, actor = _first(returned), self._idle.pop()
        self._busy.append(actor)
        self._under_way[ref] = (self._next_place, actor)
        self._by_place[self._next_place] = returned
        self._next_place += 1

    def has_next(self) -> bool:
        """Whether a result can still be got."""
        return bool(self._under_way) or bool(self._waiting)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:  # noqa: FBT002
        """The next result in the order of submission.

        Args:
            timeout: Seconds to wait; None is as long as it takes.
            ignore_if_timedout: Whether a result that does not come in time is given up.

        Raises:
            StopIteration: when there is none.
            TimeoutError: when it does not come in time.
            ValueError: when results have been taken out of order before.
        """
        if not self.has_next():
            raise StopIteration("there are no more results to get")
        if self._next_return not in self._by_place:
            raise ValueError("get_next cannot follow get_next_unordered: the order is not known any more")
        ref = _first(self._by_place[self._next_return])
        ready, _ = asyncray.wait([ref], timeout=timeout)
        return self._take(ref, timeout, ready=bool(ready), ignore=ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:  # noqa: FBT002
        """The first result that is there.

        Args:
            timeout: Seconds to wait; None is as long as it takes.
            ignore_if_timedout: Whether a result that does not come in time is given up.

        Raises:
            StopIteration: when there is none.
            TimeoutError: when none comes in time.
        """
        if not self.has_next():
            raise StopIteration("there are no more results to get")
        ready, _ = asyncray.wait(list(self._under_way), num_returns=1, timeout=timeout)
        ref = ready[0] if ready else next(iter(self._under_way))
        return self._take(ref, timeout, ready=bool(ready), ignore=ignore_if_timedout)

    def _take(self, ref: ObjectRef[Any], timeout: float | None, *, ready: bool, ignore: bool) -> Any:
        if not ready and not ignore:
            raise TimeoutError(f"no result within {timeout} s")
        place, actor = self._under_way.pop(ref)
        returned = self._by_place.pop(place)
        self._next_return = max(self._next_return, place + 1)
        self._busy.remove(actor)
        self.push(actor, free=True)
        if not ready:
            raise TimeoutError(f"no result within {timeout} s; it was given up")
        return asyncray.get(returned)

    def has_free(self) -> bool:
        """Whether an actor has nothing to do."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle[Any] | None:
        """Take an actor that has nothing to do out of the pool; None when all are busy."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle[Any], *, free: bool = False) -> None:
        """Add an actor to the pool.

        Args:
            actor: Its handle.
            free: Whether it is one of the pool's that has just become free.

        Raises:
            ValueError: when it is there already.
        """
        if not free and (actor in self._idle or actor in self._busy):
            raise ValueError(f"{actor!r} is in the pool already")
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.pop(0))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await end_async([*self._idle, *self._busy], None if kind is None else 0)


def _first(returned: Any) -> ObjectRef[Any]:
    """What tells when a call has ended."""
    if isinstance(returned, list) and returned:
        returned = returned[0]
    if not isinstance(returned, asyncray.ObjectRef):
        raise TypeError(
            f"a pool's function returns the reference of its call, not {returned!r} of type "
            f"{type(returned).__name__}"
        )
    return returned
