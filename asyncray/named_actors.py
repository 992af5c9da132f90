"""Named actors: looking them up, and listing them. Their names are the node's to give (node.directory)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .actor_handle import ActorHandle, handle_from
from .lifecycle import session_or_init

if TYPE_CHECKING:
    from .client.session import Session


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """The handle of a named actor. It does not keep the actor alive.

    Args:
        name: Its name.
        namespace: Where the name is unique; None is this session's own.

    Raises:
        RuntimeError: on a running event loop; use ``await asyncray.aio.get_actor(...)``.
        ValueError: when no actor has the name.
    """
    session, asked = _looked_for(name, namespace)
    found = session.questions.blocking("find_name", asked, "`await asyncray.aio.get_actor(...)`")
    return _found(asked, found)


def list_named_actors(all_namespaces: bool = False) -> list[Any]:  # noqa: FBT002 - as in Ray
    """The names of this session's living actors.

    Args:
        all_namespaces: Whether those of other namespaces are wanted, too.

    Returns:
        Names; with *all_namespaces* dicts of "name" and "namespace".

    Raises:
        RuntimeError: on a running event loop; use ``await asyncray.aio.list_named_actors()``.
    """
    session = session_or_init()
    remedy = "`await asyncray.aio.list_named_actors()`"
    names = session.questions.blocking("list_names", None, remedy)
    return _listed(session, names, all_namespaces=all_namespaces)


async def get_actor_async(name: str, namespace: str | None) -> ActorHandle[Any]:
    """As get_actor, for coroutines."""
    session, asked = _looked_for(name, namespace)
    return _found(asked, await session.questions.awaited("find_name", asked))


async def list_named_actors_async(*, all_namespaces: bool) -> list[Any]:
    """As list_named_actors, for coroutines."""
    session = session_or_init()
    return _listed(session, await session.questions.awaited("list_names"), all_namespaces=all_namespaces)


def _listed(session: Session, names: list[list[str]], *, all_namespaces: bool) -> list[Any]:
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in names]
    return [name for namespace, name in names if namespace == session.namespace]


def _looked_for(name: str, namespace: str | None) -> tuple[Session, list[str]]:
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of an actor is a string that is not empty, not {name!r}")
    if namespace is not None and (not isinstance(namespace, str) or not namespace):
        raise ValueError(
            f"a namespace is a string that is not empty, or None for the session's own, not {namespace!r}"
        )
    session = session_or_init()
    return session, [session.namespace if namespace is None else namespace, name]


def _found(asked: list[str], handle: bytes | None) -> ActorHandle[Any]:
    if handle is None:
        raise ValueError(f"no actor in the namespace {asked[0]!r} is called {asked[1]!r}")
    return handle_from(handle)
