"""Values that cannot change, between two light actors of one process: handed over as they are.

Whatever else there is among a call's arguments, all of them are pickled, as between processes.
"""

from __future__ import annotations

from typing import Any, Final

from ..wire.values import Whole, is_scalar

_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS: Final = frozenset({tuple, frozenset})


def by_reference(args: tuple[Any, ...]) -> list[Any] | None:
    """Positional arguments that cannot change, to be handed over; None when one of them can."""
    if all(map(_is_immutable, args)):
        return [value if type(value) in _PLAIN else Whole(value) for value in args]
    return None


def handed_over(arguments: list[Any]) -> list[Any]:
    """What was handed over."""
    return [value.value if type(value) is Whole else value for value in arguments]


def handed_back(value: Any, returns: int) -> list[Any] | None:
    """What a call returns, if none of it can change: a field for each of its returns; else None.

    Args:
        value: What its function has returned.
        returns: How many returns it has; 2 or more take a tuple or list of so many.
    """
    if returns == 1:
        values: Any = (value,)
    elif returns and type(value) in (tuple, list) and len(value) == returns:
        values = value
    else:
        return None
    if not all(map(_is_immutable, values)):
        return None
    return [each if is_scalar(each) else Whole(each) for each in values]


def _is_immutable(value: Any) -> bool:
    # Exact types: an instance of a subclass may have attributes.
    kind = type(value)
    return kind in _PLAIN or (kind in _CONTAINERS and all(map(_is_immutable, value)))
