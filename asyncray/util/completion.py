"""Results in the order in which they come."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from ..api import get, only_refs
from ..readiness import Completions
from ..remote import RemoteFunction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..refs import ObjectRef

R = TypeVar("R")


def as_completed(
    refs: Iterable[ObjectRef[Any]], *, chunk_size: int = 10, yield_obj_refs: bool = False
) -> Iterator[Any]:
    """The values of *refs*, each as soon as it is there.

    Each reference costs the same, however many there are.

    Args:
        refs: References.
        chunk_size: Accepted for Ray's sake; nothing is done in chunks.
        yield_obj_refs: Whether to yield the references themselves; failures are then not raised.

    Raises:
        RayTaskError: when a task raised, at its turn.
        RuntimeError: when this would block a running event loop.
        TypeError: when something is no reference.
        ValueError: when *chunk_size* is not positive.
    """
    _check_positive("chunk_size", chunk_size)
    return _completed(only_refs(refs, "as_completed"), yield_obj_refs=yield_obj_refs)


def _completed(refs: list[ObjectRef[Any]], *, yield_obj_refs: bool) -> Iterator[Any]:
    completions: Completions[Any] = Completions(refs)
    refs.clear()  # a reference lives as long as it is waited for, not as long as this generator
    with completions:
        while completions.left:
            ref = completions.next()
            yield ref if yield_obj_refs else get(ref)


def map_unordered(
    fn: RemoteFunction[Any, Any, R],
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
) -> Iterator[R]:
    """The results of ``fn.remote(item)`` for every item, each as soon as it is there.

    Args:
        fn: A remote function of one argument.
        items: Its arguments; taken as room is made.
        backpressure_size: Calls under way at a time; None is without limit.
        chunk_size: Accepted for Ray's sake; nothing is done in chunks.

    Raises:
        RayTaskError: when a task raised, at its turn.
        RuntimeError: when this would block a running event loop.
        TypeError: when *fn* is no remote function.
        ValueError: when a size is not positive.
    """
    if not isinstance(fn, RemoteFunction):
        raise TypeError(f"map_unordered takes a remote function, not {fn!r} of type {type(fn).__name__}")
    _check_positive("chunk_size", chunk_size)
    if backpressure_size is not None:
        _check_positive("backpressure_size", backpressure_size)
    return _mapped(fn.remote, items, backpressure_size)


def _mapped(call: Callable[[Any], ObjectRef[R]], items: Iterable[Any], limit: int | None) -> Iterator[R]:
    completions: Completions[R] = Completions([])
    source = iter(items)
    with completions:
        while True:
            room = None if limit is None else limit - completions.left
            for item in islice(source, room):
                completions.add(call(item))
            if not completions.left:
                return
            yield get(completions.next())


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be > 0, not {value}")
