"""The functions that a worker has been sent, unpickled once each."""

from __future__ import annotations

import gc
import pickle
from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError
from ..wire import messages as m
from ..wire.values import check_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..refs import RefAddress


class Function:
    """A descriptor as a worker knows it: a function and the options its calls share."""

    __slots__ = (
        "_blob", "_function", "addresses", "function_id", "holds", "max_calls", "name", "per_yield",
        "report_first", "resources", "retry", "returns", "runs", "stream", "stream_bytes",
    )  # fmt: skip

    #: Whether calling it makes an actor.
    constructs = False
    #: Whether it is a method of an actor; its name, and the concurrency group that the call asks for.
    of_actor = False
    method = ""
    group = ""
    #: Whether it is about light actors: its calls say which; see worker.lights.
    light = False

    def __init__(self, function_id: bytes, blob: bytes, options: dict[str, Any]) -> None:
        self.function_id = function_id
        self._blob = blob
        self._function: Callable[..., Any] | None = None
        self.name: str = _option(options, "name", str, "unknown")
        self.returns: int = _option(options, "returns", int, 1)
        #: Items of its stream that may be unread, 0 is any number; None iff its calls make no streams.
        self.stream: int | None = _option(options, "stream", int, 0) if "stream" in options else None
        #: Bytes of large items in it that may be unread; 0 is any number.
        self.stream_bytes: int = _option(options, "stream_bytes", int, 0)
        #: Items in each thing that its generators yield; 1: each is an item itself.
        self.per_yield: int = _option(options, "per_yield", int, 1)
        #: Runs after which the worker ends; 0 is never.
        self.max_calls: int = _option(options, "max_calls", int, 0)
        #: Whether what ran before must be reported before a call of this starts.
        self.report_first: bool = _option(options, "report_first", bool, default=False)
        self.resources: dict[str, float] = _option(options, "resources", dict, {})
        #: True for every exception, or the pickled classes that make a call run again.
        self.retry: bool | bytes = _option(options, "retry", (bool, bytes), default=False)
        #: References in its closure and globals, until it was loaded.
        self.addresses: Sequence[RefAddress] = check_addresses(options.get("refs", []))
        #: Whether there are any.
        self.holds = bool(self.addresses)
        self.runs = 0

    def load(self) -> Callable[..., Any]:
        """The function itself; unpickled at the first call, which runs the imports that it needs.

        Raises:
            Exception: whatever unpickling it raises, at every call.
        """
        if self._function is None:
            self._function = pickle.loads(self._blob)
            self._blob = b""
        return self._function

    def own_name(self) -> str:
        """What the function is called where it is defined."""
        return str(getattr(self.load(), "__qualname__", self.name))

    def bound(self, hosting: Any) -> Callable[..., Any]:
        """What a call for one light actor runs.

        Args:
            hosting: What is known of the actor.
        """
        return self.load()

    def is_retriable(self, error: BaseException) -> bool:
        """Whether retry_exceptions names this error."""
        if self.retry is True:
            return isinstance(error, Exception)
        if not self.retry:
            return False
        classes: tuple[type[BaseException], ...] = tuple(pickle.loads(self.retry))
        return isinstance(error, classes)


def _option(options: dict[str, Any], name: str, kind: Any, default: Any) -> Any:
    value = options.get(name, default)
    if not isinstance(value, kind) or (kind is int and value < 0):
        raise ProtocolError(f"the option {name!r} of a function cannot be {value!r}")
    return value


def let_go(functions: list[Function]) -> None:
    """Drop functions that nobody will call again, and empty the list. Runs destructors."""
    holding = any(function.holds for function in functions)
    functions.clear()
    if holding:
        # One that calls itself is a cycle, and would hold its references until the next collection.
        gc.collect()


class FunctionTable:
    """The descriptors of one owner, by its numbers for them; equal functions of all owners are shared."""

    def __init__(self, make: Callable[[bytes, bytes, dict[str, Any]], Function] = Function) -> None:
        self._by_number: dict[int, Function] = {}
        self._make = make

    def describe(self, number: int, function_id: bytes, blob: bytes, options: dict[str, Any]) -> None:
        """An owner tells what a number means.

        Raises:
            ProtocolError: when an option is of the wrong type.
        """
        self._by_number[number] = self._make(function_id, blob, options)

    def forget(self, numbers: list[Any]) -> list[Function]:
        """An owner will never use these numbers again; returns what they meant, for the caller to drop."""
        m.check_numbers("FORGET", numbers)
        return [self._by_number.pop(number) for number in numbers if number in self._by_number]

    def __getitem__(self, number: int) -> Function:
        try:
            return self._by_number[number]
        except (KeyError, TypeError):
            raise ProtocolError(f"function {number!r} was never described") from None
