"""What is put, and what a call is made with: pickled, checked, and sent to its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import SessionClosedError
from ..refs import ObjectRef
from ..wire.stored import Stored
from ..wire.values import Draft, draft, is_scalar, scalars_bytes, wire_bytes
from .arguments import ALL_ARGUMENTS, encode_arguments
from .diagnosis import explain, explain_call
from .errors import of_the_past

if TYPE_CHECKING:
    from ..state.tasks import Descriptor
    from .arguments import Arguments, Dependency
    from .session import Session

#: Scalars in one call that fit into any frame together, whatever they are.
_FEW_SCALARS: Final = 8


def draft_of(session: Session, value: Any) -> Draft | None:
    """What is to be put, pickled; None for what is put as it is.

    Raises:
        TypeError: when it is a reference, or cannot be pickled.
    """
    if type(value) is ObjectRef:
        raise TypeError("put was given an ObjectRef: it is a reference already; put a list to nest it")
    if session.guard_main is not None:
        session.guard_main()
    session.check_alive()
    try:
        return None if is_scalar(value) else draft(value)
    except SessionClosedError:
        raise
    except Exception as error:
        raise TypeError(f"put cannot pickle its argument: {explain(value, error)}") from error


def encode_call(
    session: Session, descriptor: Descriptor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Arguments, list[Dependency] | None]:
    """A call's arguments as they travel, and the references that it depends on.

    Raises:
        SessionClosedError: when a reference among them is of an earlier session.
        TypeError: when an argument cannot be pickled.
        ValueError: when the arguments are too large to be sent.
    """
    try:
        arguments, dependencies = encode_arguments(args, kwargs, session.store.inline_bytes)
    except SessionClosedError:
        raise
    except Exception as error:
        name = descriptor.name
        raise TypeError(explain_call(name, descriptor.function(), args, kwargs, error)) from error
    for _, ref in dependencies or ():
        if ref._record.owner is not session.references:
            raise of_the_past(ref)
    if type(arguments) is list:
        if len(arguments) > _FEW_SCALARS:
            _check_sendable(session, descriptor, scalars_bytes(arguments))
    elif arguments is not None:
        session.hints.look(descriptor, arguments, args, kwargs)
        if type(arguments) is Draft:
            return _place(session, descriptor, arguments, dependencies)
        _check_sendable(session, descriptor, wire_bytes(arguments))  # type: ignore[arg-type]
    return arguments, dependencies  # type: ignore[return-value]


def _place(
    session: Session, descriptor: Descriptor, drafted: Draft, dependencies: list[Dependency] | None
) -> tuple[Arguments, list[Dependency] | None]:
    """Large arguments become an object of their own, which the call depends on."""
    payload = session.store.keep(drafted)
    if type(payload) is Stored:
        return None, [(ALL_ARGUMENTS, session.owner.put(payload)), *(dependencies or ())]
    _check_sendable(session, descriptor, wire_bytes(payload))
    return payload, dependencies  # type: ignore[return-value]


def _check_sendable(session: Session, descriptor: Descriptor, size: int) -> None:
    most = session.config.largest_value_bytes
    if size > most:
        raise ValueError(
            f"the arguments of {descriptor.name!r} take {size} bytes; at most {most} can be sent with a call"
        )
