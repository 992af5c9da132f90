"""Values on their way to becoming objects: pickled, and not copied yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import SessionClosedError
from ..refs import ObjectRef
from ..wire.stored import Stored
from ..wire.values import Draft, draft, is_scalar
from .arguments import ALL_ARGUMENTS
from .diagnosis import explain

if TYPE_CHECKING:
    from .arguments import Arguments, Dependency
    from .session import Session


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


def place_arguments(
    session: Session, drafted: Draft, dependencies: list[Dependency] | None
) -> tuple[Arguments, list[Dependency] | None]:
    """Large arguments become an object of their own, which the call depends on."""
    payload = session.store.keep(drafted)
    if type(payload) is not Stored:
        return payload, dependencies  # type: ignore[return-value]
    return None, [(ALL_ARGUMENTS, session.owner.put(payload)), *(dependencies or ())]
