"""Arguments that cannot change, between two light actors of one process: handed over as they are.

Whatever else there is among a call's arguments, all of them are pickled, as between processes.
"""

from __future__ import annotations

from typing import Any, Final

_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS: Final = frozenset({tuple, frozenset})


class Whole:
    """A value that is handed over as it is; a message that is copied keeps it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def by_reference(args: tuple[Any, ...]) -> list[Any] | None:
    """Positional arguments that cannot change, to be handed over; None when one of them can."""
    if all(map(_is_immutable, args)):
        return [value if type(value) in _PLAIN else Whole(value) for value in args]
    return None


def handed_over(arguments: list[Any]) -> list[Any]:
    """What was handed over."""
    return [value.value if type(value) is Whole else value for value in arguments]


def _is_immutable(value: Any) -> bool:
    # Exact types: an instance of a subclass may have attributes.
    kind = type(value)
    return kind in _PLAIN or (kind in _CONTAINERS and all(map(_is_immutable, value)))
