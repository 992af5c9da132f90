"""Values as bytes, and back.

A value travels in one of five forms, told apart by their type alone:

- a scalar (None, bool, int, float, str) as itself: nothing is pickled, and it needs no copy to be safe,
  because it cannot change;
- ``bytes``: a pickle, which holds everything;
- :class:`Encoded`: a pickle with large buffers beside it (pickle protocol 5), or with references inside;
- :class:`Stored`: the same in shared memory, of which only the place travels;
- :class:`Whole`: a value that cannot change, as it is, from a process to itself.

Rule 1: pickling runs user code; nothing here may be called under a lock.
Rule 2: exact types only. A subclass of int is not a scalar: its type must survive.
Rule 3: what __main__ defines goes by value (cloudpickle), because it does not exist at the other end.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import cloudpickle

from ..exceptions import ProtocolError
from ..refs import ObjectRef, RefAddress, restore
from .custom import SERIALIZERS
from .stored import Stored, aligned, stored_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .frames import Buffer

Scalar: TypeAlias = bool | int | float | str | None

_NUMBERS: Final = frozenset({type(None), bool, int, float})
SCALARS: Final = _NUMBERS | {str}
#: A buffer below this is copied into the pickle: a place in the frame of its own costs more.
OUT_OF_BAND_BYTES: Final = 16 * 1024
#: Text above this is pickled: checking that it can be UTF-8 costs a pass over it.
_LONG_TEXT: Final = 1024
#: A reference in a message: process id, address, number.
_ADDRESS_BYTES: Final = 100
#: The place of a stored value in a message, about.
_PLACE_BYTES: Final = 64
#: Numbers that describe a stored value, and the references inside it.
_STORED_FIELDS: Final = 5


class Encoded:
    """A pickled value with its buffers beside it and the references inside it."""

    __slots__ = ("buffers", "data", "refs")

    def __init__(
        self, data: bytes, buffers: Sequence[Buffer] = (), refs: Sequence[ObjectRef[Any]] = ()
    ) -> None:
        self.data = data
        self.buffers = buffers
        #: The references inside the value, held here so that their objects live.
        self.refs = refs

    @property
    def size_bytes(self) -> int:
        """Bytes of the pickle and its buffers."""
        return len(self.data) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


class Whole:
    """A value that cannot change: handed over as it is in its process, and pickled when it leaves that."""

    __slots__ = ("_pickled", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._pickled: bytes | Encoded | None = None

    @property
    def pickled(self) -> bytes | Encoded:
        """How it leaves the process. No user code: what cannot change is of plain types alone."""
        if self._pickled is None:
            self._pickled = encode_pickled(self.value)
        return self._pickled


Payload: TypeAlias = Scalar | bytes | Encoded | Stored | Whole


class Draft:
    """A pickled value before its one copy: its large parts are still the value's own memory."""

    __slots__ = ("buffers", "parts", "refs", "write")

    def __init__(self) -> None:
        #: The pickle, in pieces; text and bytes of any size are among them as they are.
        self.parts: list[bytes] = []
        self.buffers: list[memoryview] = []
        self.refs: list[ObjectRef[Any]] = []
        #: What the pickler calls.
        self.write = self.parts.append

    @property
    def size_bytes(self) -> int:
        """Bytes of the pickle and its buffers."""
        size = sum(map(len, self.parts))
        return size + sum(buffer.nbytes for buffer in self.buffers) if self.buffers else size

    @property
    def room_bytes(self) -> int:
        """Bytes that it takes in one piece of memory, its buffers aligned."""
        at = sum(map(len, self.parts))
        for buffer in self.buffers:
            at = aligned(at) + buffer.nbytes
        return at

    def finish(self) -> bytes | Encoded:
        """The value in this process's own memory; it shares nothing with the original."""
        data = b"".join(self.parts)
        if self.buffers or self.refs:
            return Encoded(data, [bytes(buffer) for buffer in self.buffers], self.refs)
        return data

    def store(self, start: int, room: int, copy: Callable[[int, Buffer], int]) -> Stored:
        """The value in an extent; *copy* puts a piece to a place there and says where it ends."""
        at = start
        for part in self.parts:
            at = copy(at, part)
        stored = Stored(start, room, at - start, [buffer.nbytes for buffer in self.buffers])
        for buffer in self.buffers:
            at = copy(start + aligned(at - start), buffer)
        stored.refs = self.refs
        return stored


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle that notes the references it meets."""

    def __init__(self, draft: Draft, *, in_band: bool = False) -> None:
        def keep_out(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if in_band or raw.nbytes < OUT_OF_BAND_BYTES:
                return True
            draft.buffers.append(raw)
            return False

        super().__init__(draft, protocol=5, buffer_callback=keep_out)
        self._refs = draft.refs
        self._by_address = in_band

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is ObjectRef:
            # Also where it is not needed: who asks for it hears when the reference's session has ended.
            address = obj._record.owner.address_of(obj)
            self._refs.append(obj)
            if self._by_address:
                return restore, address
            # The references travel beside the pickle, which names them by their place there.
            return nth_reference, (len(self._refs) - 1,)
        if SERIALIZERS and type(obj) in SERIALIZERS:
            serializer, deserializer = SERIALIZERS[type(obj)]
            return deserializer, (serializer(obj),)
        return super().reducer_override(obj)


class _Unpickler(pickle.Unpickler):
    """Takes references from a list, by a call that no Python code of ours is in the way of."""

    def __init__(
        self, data: bytes | memoryview, buffers: Sequence[Buffer], refs: Sequence[ObjectRef[Any]]
    ) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._nth = refs.__getitem__

    def find_class(self, module: str, name: str, /) -> Any:
        if name == _NTH and module == __name__:
            return self._nth
        return super().find_class(module, name)


def nth_reference(place: int) -> ObjectRef[Any]:
    """Stands in a pickle for the references beside it.

    Raises:
        ProtocolError: always: who reads such a pickle has the references, and never comes here.
    """
    raise ProtocolError(f"a pickle names reference {place}, and none came with it")


_NTH: Final = nth_reference.__name__


def is_scalar(value: object) -> bool:
    """Whether *value* travels as itself."""
    kind = type(value)
    if kind not in SCALARS:
        return False
    if kind is int:
        return -(2**63) <= value < 2**63  # type: ignore[operator]
    if kind is str:
        return len(value) <= _LONG_TEXT and _is_utf8(value)  # type: ignore[arg-type]
    return True


def are_numbers(values: list[Any]) -> bool:
    """Whether all of them are scalars that take few bytes."""
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS:
        return False
    integers = [value for value in values if type(value) is int] if int in kinds else [0]
    return min(integers) >= -(2**63) and max(integers) < 2**63


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which msgpack cannot carry
        return False
    return True


def encode(value: object) -> Payload:
    """The form in which *value* travels; it shares no memory with *value*.

    Raises:
        Exception: whatever pickling *value* raises.
    """
    if is_scalar(value):
        return value  # type: ignore[return-value]
    return encode_pickled(value)


def draft(value: object) -> Draft:
    """Pickle *value*, also when it is a scalar, and copy nothing large yet.

    Raises:
        Exception: whatever pickling *value* raises.
    """
    drafted = Draft()
    _Pickler(drafted).dump(value)
    return drafted


def encode_pickled(value: object) -> bytes | Encoded:
    """Pickle *value*, also when it is a scalar."""
    return draft(value).finish()


def encode_in_band(value: object) -> tuple[bytes, list[ObjectRef[Any]]]:
    """Pickle *value* in one piece, however large the buffers in it; returns the references inside, too."""
    drafted = Draft()
    _Pickler(drafted, in_band=True).dump(value)
    return b"".join(drafted.parts), drafted.refs


def decode(payload: Payload) -> Any:
    """The value of a payload; a new one at each call unless it cannot change.

    Raises:
        Exception: whatever unpickling raises.
    """
    if type(payload) is bytes:
        return pickle.loads(payload)
    if type(payload) is Encoded:
        return _load(payload.data, payload.buffers, payload.refs)
    if type(payload) is Whole:
        return payload.value
    assert type(payload) is not Stored, "the store of the process reads these"
    return payload


def decode_stored(stored: Stored, memory: memoryview) -> Any:
    """The value of a stored payload; its buffers are parts of *memory*, which is all of the store.

    Raises:
        Exception: whatever unpickling raises.
    """
    at = stored.start + stored.data_bytes
    data = memory[stored.start : at]
    buffers = []
    for size in stored.buffers:
        at = stored.start + aligned(at - stored.start)
        buffers.append(memory[at : at + size])
        at += size
    return _load(data, buffers, stored.refs)


def _load(data: bytes | memoryview, buffers: Sequence[Buffer], refs: Sequence[ObjectRef[Any]]) -> Any:
    if refs:
        return _Unpickler(data, buffers, refs).load()
    return pickle.loads(data, buffers=buffers)


def refs_of(payload: Payload) -> Sequence[ObjectRef[Any]]:
    """The references inside a payload."""
    return payload.refs if type(payload) in (Encoded, Stored) else ()  # type: ignore[union-attr]


def size_bytes(payload: Payload | Draft) -> int:
    """Bytes that a payload holds; a scalar's are counted as 16."""
    if type(payload) is bytes:
        return len(payload)
    if type(payload) in (Encoded, Stored, Draft):
        return payload.size_bytes  # type: ignore[union-attr]
    if type(payload) is Whole:
        return size_bytes(payload.pickled)
    return len(payload) if type(payload) is str else 16


def wire_bytes(payload: Payload) -> int:
    """About how many bytes a payload takes in a frame."""
    refs = len(refs_of(payload)) * _ADDRESS_BYTES
    return refs + (_PLACE_BYTES if type(payload) is Stored else size_bytes(payload))


def scalars_bytes(values: list[Scalar]) -> int:
    """How many bytes scalars take in a frame, at most."""
    texts = [value for value in values if type(value) is str]
    others = len(values) - len(texts)
    return 9 * others + sum(5 + (len(text) if text.isascii() else len(text.encode())) for text in texts)


def to_wire(payload: Payload, buffers: list[Buffer]) -> Any:
    """A payload as a field of a message; its buffers are added to the frame's."""
    if type(payload) is Whole:
        payload = payload.pickled
    if type(payload) is Stored:
        return [*payload.to_wire(), [ref._record.owner.address_of(ref) for ref in payload.refs]]
    if type(payload) is not Encoded:
        return payload
    buffers.extend(payload.buffers)
    return [payload.data, len(payload.buffers), [ref._record.owner.address_of(ref) for ref in payload.refs]]


def field_bytes(field: Any) -> int:
    """About how many bytes a field takes in the header of a frame."""
    if type(field) is list:
        return sum(map(field_bytes, field))
    return len(field) if type(field) in (bytes, str) else 16


class BufferFeed:
    """Deals a frame's buffers out to the payloads that own them, in order.

    Args:
        buffers: The frame's.
        adopt: Told of each stored payload in the message; None where there can be none.
    """

    __slots__ = ("_adopt", "_at", "_buffers")

    def __init__(self, buffers: Sequence[memoryview], adopt: Callable[[Stored], None] | None = None) -> None:
        self._buffers = buffers
        self._adopt = adopt
        self._at = 0

    def adopt(self, stored: Stored) -> None:
        """Count a stored payload as this process's.

        Raises:
            ProtocolError: when there can be none in this message.
        """
        if self._adopt is None:
            raise ProtocolError("a stored value came where none can be")
        self._adopt(stored)

    def take(self, count: int) -> list[Buffer]:
        """The next *count* buffers.

        Raises:
            ProtocolError: when there are not so many.
        """
        taken = list(self._buffers[self._at : self._at + count])
        if len(taken) != count or count < 0:
            raise ProtocolError("a message announces more buffers than its frame carries")
        self._at += count
        return taken  # type: ignore[return-value]


def from_wire(field: Any, feed: BufferFeed) -> tuple[Payload, list[RefAddress]]:
    """A payload from a field of a message, and the addresses of the references inside it.

    The payload's ``refs`` are empty: who receives it turns the addresses into references of its own.

    Raises:
        ProtocolError: when the field is no payload.
    """
    kind = type(field)
    if kind is bytes or kind in SCALARS or kind is Whole:
        return field, []
    if kind is list and len(field) == _STORED_FIELDS:
        stored = stored_from_wire(field[:-1])
        addresses = check_addresses(field[-1])
        feed.adopt(stored)
        return stored, addresses
    if kind is not list or len(field) != 3 or type(field[0]) is not bytes or type(field[1]) is not int:
        raise ProtocolError(f"a value cannot travel as {kind.__name__}")
    data, count, refs = field
    return Encoded(data, feed.take(count)), check_addresses(refs)


def check_addresses(refs: Any) -> list[RefAddress]:
    """Check a field that lists references.

    Raises:
        ProtocolError: when it does not.
    """
    if type(refs) is not list:
        raise ProtocolError("the references inside a value are not a list")
    for ref in refs:
        well_formed = type(ref) is list and len(ref) == 3
        if not well_formed or (type(ref[0]), type(ref[1]), type(ref[2])) != (bytes, str, int) or ref[2] < 0:
            raise ProtocolError("a reference is a process id, an address and a number")
    return [tuple(ref) for ref in refs]
