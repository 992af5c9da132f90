"""One call on its worker: decoding its arguments, running it, encoding what came of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..client.arguments import arguments_from_wire, decode_arguments
from ..client.diagnosis import explain
from ..client.errors import encode_error, encode_task_error
from ..client.interrupts import interruptible
from ..exceptions import ProtocolError, RayTaskError
from ..state.objects import ObjectRecord, unregistered
from ..wire import messages as m
from ..wire.values import BufferFeed, Encoded, decode, encode, from_wire, to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..client.session import Session
    from ..refs import ObjectRef
    from ..wire.frames import Buffer
    from .functions import Function

_SCALARS = frozenset({type(None), bool, int, float, str})


class Call:
    """A task on its way through a worker."""

    __slots__ = (
        "arguments", "cancelled", "dependencies", "feed", "function", "keywords", "number", "owner",
        "positional", "refs", "serial",
    )  # fmt: skip

    def __init__(self, owner: bytes, row: list[Any], function: Function, feed: BufferFeed) -> None:
        #: Process id of the owner.
        self.owner = owner
        #: The task's number at its owner.
        self.number: int = row[0]
        self.function = function
        self.arguments = row[2]
        self.dependencies = row[3]
        self.feed = feed
        #: This worker's number for the call: what its children name as their parent.
        self.serial = 0
        self.positional: Sequence[Any] = ()
        self.keywords: dict[str, Any] = {}
        #: References inside the arguments. Held while the call runs; None iff there were none.
        self.refs: list[ObjectRef[Any]] | None = None
        self.cancelled = False

    @property
    def name(self) -> str:
        """The task's name."""
        return self.function.name

    @property
    def function_name(self) -> str:
        """The function's own name."""
        return str(getattr(self.function.load(), "__qualname__", self.function.name))

    @property
    def resources(self) -> dict[str, float]:
        """What the task holds, by resource name."""
        return self.function.resources


def take_buffers(call: Call) -> None:
    """Cut the call's own buffers out of its frame, in the order of the frame's rows.

    Raises:
        ProtocolError: when the row is malformed.
    """
    if type(call.arguments) is list and call.arguments and type(call.arguments[0]) is list:
        call.arguments = arguments_from_wire(call.arguments, call.feed)
    if call.dependencies is None:
        return
    if type(call.dependencies) is not list:
        raise ProtocolError("a task's dependencies are not a list")
    taken = []
    for dependency in call.dependencies:
        if type(dependency) is not list or len(dependency) != 2 or type(dependency[0]) not in (int, str):
            raise ProtocolError("a dependency is not a place and a value")
        place, field = dependency
        remote = type(field) is list and len(field) == 1
        taken.append((place, field if remote else from_wire(field, call.feed)))
    call.dependencies = taken


class Runner:
    """Runs calls; what both modes of a worker share."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._pid = os.getpid()

    # --- arguments ----------------------------------------------------------------------------------------

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
                call.refs = [self.session.restore_ref(address) for address in addresses]
        else:
            payload = arguments
        places = call.dependencies or []
        call.positional, call.keywords = decode_arguments(payload, places, self._dependency)

    def _dependency(self, value: Any) -> Any:
        if type(value) is list:
            process_id, address, number = value[0]
            ref = self.session.restore_ref((process_id, address, number))
            return ref.result()
        payload, addresses = value
        # Held while the value is decoded, so that the references inside find their records.
        held = [self.session.restore_ref(address) for address in addresses]
        decoded = decode(payload)
        del held
        return decoded

    def await_remote(self, call: Call) -> list[ObjectRef[Any]]:
        """References to the arguments that must be fetched from their owners first."""
        remote = [value[0] for _, value in call.dependencies or () if type(value) is list]
        return [
            self.session.restore_ref((process_id, address, number)) for process_id, address, number in remote
        ]

    # --- outcomes -----------------------------------------------------------------------------------------

    def succeeded(self, call: Call, value: Any, buffers: list[Buffer]) -> list[Any]:
        """The row that reports a value. Runs user code (pickling)."""
        function = call.function
        if function.returns == 1:
            if type(value) in _SCALARS and type(value) is not int and type(value) is not str:
                return [call.number, m.OK, value]
            return self._report(call, m.OK, lambda: self._encode(call, value, buffers))
        if function.returns == 0:
            return [call.number, m.MANY, []]
        return self._report(call, m.MANY, lambda: self._encode_many(call, value, buffers))

    def _report(self, call: Call, status: int, encode_it: Any) -> list[Any]:
        try:
            return [call.number, status, encode_it()]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - becomes the call's failure
            return self.failed(call, error)

    def _encode(self, call: Call, value: Any, buffers: list[Buffer]) -> Any:
        try:
            payload = encode(value)
        except Exception as error:
            raise TypeError(
                f"the return value of {call.function.name!r} cannot be pickled: {explain(value, error)}"
            ) from error
        if type(payload) is Encoded and payload.refs:
            self.session.peers.pin(call.owner, call.number, payload.refs)
        return to_wire(payload, buffers)

    def _encode_many(self, call: Call, value: Any, buffers: list[Buffer]) -> list[Any]:
        returns = call.function.returns
        try:
            values = list(value)
        except TypeError:
            raise TypeError(
                f"{call.function.name!r} has num_returns={returns} and must return that many values, not one "
                f"{type(value).__name__}"
            ) from None
        if len(values) != returns:
            raise ValueError(
                f"{call.function.name!r} has num_returns={returns} but returned {len(values)} values"
            )
        fields = []
        pinned: list[ObjectRef[Any]] = []
        for item in values:
            payload = encode(item)
            if type(payload) is Encoded:
                pinned.extend(payload.refs)
            fields.append(to_wire(payload, buffers))
        if pinned:
            self.session.peers.pin(call.owner, call.number, pinned)
        return fields

    def failed(self, call: Call, error: BaseException) -> list[Any]:
        """The row that reports what user code raised."""
        if call.cancelled:
            return [call.number, m.CANCELLED, None]
        status = m.ERROR
        try:
            if call.function.is_retriable(error):
                status = m.ERROR_RETRY
        except Exception as broken:  # noqa: BLE001 - the classes cannot be unpickled here: that is the failure
            error = broken
        error.__traceback__ = _user_part(error)
        return [call.number, status, encode_task_error(call.function.name, self._pid, error)]

    def refused(self, call: Call, error: BaseException) -> list[Any]:
        """The row for a call whose arguments or function could not be had."""
        if isinstance(error, RayTaskError):
            return [call.number, m.ERROR, encode_error(error)]
        return self.failed(call, error)

    # --- references that outlive the call -------------------------------------------------------------------

    def kept(self, call: Call) -> list[ObjectRef[Any]]:
        """References from the arguments that user code still holds and whose owners do not know it."""
        if call.refs is None:
            return []
        records: list[ObjectRecord] = [ref._record for ref in call.refs]  # type: ignore[misc]
        call.refs = None
        call.positional, call.keywords = (), {}
        session = self.session
        session.owner.drain_dropped()
        with session.owner.lock:
            return [session.owner.ref_to(record) for record in unregistered(records)]


@interruptible
def call_user(function: Any, positional: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Run user code: from here on, an interrupt may be raised."""
    return function(*positional, **keywords)


def _user_part(error: BaseException) -> Any:
    """The traceback without the frames of the framework that stand before the user's own."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not call_user.__code__:
        traceback = traceback.tb_next
    return (
        traceback.tb_next if traceback is not None and traceback.tb_next is not None else error.__traceback__
    )
