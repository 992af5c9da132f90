"""A queue in an actor: any process puts and gets."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any

import asyncray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Empty(queue.Empty):
    """There was nothing to get. Fault: nobody's. Retry: later."""


class Full(queue.Full):
    """There was no room. Fault: nobody's. Retry: later."""


class _QueueActor:
    """The queue itself; its coroutines wait as long as they are told to."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    async def put(self, item: Any, timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self.queue.put(item)
        except TimeoutError:
            return False
        return True

    async def get(self, timeout: float | None) -> tuple[bool, Any]:
        try:
            async with asyncio.timeout(timeout):
                return True, await self.queue.get()
        except TimeoutError:
            return False, None

    def put_nowait(self, items: list[Any]) -> bool:
        """All of them, or none."""
        if self.maxsize > 0 and self.queue.qsize() + len(items) > self.maxsize:
            return False
        for item in items:
            self.queue.put_nowait(item)
        return True

    def get_nowait(self, count: int) -> list[Any] | None:
        """So many, or none."""
        if self.queue.qsize() < count:
            return None
        return [self.queue.get_nowait() for _ in range(count)]


class Queue:
    """First in, first out, between any processes of a session; pass it to tasks and actors as it is.

    Args:
        maxsize: Items that there is room for; 0 or less is without end.
        actor_options: Options of the actor that holds them.

    Raises:
        TypeError: when *maxsize* is no whole number.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be a whole number, not {maxsize!r}")
        self.maxsize = maxsize
        actor_class = asyncray.remote(_QueueActor).options(**dict(actor_options or {}))
        self.actor = actor_class.remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items are in it."""
        count: int = asyncray.get(self.actor.qsize.remote())
        return count

    qsize = size

    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether there is no room."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT002
        """Add an item, waiting for room if need be.

        Args:
            item: What to add.
            block: Whether to wait.
            timeout: Seconds to wait; None is as long as it takes.

        Raises:
            Full: when there is no room in time.
            ValueError: when *timeout* is negative.
        """
        if not block:
            self.put_nowait(item)
        elif not asyncray.get(self.actor.put.remote(item, _checked(timeout))):
            raise Full(f"there was no room within {timeout} s")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT002
        """Take an item out, waiting for one if need be.

        Args:
            block: Whether to wait.
            timeout: Seconds to wait; None is as long as it takes.

        Raises:
            Empty: when there is none in time.
            ValueError: when *timeout* is negative.
        """
        if not block:
            return self.get_nowait()
        there, item = asyncray.get(self.actor.get.remote(_checked(timeout)))
        if not there:
            raise Empty(f"nothing came within {timeout} s")
        return item

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT002
        """As put, for coroutines.

        Raises:
            Full: when there is no room in time.
        """
        actor, timeout = self.actor, _checked(timeout)
        if not await (actor.put.remote(item, timeout) if block else actor.put_nowait.remote([item])):
            raise Full(f"there was no room within {timeout} s" if block else "there is no room")

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT002
        """As get, for coroutines.

        Raises:
            Empty: when there is none in time.
        """
        if not block:
            items = await self.actor.get_nowait.remote(1)
            if items is None:
                raise Empty("there is nothing in the queue")
            return items[0]
        there, item = await self.actor.get.remote(_checked(timeout))
        if not there:
            raise Empty(f"nothing came within {timeout} s")
        return item

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room.

        Raises:
            Full: when there is none.
        """
        self.put_nowait_batch([item])

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add several items, or none of them.

        Raises:
            Full: when there is no room for all.
        """
        listed = list(items)
        if not asyncray.get(self.actor.put_nowait.remote(listed)):
            raise Full(f"there is no room for {len(listed)} more items in a queue of {self.maxsize}")

    def get_nowait(self) -> Any:
        """Take an item out if there is one.

        Raises:
            Empty: when there is none.
        """
        return self.get_nowait_batch(1)[0]

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take several items out, or none of them.

        Raises:
            Empty: when there are not so many.
            TypeError: when *num_items* is no whole number.
            ValueError: when it is negative.
        """
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError(f"num_items must be a whole number, not {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must be >= 0, not {num_items}")
        items: list[Any] | None = asyncray.get(self.actor.get_nowait.remote(num_items))
        if items is None:
            raise Empty(f"there are not {num_items} items in the queue")
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:  # noqa: FBT002
        """End the actor: what is in the queue is lost.

        Args:
            force: Whether calls under way are not waited for.
            grace_period_s: Seconds to wait for them otherwise.
        """
        if not force:
            done, _ = asyncray.wait([self.actor.__ray_terminate__.remote()], timeout=grace_period_s)
            if done:
                return
        asyncray.kill(self.actor)


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must be None or >= 0 seconds, not {timeout}")
    return timeout
