"""A remote function over many items, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ..mapping import Plan, Results

if TYPE_CHECKING:
    from ..remote import RemoteFunction

R = TypeVar("R")


@overload
def map(  # noqa: A001
    f: RemoteFunction[Any, Any, R],
    items: Iterable[Any],
    *,
    limit: int | None = ...,
    ordered: bool = ...,
    return_exceptions: Literal[False] = ...,
    progress: bool = ...,
) -> Results[R]: ...
@overload
def map(  # noqa: A001
    f: RemoteFunction[Any, Any, R],
    items: Iterable[Any],
    *,
    limit: int | None = ...,
    ordered: bool = ...,
    return_exceptions: bool,
    progress: bool = ...,
) -> Results[R | Exception]: ...
def map(  # noqa: A001 - it is the builtin's twin
    f: RemoteFunction[Any, Any, R],
    items: Iterable[Any],
    *,
    limit: int | None = None,
    ordered: bool = True,
    return_exceptions: bool = False,
    progress: bool = False,
) -> Results[Any]:
    """The results of ``f.remote(item)`` for every item, a limited number of calls at a time.

    for result in util.map(f, items): ...

    The blocking twin of :func:`asyncray.aio.map`, which tells of the arguments. Leaving early, by ``break``,
    an error or ``close``, cancels what is under way and waits for its end; ``with`` makes sure of it where
    the iterator has a name that outlives the loop. :func:`map_unordered` is Ray's: it has no order and no
    bar, and who leaves it early leaves its calls running.

    Returns:
        An iterator with ``close``.

    Raises:
        ImportError: when *progress* is wanted, and tqdm is not installed.
        RayTaskError: from the iterator: when a call raised, at its place.
        RuntimeError: from the iterator: when this would block a running event loop.
        TypeError: when *f* is no remote function, *items* not iterable, or something else of the wrong type.
        ValueError: when *limit* is not positive, or *f* has another number of results than one.
    """
    plan = Plan(f, limit=limit, ordered=ordered, return_exceptions=return_exceptions, progress=progress)
    if not isinstance(items, Iterable):
        raise TypeError(
            f"map takes something iterable, not {items!r} of type {type(items).__name__}; asyncray.aio.map "
            "takes asynchronous sources"
        )
    return Results(plan, items)
