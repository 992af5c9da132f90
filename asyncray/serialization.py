"""Types with a serializer of their own, and why a value cannot be pickled."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .wire.custom import SERIALIZERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Pickle instances of *cls*, and of no subclass, by functions of your own, in this process.

    Args:
        cls: The type; a second registration takes the place of the first.
        serializer: Makes something that can be pickled from an instance.
        deserializer: Makes an instance from that again, in whichever process; it is pickled along.

    Raises:
        TypeError: when *cls* is no type, or one of the functions cannot be called.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer takes a type, not {cls!r}")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"{name} must be a function of one argument, not {function!r}")
    SERIALIZERS[cls] = (serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Pickle instances of *cls* as any other's. Quiet when nothing was registered."""
    SERIALIZERS.pop(cls, None)


@dataclass(frozen=True, slots=True, eq=False)
class FailureTuple:
    """Something that cannot be pickled."""

    obj: Any
    #: The way to it from the value that was looked at, as it would be written.
    path: tuple[str, ...]
    #: What it is a part of; None for the value itself.
    parent: Any


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether a value can be pickled; prints the path to what cannot.

    Args:
        base_obj: The value, or a function with what it refers to.
        name: What to call it; None is its own name, or its type's.
        depth: Accepted for Ray's sake; the search goes as deep as it must.
        print_file: Where to print; None is the standard output.

    Returns:
        Whether it can be pickled, and what in it cannot.
    """
    from .client.diagnosis import culprit, explain

    shown = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__name__
    out = print_file or sys.stdout
    found = culprit(base_obj)
    if found is None:
        print(f"{shown}: can be pickled", file=out)
        return True, set()
    path, obj, parent, error = found
    print(f"{shown}: {explain(base_obj, error)}", file=out)
    return False, {FailureTuple(obj, (shown, *path), parent)}
