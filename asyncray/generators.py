"""ObjectRefGenerator: what a call of a remote generator function returns.

Like a reference, it reaches the runtime through a protocol, so this file depends on nothing above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from .refs import ObjectRef, RefOwner

T_co = TypeVar("T_co", covariant=True)


class ItemStream(Protocol):
    """What a generator needs from the session that its stream belongs to.

    It stands where a reference has its record, so that ``wait`` can look at both alike.
    """

    @property
    def owner(self) -> RefOwner:
        """The session that reads it."""

    @property
    def state(self) -> int:
        """Not 0 iff the next item is there, or the end."""

    def take(self) -> ObjectRef[Any] | None:
        """The next item if it is there."""

    def next_blocking(self, end: ObjectRef[Any]) -> ObjectRef[Any]:
        """The next item, parking the calling thread until it is there; StopIteration after the last.

        Args:
            end: The reference to the producer's end: the last item when that is a failure.
        """

    async def next_async(self, end: ObjectRef[Any]) -> ObjectRef[Any]:
        """The next item; StopAsyncIteration after the last."""

    def is_finished(self) -> bool:
        """Whether there is no next item."""

    def is_ready(self) -> bool:
        """Whether the next item is there."""

    def lift(self) -> None:
        """Somebody wants to know of the producer's end, and may not read until then."""

    def close(self) -> None:
        """Stop the producer; free what was not read."""

    def abandon(self) -> None:
        """Close soon, unless somebody else waits for the producer's end. From a destructor."""


class ObjectRefGenerator(Generic[T_co]):
    """The results of a remote generator: references, each as soon as the generator has yielded its value.

    ``for ref in generator`` and ``async for ref in generator``. The producer runs ahead of its reader, by no
    more than the option ``max_unread`` says. What it raises comes as the last reference of the stream, which
    raises it when asked for its value.

    ``close`` (or leaving a ``with`` block, or dropping the generator) stops the producer and frees what was
    not read. It belongs to the process that made the call, and cannot be passed on; its references can.
    """

    __slots__ = ("__weakref__", "_record", "_ref")

    def __init__(self, stream: ItemStream, ref: ObjectRef[Any]) -> None:
        self._record = stream
        self._ref = ref

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        """The next reference, waiting for it.

        Raises:
            RuntimeError: when this would block a running event loop.
            StopIteration: after the last.
        """
        return self._record.take() or self._record.next_blocking(self._ref)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        """The next reference, awaiting it.

        Raises:
            StopAsyncIteration: after the last.
        """
        return self._record.take() or await self._record.next_async(self._ref)

    def next_ready(self) -> bool:
        """Whether the next reference is there, so that ``next`` does not wait. False after the last."""
        return self._record.is_ready()

    def is_finished(self) -> bool:
        """Whether every reference was taken and the producer has ended, so that ``next`` would stop."""
        return self._record.is_finished()

    def completed(self) -> ObjectRef[Any]:
        """A reference that is done, with None, when the producer is.

        It raises when the producer was lost or cancelled; not what the generator raised, which is the last
        item. Who asks for it may wait for the end without reading: with the default of ``max_unread`` the
        producer does not pause any more from here on.
        """
        self._record.lift()
        return self._ref

    def close(self) -> None:
        """Stop the producer as ``cancel`` does, and free what was not read. Nothing follows after that.

        It does not wait for the producer. The second call, and one after the end, do nothing.
        """
        self._record.close()

    async def aclose(self) -> None:
        """As :meth:`close`; for ``contextlib.aclosing``."""
        self._record.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._record.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._record.close()

    def __del__(self) -> None:
        # Runs where ObjectRef.__del__ does. First the reference, so that it shows whether another one of it
        # is left, whose holder wants to know of the producer's end.
        try:
            stream = self._record
            del self._ref
        except AttributeError:
            return
        stream.abandon()

    def send(self, value: object) -> None:
        """Not supported: the producer runs ahead.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a remote generator runs ahead of its reader: nothing can be sent to it")

    def throw(self, value: object) -> None:
        """Not supported: the producer runs ahead.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "a remote generator runs ahead of its reader: use cancel or close to stop it"
        )

    async def asend(self, value: object) -> None:
        """Not supported: see :meth:`send`.

        Raises:
            NotImplementedError: always.
        """
        self.send(value)

    async def athrow(self, value: object) -> None:
        """Not supported: see :meth:`throw`.

        Raises:
            NotImplementedError: always.
        """
        self.throw(value)

    def task_id(self) -> str:
        """The id of the producing task, in hexadecimal."""
        return self._ref.task_id()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "an ObjectRefGenerator cannot be pickled, and so neither passed to a task nor returned by one: "
            "its items arrive in this process. Pass its references, or have the task make the stream itself"
        )

    def __repr__(self) -> str:
        state = "finished" if self._record.is_finished() else "open"
        return f"<ObjectRefGenerator {state}, of task {self.task_id()}>"
