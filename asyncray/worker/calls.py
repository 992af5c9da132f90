"""One call on its worker: decoding its arguments, running it, encoding what came of it."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final

from ..client.arguments import arguments_from_wire, decode_arguments
from ..client.diagnosis import explain
from ..client.enclosures import WHOLE, Enclosure
from ..client.errors import encode_error, encode_passing, encode_task_error
from ..client.interrupts import interruptible
from ..client.store import Prepared
from ..client.streams import FORSAKEN
from ..client.terms import REMAINING, check_terms, enter_terms
from ..exceptions import ObjectStoreFullError, ProtocolError, RayTaskError
from ..state.objects import READY, ObjectRecord, unconfirmed
from ..state.streams import Outflow
from ..wire import messages as m
from ..wire.items import check_position
from ..wire.stored import Stored
from ..wire.values import (
    BufferFeed,
    Payload,
    are_numbers,
    check_addresses,
    decode,
    draft,
    from_wire,
    is_scalar,
    refs_of,
    to_wire,
    wire_bytes,
)
from .hosting import ActorExit, Hosting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..client.session import Session
    from ..refs import ObjectRef
    from ..wire.frames import Buffer
    from .ending import Ending
    from .functions import Function

_NO_BUFFERS = BufferFeed(())
_NO_EXTRAS: Final[dict[str, Any]] = {}
_SCALARS = frozenset({type(None), bool, int, float, str})
#: A dependency that is stored: its reference, its payload, and what it refers to.
_WITH_REFERENCE: Final = 3
#: The forms of arguments without buffers or references.
_FORMS = frozenset({type(None), list, bytes})


class Call:
    """A task on its way through a worker."""

    __slots__ = (
        "arguments", "cancelled", "deadline", "dependencies", "enclosure", "extras", "feed", "flow",
        "function", "hosted", "keywords", "number", "owner", "positional", "refs", "serial", "since",
        "started",
    )  # fmt: skip

    def __init__(self, owner: bytes, row: list[Any], function: Function, feed: BufferFeed) -> None:
        #: Process id of the owner.
        self.owner = owner
        #: The task's number at its owner.
        self.number: int = row[0]
        self.function = function
        self.arguments = row[2]
        self.dependencies = row[3]
        #: What few calls have, by name; see TASKS.
        self.extras: dict[str, Any] = _NO_EXTRAS if row[4] is None else _checked_extras(row[4])
        self.feed = feed
        #: How far its stream is; None iff it makes none.
        self.flow: Outflow | None = None if function.stream is None else _flow(function, self.extras)
        #: This worker's number for the call: what its children name as their parent.
        self.serial = 0
        #: When it began, in seconds on the worker's clock; -1 before that.
        self.since = -1.0
        self.positional: Sequence[Any] = ()
        self.keywords: dict[str, Any] = {}
        #: References that came with the call: inside its arguments, their values, its function. Held while
        #: the call runs; None iff there were none.
        self.refs: list[ObjectRef[Any]] | None = None
        self.cancelled = False
        #: Whether its coroutine has taken its first step: one that has not would never see a CancelledError.
        self.started = False
        #: Seconds on the session's clock at which its owner will give it up; None: never.
        self.deadline: float | None = None
        #: What it calls for must end with it; None for calls that do not belong to an enclosure themselves.
        self.enclosure: Enclosure | None = None
        #: The light actor that it is for; None for all other calls.
        self.hosted: Any = None

    def clear(self) -> None:
        """Let go of what came with the call. It is over, but what it has left behind may still name it."""
        self.arguments = self.dependencies = self.refs = None
        self.positional, self.keywords = (), {}
        self.feed = _NO_BUFFERS

    @property
    def name(self) -> str:
        """The task's name."""
        return self.function.name

    @property
    def function_name(self) -> str:
        """The function's own name."""
        return self.function.own_name()

    @property
    def resources(self) -> dict[str, float]:
        """What the task holds, by resource name."""
        return self.function.resources


def _flow(function: Function, extras: dict[str, Any]) -> Outflow:
    flow = Outflow(function.stream or 0, function.stream_bytes, check_position(extras.get("stream")))
    flow.forsaken = FORSAKEN in extras
    return flow


def _checked_extras(extras: Any) -> dict[str, Any]:
    if type(extras) is not dict or not all(type(name) is str for name in extras):
        raise ProtocolError("the extras of a task are not values by name")
    return extras


def take_buffers(call: Call) -> None:
    """Cut the call's own buffers out of its frame, in the order of the frame's rows.

    Raises:
        ProtocolError: when the row is malformed.
    """
    if type(call.arguments) is list and call.arguments and type(call.arguments[0]) is list:
        call.arguments = arguments_from_wire(call.arguments, call.feed)
    elif type(call.arguments) not in _FORMS:
        raise ProtocolError(f"arguments cannot travel as {type(call.arguments).__name__}")
    if call.dependencies is None:
        return
    if type(call.dependencies) is not list:
        raise ProtocolError("a task's dependencies are not a list")
    taken: list[Any] = []
    for dependency in call.dependencies:
        if type(dependency) is not list or len(dependency) != 2 or type(dependency[0]) not in (int, str):
            raise ProtocolError("a dependency is not a place and a value")
        place, field = dependency
        if type(field) in _SCALARS:
            taken.append((place, (field, ())))
            continue
        remote = type(field) is list and len(field) == 1
        if type(field) is list and len(field) == 2:
            # A stored value comes with its reference, which keeps it there as long as it is looked at.
            taken.append((place, (check_addresses(field[:1]), *from_wire(field[1], call.feed))))
        else:
            taken.append((place, check_addresses(field) if remote else from_wire(field, call.feed)))
    call.dependencies = taken


def take_terms(call: Call, now: float) -> None:
    """Note when a call that has come just now must be done.

    Raises:
        ProtocolError: when what it is subject to is malformed.
    """
    check_terms(call.extras)
    remaining = call.extras.get(REMAINING)
    if remaining is not None:
        call.deadline = now + remaining


class Runner:
    """Runs calls; what both modes of a worker share."""

    def __init__(self, session: Session, end: Ending) -> None:
        self.session = session
        #: The actor that this worker is, if it is one.
        self.hosting = Hosting()
        session.hosting = self.hosting
        self._end = end
        self._pid = session.identity.pid
        #: Numbers under which batches of items hold references.
        self.pins = count(1)

    def hosting_of(self, call: Call) -> Hosting:
        """What is known of the actor that a call is for."""
        return self.hosting if call.hosted is None else call.hosted

    def enclose(self, call: Call) -> None:
        """Give a call with extras what they ask for."""
        if call.extras.get(WHOLE):
            call.enclosure = Enclosure()

    def leave(self) -> None:
        """End the worker's process in order."""
        self._end.leave()

    # --- arguments ----------------------------------------------------------------------------------------

    def load(self, call: Call) -> Callable[..., Any]:
        """The call's function. The first call of it answers for the references in its closure and globals.

        Raises:
            Exception: whatever unpickling it raises.
        """
        function = call.function
        if function.addresses:
            self._hold(call, function.addresses)
        loaded = function.load() if call.hosted is None else function.bound(call.hosted)
        function.addresses = ()
        if call.extras:
            # After the function: what defines a carried variable has been imported by then.
            enter_terms(call.extras, call.deadline)
        if function.constructs and call.hosted is None:
            self.hosting.begin(call)
        return loaded

    def decode(self, call: Call) -> None:
        """Fill in the call's arguments. Runs user code (unpickling) and may wait for large values.

        Raises:
            Exception: whatever unpickling raises, or what an argument's owner failed with.
        """
        arguments = call.arguments
        if call.dependencies is None and (arguments is None or type(arguments) is list):
            call.positional = arguments or ()
            return
        if type(arguments) is tuple:
            payload, addresses = arguments
            if addresses:
                payload.refs = self._hold(call, addresses)
        else:
            payload = arguments
        places = call.dependencies or []
        remote: list[Any] = [ref._record for ref in self.await_remote(call)]
        if remote:
            # All at once; each is asked for again below, which then need not wait.
            self.session.waits.wait_all(remote, None, "a coroutine")
        call.positional, call.keywords = decode_arguments(
            payload, places, lambda value: self._dependency(call, value)
        )

    def _dependency(self, call: Call, value: Any) -> Any:
        if type(value) is list:
            (ref,) = self._hold(call, value)
            return ref.result()
        if len(value) == _WITH_REFERENCE:
            return self._stored(call, *value)
        payload, addresses = value
        if addresses:
            payload.refs = self._hold(call, addresses)
        return decode(payload)

    def _stored(self, call: Call, address: list[Any], payload: Stored, addresses: list[Any]) -> Any:
        """The value of a stored argument. Its reference is this process's as if it had been asked for."""
        (ref,) = self._hold(call, address)
        payload.refs = self._hold(call, addresses)
        owner, record = self.session.owner, ref._record
        with owner.lock:
            if record.state <= 0:
                owner.complete(record, READY, payload)  # type: ignore[arg-type]
        self.session.deliver()
        return ref.result()

    def await_remote(self, call: Call) -> list[ObjectRef[Any]]:
        """References to the arguments that must be fetched from their owners first."""
        return self._hold(call, [value[0] for _, value in call.dependencies or () if type(value) is list])

    def _hold(self, call: Call, addresses: Iterable[Sequence[Any]]) -> list[ObjectRef[Any]]:
        """Take references that came with a call, for as long as it runs."""
        refs = [self.session.references.restore_ref((where, at, number)) for where, at, number in addresses]
        if refs:
            call.refs = call.refs or []
            call.refs += refs
        return refs

    # --- outcomes -----------------------------------------------------------------------------------------

    def leave_fork(self) -> None:
        """End this process, which is a fork: what it has come back to is its parent's."""
        self._end.leave_fork(None)

    def succeeded(self, call: Call, value: Any, buffers: list[Buffer]) -> list[Any]:
        """The row that reports a value. Runs user code (pickling)."""
        if self.session.forked:
            self._end.leave_fork(None)
        function = call.function
        if function.constructs:
            self.hosting_of(call).made(value)
            return [call.number, m.OK, None]
        if function.returns == 1:
            if type(value) in _SCALARS and type(value) is not int and type(value) is not str:
                return [call.number, m.OK, value]
            return self._report(call, m.OK, lambda: self._encode(call, value, buffers))
        if function.returns == 0:
            return [call.number, m.MANY, []]
        return self._report(call, m.MANY, lambda: self._encode_many(call, value, buffers))

    async def prepared(self, call: Call, value: Any) -> Any:
        """A value that succeeded takes: one whose copy would hold up the loop is encoded already."""
        function = call.function
        if function.constructs or function.returns == 0:
            return value
        if function.returns == 1:
            return await self.stored(value)
        if type(value) in (list, tuple) and len(value) == function.returns:
            return [await self.stored(item) for item in value]
        return value

    async def stored(self, value: Any) -> Any:
        """A value to be sent, put into the store if it is large, from the loop.

        Raises:
            ObjectStoreFullError: when there is no room.
        """
        if type(value) in _SCALARS:
            return value
        try:
            drafted = draft(value)
        except Exception:  # noqa: BLE001 - it is raised again where it is reported
            return value
        return Prepared(await self.session.store.keep_async(drafted))

    def _report(self, call: Call, status: int, encode_it: Any) -> list[Any]:
        try:
            return [call.number, status, encode_it()]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - becomes the call's failure
            return self.failed(call, error)

    def _encode(self, call: Call, value: Any, buffers: list[Buffer]) -> Any:
        return self._sent(call, self.pickled("the return value", call, value), buffers)

    def pickled(self, what: str, call: Call, value: Any) -> Payload:
        """What user code returns or yields, as it travels.

        Raises:
            TypeError: when it cannot be pickled.
            ValueError: when it is too large to be sent.
        """
        try:
            payload = self.session.store.encode(value)
        except ObjectStoreFullError:
            raise
        except Exception as error:
            raise TypeError(
                f"{what} of {call.function.name!r} cannot be pickled: {explain(value, error)}"
            ) from error
        self._check_size(what, call, wire_bytes(payload))
        return payload

    def _check_size(self, what: str, call: Call, size: int) -> None:
        most = self.session.config.largest_value_bytes
        if size > most:
            raise ValueError(
                f"{what} of {call.function.name!r} is {size} bytes when pickled; at most {most} can be sent"
            )

    def _sent(self, call: Call, payload: Payload, buffers: list[Buffer]) -> Any:
        """A payload as a field of the report; references inside are held until the owner has registered."""
        if refs := refs_of(payload):
            self.session.peers.borrowing.pin(call.owner, call.number, refs)
        field = to_wire(payload, buffers)
        if type(payload) is Stored:
            self.session.store.hand_over(payload, call.owner)
        return field

    def _encode_many(self, call: Call, value: Any, buffers: list[Buffer]) -> list[Any]:
        values = _values(call.function, value)
        if are_numbers(values):
            return values
        payloads = [
            item if is_scalar(item) else self.pickled(f"the return value at {position}", call, item)
            for position, item in enumerate(values)
        ]
        self._check_size("what is returned", call, sum(map(wire_bytes, payloads)))
        pickled = [payload for payload in payloads if type(payload) not in _SCALARS]
        pinned = [ref for payload in pickled for ref in refs_of(payload)]
        if pinned:
            self.session.peers.borrowing.pin(call.owner, call.number, pinned)
        # Only now that none has failed: buffers without a row would be taken for those of the next.
        fields = (
            [p if type(p) in _SCALARS else to_wire(p, buffers) for p in payloads] if pickled else payloads
        )
        for payload in pickled:
            if type(payload) is Stored:
                self.session.store.hand_over(payload, call.owner)
        return fields

    def failed(self, call: Call, error: BaseException) -> list[Any]:
        """The row that reports what user code raised."""
        if self.session.forked:
            self._end.leave_fork(error)
        if isinstance(error, ActorExit):
            return [call.number, m.ERROR, encode_error(self.hosting_of(call).farewell())]
        if call.cancelled:
            return [call.number, m.CANCELLED, None]
        status = m.ERROR
        if call.function.constructs:
            self.hosting_of(call).not_made(call)
        try:
            if call.function.is_retriable(error):
                status = m.ERROR_RETRY
        except Exception as broken:  # noqa: BLE001 - the classes cannot be unpickled here: that is the failure
            error = broken
        error.__traceback__ = _user_part(error)
        payload = encode_task_error(call.function.name, self._pid, error)
        # A local variable that holds the error would keep all others alive until the next garbage collection.
        error.__traceback__ = None
        return [call.number, status, self._sent(call, payload, [])]

    def refused(self, call: Call, error: BaseException) -> list[Any]:
        """The row for a call whose arguments or function could not be had."""
        if call.function.constructs:
            self.hosting_of(call).not_made(call)
        if isinstance(error, RayTaskError):
            return [call.number, m.ERROR, self._sent(call, encode_passing(error), [])]
        return self.failed(call, error)

    # --- references that outlive the call -------------------------------------------------------------------

    def kept(self, call: Call) -> list[ObjectRef[Any]]:
        """Clear a call that is over; return what came with it, is still held, and is not registered."""
        refs = call.refs
        call.clear()
        if refs is None:
            return []
        records: dict[ObjectRecord, None] = dict.fromkeys(ref._record for ref in refs)  # type: ignore[misc]
        del refs
        session = self.session
        session.owner.drain_dropped()
        with session.owner.lock:
            return [session.owner.ref_to(record) for record in unconfirmed(records)]


def _values(function: Function, value: Any) -> list[Any]:
    """The several values of one return."""
    told, returns = f"{function.name!r} has num_returns={function.returns}", function.returns
    try:
        iterator = iter(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{told} and must return that many values, not one {kind}") from None
    values = list(islice(iterator, returns + 1))
    if len(values) != returns:
        count = len(values) if len(values) < returns else f"more than {returns}"
        raise ValueError(f"{told} but returned {len(value) if hasattr(value, '__len__') else count} values")
    return values


@interruptible
def call_user(function: Any, positional: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Run user code: from here on, an interrupt may be raised."""
    return function(*positional, **keywords)


@interruptible
def advance(iterator: Any) -> Any:
    """The next item of a user's generator: from here on, an interrupt may be raised."""
    return next(iterator)


@interruptible
def end_iteration(iterator: Any) -> None:
    """Let a user's generator run its ``finally`` blocks."""
    close = getattr(iterator, "close", None)
    if close is not None:  # it may be no generator
        close()


async def advance_async(iterator: Any) -> Any:
    """As :func:`advance`, of an asynchronous generator."""
    return await anext(iterator)


#: Where user code begins in a traceback.
DOORS: Final = frozenset(door.__code__ for door in (call_user, advance, end_iteration, advance_async))


def _user_part(error: BaseException) -> Any:
    """The traceback without the frames of the framework that stand before the user's own."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code not in DOORS:
        traceback = traceback.tb_next
    return (
        traceback.tb_next if traceback is not None and traceback.tb_next is not None else error.__traceback__
    )
