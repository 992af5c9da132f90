"""A call's arguments, encoded and checked, in the thread that makes the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import SessionClosedError
from ..wire.values import scalar_bytes, wire_bytes
from .arguments import encode_arguments
from .diagnosis import explain_call

if TYPE_CHECKING:
    from ..refs import ObjectRef
    from ..state.tasks import Descriptor
    from .arguments import Arguments, Dependency
    from .session import Session

#: Scalars in one call that fit into any frame together, whatever they are.
_FEW_SCALARS: Final = 8


def encode_call(
    session: Session, descriptor: Descriptor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Arguments, list[Dependency] | None]:
    """Encode and check a call's arguments; see encode_arguments.

    Raises:
        SessionClosedError: when one is a reference of an earlier session.
        TypeError: when an argument cannot be pickled.
        ValueError: when the arguments are too large to be sent.
    """
    try:
        arguments, dependencies = encode_arguments(args, kwargs)
    except SessionClosedError:
        raise
    except Exception as error:
        name = descriptor.name
        raise TypeError(explain_call(name, descriptor.function, args, kwargs, error)) from error
    for _, ref in dependencies or ():
        if ref._record.owner is not session:
            raise of_the_past(ref)
    if type(arguments) is list:
        if len(arguments) > _FEW_SCALARS:
            _check_sendable(session, descriptor, sum(map(scalar_bytes, arguments)))
    elif arguments is not None:
        _check_sendable(session, descriptor, wire_bytes(arguments))  # type: ignore[arg-type]
        session.hints.look(descriptor, arguments, args, kwargs)
    return arguments, dependencies


def _check_sendable(session: Session, descriptor: Descriptor, size: int) -> None:
    most = session.config.largest_value_bytes
    if size > most:
        raise ValueError(
            f"the arguments of {descriptor.name!r} take {size} bytes; at most {most} can be sent with a call"
        )


def of_the_past(ref: ObjectRef[Any]) -> SessionClosedError:
    """The error for a reference of an earlier session."""
    return SessionClosedError(
        f"{ref!r} is a reference of an earlier session, and has ended with it: sessions do not share objects"
    )
