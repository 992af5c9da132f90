"""Rules for what users give. An error names the option, the value and what is allowed."""

import enum
import math
import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Characters of a value that a message shows.
_SHOWN = 200


class Verdict(enum.Enum):
    """What a rule's `accept` returns instead of a value."""

    WRONG_TYPE = enum.auto()
    IMPOSSIBLE = enum.auto()
    #: Possible in itself, and more than the 64 bits in which numbers travel.
    TOO_LARGE = enum.auto()
    #: Text with half a character in it, which nothing can encode.
    NO_TEXT = enum.auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """What one option takes."""

    #: Ends the sentence "<option> must be ...".
    allowed: str
    #: Gives the value in its resolved form, or a Verdict.
    accept: Callable[[Any], Any]

    def check(self, name: str, value: object) -> Any:
        """The resolved value.

        Raises:
            TypeError: when the value is of the wrong type.
            ValueError: when a value of that type is impossible.
        """
        accepted = self.accept(value)
        if accepted is Verdict.WRONG_TYPE:
            raise TypeError(
                f"{name} must be {self.allowed}, not {shown(value)} of type {type(value).__name__}"
            )
        if accepted is Verdict.IMPOSSIBLE:
            raise ValueError(f"{name} must be {self.allowed}, not {shown(value)}")
        if accepted is Verdict.TOO_LARGE:
            raise ValueError(f"{name} must be below 2**63, not {shown(value)}")
        if accepted is Verdict.NO_TEXT:
            raise ValueError(f"{name} must be text that UTF-8 can encode, not {shown(value)}")
        return accepted


def is_text(value: str) -> bool:
    """Whether a string can travel: one with lone surrogates in it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole(at_least: int | None = None, at_most: int | None = None, note: str = "") -> Rule:
    """A whole number, not a bool; `note` explains a special value."""

    def accept(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            return Verdict.WRONG_TYPE
        number = int(value)
        in_range = (at_least is None or number >= at_least) and (at_most is None or number <= at_most)
        if not in_range:
            return Verdict.IMPOSSIBLE
        return number if number < 2**63 else Verdict.TOO_LARGE

    return Rule(f"a whole number{_bounds(at_least, None, at_most)}{note}", accept)


def number(at_least: float | None = None, above: float | None = None, at_most: float | None = None) -> Rule:
    """A finite number, not a bool."""

    def accept(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return Verdict.WRONG_TYPE
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        in_range = (
            math.isfinite(number)
            and (at_least is None or number >= at_least)
            and (above is None or number > above)
            and (at_most is None or number <= at_most)
        )
        return number if in_range else Verdict.IMPOSSIBLE

    return Rule(f"a finite number{_bounds(at_least, above, at_most)}", accept)


def text(allowed: str = "a string that is not empty", fits: Callable[[str], bool] = bool) -> Rule:
    """A string that `fits`."""

    def accept(value: object) -> object:
        if not isinstance(value, str):
            return Verdict.WRONG_TYPE
        if not is_text(value):
            return Verdict.NO_TEXT
        return value if fits(value) else Verdict.IMPOSSIBLE

    return Rule(allowed, accept)


def text_map(allowed: str = "a dict of strings to strings") -> Rule:
    """A mapping from strings to strings; resolved to a dict of its own."""

    def accept(value: object) -> object:
        if not isinstance(value, Mapping):
            return Verdict.WRONG_TYPE
        if not all(isinstance(item, str) for pair in value.items() for item in pair):
            return Verdict.WRONG_TYPE
        encodable = all(is_text(item) for pair in value.items() for item in pair)
        return dict(value) if encodable else Verdict.NO_TEXT

    return Rule(allowed, accept)


def flag() -> Rule:
    """True or False and nothing that merely acts like them."""
    return Rule("True or False", lambda value: value if isinstance(value, bool) else Verdict.WRONG_TYPE)


def check_timeout(timeout: object) -> None:
    """Check how long somebody wants to wait.

    Raises:
        TypeError: when it is neither None nor a number.
        ValueError: when it is negative.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be None or a number of seconds, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or >= 0 seconds, not {timeout!r}")


def check_all(given: Mapping[str, object], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Apply to each given value its rule. None stays None: "decide for me".

    Raises:
        TypeError: when a value is of the wrong type.
        ValueError: when a value is impossible.
    """
    return {name: None if value is None else rules[name].check(name, value) for name, value in given.items()}


def unknown(what: str, name: object, known: Iterable[str], refused: Mapping[str, str]) -> str:
    """The message for a name that is not `known`: why it is refused, or the nearest one and all allowed ones.

    Args:
        what: Whose name it is, as in "task option".
        name: The unknown name.
        known: All allowed names.
        refused: Names from Ray that are not here, with the reason.
    """
    import difflib  # a millisecond that only a mistake should cost

    if isinstance(name, str) and name in refused:
        return f"{what} {name!r} {refused[name]}"
    allowed = sorted(known)
    nearest = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return f"unknown {what} {name!r}{hint} allowed: {', '.join(allowed)}"


def shown(value: object) -> str:
    """The value for a message, at most 200 characters of it."""
    whole_text = repr(value)
    return whole_text if len(whole_text) <= _SHOWN else f"{whole_text[: _SHOWN - 3]}..."


def warn_deprecated(message: str) -> None:
    """Warn at the first caller outside this package: the user's line."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DeprecationWarning, stacklevel=level + 1)


def _bounds(at_least: float | None, above: float | None, at_most: float | None) -> str:
    limits = {">=": at_least, ">": above, "<=": at_most}
    return " and".join(f" {sign} {limit}" for sign, limit in limits.items() if limit is not None)
