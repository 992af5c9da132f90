"""Why a value cannot be pickled: the path inside it to the piece at fault, in one line.

Pickle's own error names a type and not the place. The search here pickles the pieces of the value one by one,
goes into the first that fails, and so on down to something that fails although all its pieces are fine.

Rule 1: nothing in here raises, whatever the user's objects do; a KeyboardInterrupt alone passes.
Rule 2: the search is bounded: in depth, in attempts to pickle, in bytes that those make.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from ..refs import ObjectRef
from ..wire.values import encode_pickled, size_bytes
from .pieces import Piece, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Values inside each other that are entered.
MAX_DEPTH: Final = 40
#: Attempts to pickle a piece, or several together.
MAX_TRIES: Final = 2000
#: Bytes pickled in all, before the search gives up.
MAX_BYTES: Final = 256 * 1024 * 1024
_SHOWN_PATH: Final = 300
_SHOWN_ERROR: Final = 300


def explain(value: Any, error: BaseException) -> str:
    """What inside *value* cannot be pickled, and why, in one line.

    Args:
        value: What was to be pickled.
        error: What pickling it raised.
    """
    return _explain("", value, error)


def culprit(value: Any) -> tuple[tuple[str, ...], Any, Any, BaseException] | None:
    """What inside *value* cannot be pickled: the path there, itself, what it is a part of, and the error.

    None when *value* can be pickled.
    """
    search = _Search()
    error = search.failure(value)
    if error is None:
        return None
    try:
        search.enter(value, [], error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - Rule 1
        return (), value, None, error
    path, found, _ = search.found or ([], value, error)
    return tuple(path), found, search.parent, error


def explain_call(
    name: str,
    function: Callable[..., Any] | inspect.Signature,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    error: BaseException,
) -> str:
    """Which argument of a call cannot be pickled, and what inside it, in one line.

    Args:
        name: What the remote function is called.
        function: The function, or its signature alone: that names the positional arguments.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        error: What pickling the arguments raised.
    """
    try:
        return _explain_call(name, _parameters(function, len(args)), args, kwargs, error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - Rule 1
        return f"an argument of {name} cannot be pickled ({_text(error)})"


def _explain_call(
    name: str, parameters: list[str], args: Sequence[Any], kwargs: dict[str, Any], error: BaseException
) -> str:
    for position, value in enumerate(args):
        failure = None if type(value) is ObjectRef else _Search().failure(value)
        if failure is not None:
            label = parameters[position]
            which = f"argument {position} (from 0)" if label.startswith("args[") else f"argument {label!r}"
            return f"{which} of {name}: {_explain(label, value, failure)}"
    for keyword, value in kwargs.items():
        failure = None if type(value) is ObjectRef else _Search().failure(value)
        if failure is not None:
            return f"argument {keyword!r} of {name}: {_explain(keyword, value, failure)}"
    return f"the arguments of {name} cannot be pickled together ({_text(error)})"


def _parameters(function: Callable[..., Any] | inspect.Signature, count: int) -> list[str]:
    """What to call each of *count* positional arguments."""
    unnamed = [f"args[{position}]" for position in range(count)]
    try:
        signature = function if isinstance(function, inspect.Signature) else inspect.signature(function)
        parameters = list(signature.parameters.values())
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - Rule 1: no signature to be had, for whatever reason
        return unnamed
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            names.extend(f"{parameter.name}[{position}]" for position in range(count - len(names)))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return [*names, *unnamed[len(names) :]][:count]


def _explain(root: str, value: Any, error: BaseException) -> str:
    try:
        search = _Search()
        search.enter(value, [], error)
        if search.too_deep and _is_recursion(error):
            return f"{root or 'it'} is nested too deeply to be pickled ({_text(error)})"
        path, culprit, reason = search.found or ([], value, error)
        return f"{_path(root, path)} is {_kind(culprit)}, which cannot be pickled ({_text(reason)})"
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - Rule 1
        return f"{root or 'it'} cannot be pickled ({_text(error)})"


class _Search:
    """One search; it keeps what it has seen, so that it ends in cycles too."""

    def __init__(self) -> None:
        #: Path, value and error of the best answer so far.
        self.found: tuple[list[str], Any, BaseException] | None = None
        #: What that is a part of.
        self.parent: Any = None
        #: Whether there was more to enter below MAX_DEPTH.
        self.too_deep = False
        #: By id, and kept here so that no id is given twice.
        self._seen: dict[int, Any] = {}
        self._tries = 0
        self._bytes = 0

    def failure(self, value: Any) -> BaseException | None:
        """What pickling *value* raises; None when it can be pickled, or nothing may be tried any more."""
        if self._tries >= MAX_TRIES or self._bytes >= MAX_BYTES:
            return None
        self._tries += 1
        try:
            self._bytes += size_bytes(encode_pickled(value))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - Rule 1
            return error
        return None

    def enter(self, value: Any, path: list[str], error: BaseException) -> bool:
        """Find what is at fault in *value*, which fails with *error*; False when it may lie elsewhere."""
        if len(path) >= MAX_DEPTH:
            self.too_deep = True
            self.found = (path, value, error)
            return True
        self._seen[id(value)] = value
        below = self._pieces(value)
        fresh = [piece for piece in below if id(piece[1]) not in self._seen]
        # With a way back to something that is being searched, what fails may be there and not here.
        certain = len(fresh) == len(below)
        at = 0
        while (failing := self._next_failing(fresh, at)) is not None:
            at, reason = failing
            place, piece = fresh[at]
            if id(piece) not in self._seen and self.enter(piece, [*path, place], reason):
                if self.found is not None and self.found[1] is piece:
                    self.parent = value
                return True
            certain = False
            at += 1
        if certain or self.found is None:
            self.found = (path, value, error)
        return certain

    def _pieces(self, value: Any) -> list[Piece]:
        found: list[Piece] = []
        try:
            found.extend(pieces(value))
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - it cannot say what else it is made of: the fault is its own
            return found
        return found

    def _next_failing(self, below: list[Piece], at: int) -> tuple[int, BaseException] | None:
        """The first piece from *at* on that fails, by halving, and what it raises."""
        low, high = at, len(below)
        if low == high or self.failure([piece for _, piece in below[low:high]]) is None:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self.failure([piece for _, piece in below[low:middle]]) is None:
                low = middle
            else:
                high = middle
        reason = self.failure(below[low][1])
        return None if reason is None else (low, reason)


# --- words ------------------------------------------------------------------------------------------------


def _path(root: str, path: list[str]) -> str:
    text = root
    for place in path:
        text += place if place[0] in ".[" or not text else f", {place}"
    text = " ".join(text.split())
    return (text if len(text) <= _SHOWN_PATH else text[: _SHOWN_PATH - 1] + "…") or "it"


def _kind(value: Any) -> str:
    """The type of *value* with its article."""
    kind = type(value)
    # Past the metaclass, which may be anybody's.
    module, name = (type.__dict__[part].__get__(kind) for part in ("__module__", "__qualname__"))
    full = name if type(module) is not str or module == "builtins" else f"{module}.{name}"
    article = "an" if full.lstrip("_")[:1].lower() in "aeio" and not full.startswith("_") else "a"
    return f"{article} {full}"


def _text(error: BaseException) -> str:
    """The message of *error* in one line; its type when it has none."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - Rule 1
        text = ""
    text = text or type(error).__name__
    return text if len(text) <= _SHOWN_ERROR else text[: _SHOWN_ERROR - 1] + "…"


def _is_recursion(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)
