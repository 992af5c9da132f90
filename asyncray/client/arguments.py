"""Arguments of a call as they travel, and back.

The form is chosen by type alone, so that the common call costs nothing:

- None: no arguments at all;
- a list of scalars: positional arguments that travel as themselves;
- ``bytes`` or :class:`Encoded`: a pickle of (positional, keywords);
- in shared memory, the same as an object of its own: a dependency in the place ALL_ARGUMENTS.

References given directly are taken out (None stands in their place) and travel beside it as dependencies;
their values are put back before the function runs. References inside containers stay references.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..exceptions import ProtocolError
from ..refs import ObjectRef, RefAddress
from ..state.objects import READY
from ..wire.values import BufferFeed, Draft, Encoded, decode, draft, from_wire, is_scalar, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..wire.frames import Buffer

Arguments: TypeAlias = list[Any] | bytes | Encoded | None
Dependency: TypeAlias = tuple[int | str, ObjectRef[Any]]

#: Types of payloads that take few bytes, whatever their value.
NUMBERS: Final = frozenset({type(None), bool, int, float})
#: The place of a dependency whose value is (positional, keywords): arguments too large to go along.
ALL_ARGUMENTS: Final = -1


def encode_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], inline_bytes: int = sys.maxsize
) -> tuple[Arguments | Draft, list[Dependency] | None]:
    """Encode a call's arguments; runs user code (pickling), so never under a lock.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        inline_bytes: Above this they stay a draft, for the caller to put elsewhere.

    Returns:
        The arguments, and the references among them that must be resolved first (None iff there are none).

    Raises:
        Exception: whatever pickling an argument raises.
    """
    if not kwargs:
        for value in args:
            if not is_scalar(value):
                break
        else:
            return (list(args), None) if args else (None, None)
    positional, dependencies, plain = _taken_out(args)
    keywords = dict(kwargs)
    for name, value in kwargs.items():
        if type(value) is ObjectRef:
            dependencies.append((name, value))
            keywords[name] = None
    if plain and not keywords:
        return positional, dependencies or None
    drafted = draft((positional, keywords))
    if drafted.size_bytes > inline_bytes:
        return drafted, dependencies or None
    return drafted.finish(), dependencies or None


def _taken_out(args: tuple[Any, ...]) -> tuple[list[Any], list[Dependency], bool]:
    """Arguments without their references, the references, and whether the others are all scalars."""
    positional = list(args)
    dependencies: list[Dependency] = []
    plain = True
    for position, value in enumerate(args):
        if type(value) is ObjectRef:
            dependencies.append((position, value))
            positional[position] = None
        elif plain and not is_scalar(value):
            plain = False
    return positional, dependencies, plain


def with_numbers(
    arguments: list[Any], dependencies: list[Dependency]
) -> tuple[list[Any], list[Dependency] | None]:
    """Scalar arguments with numbers that are there already in their places, and the other dependencies."""
    filled = arguments.copy()
    others: list[Dependency] = []
    for dependency in dependencies:
        place, ref = dependency
        record: Any = ref._record
        value = record.value
        if type(value) in NUMBERS and record.state == READY and type(place) is int:
            filled[place] = value
        else:
            others.append(dependency)
    return filled, others or None


def arguments_to_wire(arguments: Arguments, buffers: list[Buffer]) -> Any:
    """Arguments as a field of a message. A pickle with buffers or references is a list that holds a list."""
    if type(arguments) is Encoded:
        return [to_wire(arguments, buffers)]
    return arguments


def arguments_from_wire(field: Any, feed: BufferFeed) -> tuple[Arguments, list[RefAddress]]:
    """Arguments from a field of a message, and the addresses of the references inside them.

    Raises:
        ProtocolError: when the field is none.
    """
    if type(field) is list and len(field) == 1 and type(field[0]) is list:
        payload, addresses = from_wire(field[0], feed)
        return payload, addresses  # type: ignore[return-value]
    if field is None or type(field) is list:
        return field, []
    if type(field) is not bytes:
        raise ProtocolError(f"arguments cannot travel as {type(field).__name__}")
    return field, []


def decode_arguments(
    arguments: Arguments, dependencies: list[tuple[int | str, Any]], load: Callable[[Any], Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The positional and keyword arguments, with each dependency's value put back by *load*."""
    positional: list[Any]
    keywords: dict[str, Any]
    if arguments is None:
        positional, keywords = [], {}
    elif type(arguments) is list:
        positional, keywords = arguments, {}
    else:
        positional, keywords = decode(arguments)  # type: ignore[arg-type]
    for place, value in dependencies:
        if place == ALL_ARGUMENTS:
            positional, keywords = load(value)
        elif type(place) is int:
            positional[place] = load(value)
        else:
            keywords[place] = load(value)  # type: ignore[index]
    return positional, keywords
