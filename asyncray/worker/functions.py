"""The functions that a worker has been sent, unpickled once each."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable


class Function:
    """A descriptor as a worker knows it: a function and the options its calls share."""

    __slots__ = (
        "_blob", "_function", "function_id", "max_calls", "name", "report_first", "resources", "retry",
        "returns", "runs",
    )  # fmt: skip

    def __init__(self, function_id: bytes, blob: bytes, options: dict[str, Any]) -> None:
        self.function_id = function_id
        self._blob = blob
        self._function: Callable[..., Any] | None = None
        self.name = str(options.get("name", "unknown"))
        self.returns = int(options.get("returns", 1))
        #: Runs after which the worker ends; 0 is never.
        self.max_calls = int(options.get("max_calls", 0))
        #: Whether what ran before must be reported before a call of this starts.
        self.report_first = bool(options.get("report_first", False))
        self.resources: dict[str, float] = options.get("resources", {})
        #: True for every exception, or the pickled classes that make a call run again.
        self.retry: bool | bytes = options.get("retry", False)
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

    def is_retriable(self, error: BaseException) -> bool:
        """Whether retry_exceptions names this error."""
        if self.retry is True:
            return isinstance(error, Exception)
        if not self.retry:
            return False
        classes: tuple[type[BaseException], ...] = tuple(pickle.loads(self.retry))
        return isinstance(error, classes)


class FunctionTable:
    """The descriptors of one owner, by its numbers for them; equal functions of all owners are shared."""

    def __init__(self) -> None:
        self._by_number: dict[int, Function] = {}

    def describe(self, number: int, function_id: bytes, blob: bytes, options: dict[str, Any]) -> None:
        """An owner tells what a number means."""
        self._by_number[number] = Function(function_id, blob, options)

    def __getitem__(self, number: int) -> Function:
        try:
            return self._by_number[number]
        except KeyError:
            raise ProtocolError(f"function {number} was never described") from None
