"""What a worker does with the items of a generator: encode, gather, send; pause when too many are unread.

Items are gathered into batches while they come quickly. One that comes more than `_GATHER_S` after the last
batch was sent goes at once; what is gathered when the generator then takes its time is sent by the loop,
within `_TAIL_S`.

Rule 1: items leave in the order in which they were made, all of them before the result of the call.
Rule 2: an item is asked of the generator only when it may be sent: a producer is never further ahead of its
        consumer than the bound of its stream.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import StreamingGeneratorReplayInconsistentError
from ..wire import messages as m
from ..wire.items import digest_of, items_to_wire, weight
from ..wire.stored import Stored
from ..wire.values import Payload, is_scalar, refs_of, wire_bytes
from .calls import advance, advance_async, end_iteration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from ..client.session import Session
    from ..state.streams import Outflow
    from ..wire.frames import Buffer, Message
    from .calls import Call, Runner

#: Seconds between two batches of a generator that is quick.
_GATHER_S: Final = 0.0005
#: Seconds after which the loop sends what a generator that has become slow has left in the batch.
_TAIL_S: Final = 0.002
#: Items of an earlier run that are compared at once.
_COMPARED: Final = 1000


class Producer:
    """The items of one call, from the generator to the owner.

    Args:
        runner: The worker's.
        call: One that makes a stream.
        send: Sends a message to the owner; callable from the loop and from the thread that runs the call.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        runner: Runner,
        call: Call,
        send: Callable[[Message, Sequence[Buffer]], None],
        clock: Callable[[], float],
    ) -> None:
        assert call.flow is not None
        self._runner = runner
        self._session: Session = runner.session
        self._call = call
        self._flow: Outflow = call.flow
        self._send = send
        self._clock = clock
        self._batch_bytes = runner.session.config.batch_bytes
        #: Gathered payloads. Appended to by the call, taken from by whoever holds the lock.
        self._gathered: deque[Payload] = deque()
        self._gathered_bytes = 0
        self._lock = threading.Lock()
        self._sent = self._flow.skip
        #: Of all items sent; a call that is never run again needs none.
        self._digest = self._flow.skipped_digest
        self._digests = not call.function.report_first
        self._sent_at = float("-inf")
        #: Whether the loop will look at the batch soon.
        self._watched = False
        self._earlier = _Earlier(self._flow, call.name) if self._flow.skip else None

    # --- items ----------------------------------------------------------------------------------------------

    def take(self, value: Any) -> bool:
        """One item; returns whether a batch was sent with it.

        Raises:
            StreamingGeneratorReplayInconsistentError: when an earlier run had made other items.
            TypeError: when it cannot be pickled.
            ValueError: when it is too large.
        """
        if self._earlier is not None:
            if not self._earlier.compare(value):
                self._earlier = None
            return False
        flow = self._flow
        if is_scalar(value):
            self._gathered.append(value)
            flow.produced += 1
        else:
            payload = self._runner.pickled(f"item {flow.produced}", self._call, value)
            self._gathered_bytes += wire_bytes(payload)
            self._gathered.append(payload)
            flow.made(weight(payload))
        now = self._clock()
        if now - self._sent_at > _GATHER_S or self._gathered_bytes > self._batch_bytes:
            self._sent_at = now
            self.flush()
            return True
        if not self._watched:
            self._watched = True
            self._session.call_later(_TAIL_S, self._look)
        return False

    def take_several(self, values: Any) -> bool:
        """As :meth:`take`, of a generator that yields so many items at once.

        Raises:
            TypeError: when it has yielded one thing.
            ValueError: when it has yielded another number of them.
        """
        count = self._call.function.per_yield
        told = f"{self._call.name!r} has _num_objects_per_yield={count}"
        try:
            items = list(islice(values, count + 1))
        except TypeError:
            raise TypeError(f"{told} and yielded a {type(values).__name__}") from None
        if len(items) != count:
            raise ValueError(f"{told} and yielded {'more' if len(items) > count else len(items)} at once")
        sent = False
        for item in items:
            sent |= self.take(item)
        return sent

    def finish(self) -> None:
        """The generator has ended.

        Raises:
            StreamingGeneratorReplayInconsistentError: when an earlier run had made more items.
        """
        if self._earlier is not None:
            self._earlier.ended()

    def flush(self) -> None:
        """Send what was gathered. From the call's thread or from the loop."""
        if self._session.forked:
            # A child that the generator has forked came back from it: the stream is its parent's.
            self._runner.leave_fork()
        with self._lock:
            count = len(self._gathered)
            if not count:
                return
            batch = [self._gathered.popleft() for _ in range(count)]
            self._gathered_bytes = 0
            pin = self._pin(batch)
            if self._digests:
                self._digest = digest_of(batch, self._digest)
            buffers: list[Buffer] = []
            items = items_to_wire(batch, buffers)
            for payload in batch:
                if type(payload) is Stored:
                    self._session.store.hand_over(payload, self._call.owner)
            self._send([m.ITEMS, self._call.number, self._sent, items, pin, self._digest], buffers)
            self._sent += count

    def _pin(self, batch: list[Payload]) -> int:
        """Hold the references inside a batch until its owner has registered; returns under which number."""
        refs = [ref for payload in batch for ref in refs_of(payload)]
        if not refs:
            return 0
        # Negative: the numbers of tasks are not.
        pin = -next(self._runner.pins)
        self._session.peers.borrowing.pin(self._call.owner, pin, refs)
        return pin

    def _look(self) -> None:
        """Send what the generator has left behind. On the loop."""
        # Cleared before the look: who gathers an item after it has this called again.
        self._watched = False
        if self._gathered:
            self._watched = True
            self.flush()
            self._session.loop.call_later(_TAIL_S, self._look)

    # --- generators -----------------------------------------------------------------------------------------

    def run(self, generator: Generator[Any], pause: Callable[[], None], stop: Callable[[], None]) -> None:
        """Take a generator's items until its end. In the main thread of a sync worker.

        Args:
            generator: The user's.
            pause: Returns when the next item may be made, or the call was cancelled.
            stop: The call was cancelled, and nothing is to interrupt the generator's clean-up.

        Raises:
            KeyboardInterrupt: when the call was cancelled.
            BaseException: whatever the generator raises.
        """
        flow, call = self._flow, self._call
        take = self.take if call.function.per_yield == 1 else self.take_several
        try:
            while True:
                if not flow.may_go_on():
                    self.flush()
                    pause()
                if call.cancelled:
                    stop()
                    raise KeyboardInterrupt
                try:
                    value = advance(generator)
                except StopIteration:
                    break
                take(value)
            self.finish()
        finally:
            if not self._session.forked:
                self.flush()
            end_iteration(generator)

    async def run_async(
        self,
        generator: AsyncGenerator[Any],
        pause: Callable[[], Awaitable[None]],
        let_others_run: Callable[[], Awaitable[None]],
    ) -> None:
        """As :meth:`run`, on the loop.

        Raises:
            CancelledError: when the call was cancelled.
            BaseException: whatever the generator raises.
        """
        flow = self._flow
        take = self.take if self._call.function.per_yield == 1 else self.take_several
        try:
            while True:
                if not flow.may_go_on():
                    self.flush()
                    await pause()
                try:
                    value = await advance_async(generator)
                except StopAsyncIteration:
                    break
                if self._call.function.per_yield == 1 and self._earlier is None:
                    value = await self._runner.stored(value)
                if take(value):
                    # A generator that never waits would keep the loop to itself.
                    await let_others_run()
            self.finish()
        finally:
            self.flush()
            await generator.aclose()


class _Earlier:
    """The items that an earlier run of the call had delivered: they are made once more, and compared."""

    def __init__(self, flow: Outflow, name: str) -> None:
        self._flow = flow
        self._name = name
        self._seen = 0
        self._digest = 0
        self._chunk: list[Payload] = []

    def compare(self, value: Any) -> bool:
        """One item; returns whether more of them are to come.

        Raises:
            StreamingGeneratorReplayInconsistentError: after the last, when they were others.
        """
        self._seen += 1
        self._chunk.append(value if is_scalar(value) else None)
        last = self._seen == self._flow.skip
        if last or len(self._chunk) == _COMPARED:
            self._digest = digest_of(self._chunk, self._digest)
            self._chunk.clear()
        if last and self._digest != self._flow.skipped_digest:
            raise StreamingGeneratorReplayInconsistentError(
                f"the generator {self._name!r} was run again, and its first {self._seen} items are not those "
                "that had been delivered; with max_retries=0 it is not run again"
            )
        return not last

    def ended(self) -> None:
        """The generator has ended here already.

        Raises:
            StreamingGeneratorReplayInconsistentError: always.
        """
        raise StreamingGeneratorReplayInconsistentError(
            f"the generator {self._name!r} was run again and yielded {self._seen} items, but "
            f"{self._flow.skip} had been delivered; with max_retries=0 it is not run again"
        )
