"""Helpers built on the public verbs alone."""

from __future__ import annotations

from ..actor import list_named_actors
from ..explaining import explain, wait_graph
from .actor_group import ActorGroup
from .actor_pool import ActorPool
from .completion import as_completed, map_unordered
from .mapping import map  # noqa: A004 - it is the builtin's twin

__all__ = [
    "ActorGroup",
    "ActorPool",
    "as_completed",
    "explain",
    "list_named_actors",
    "map",
    "map_unordered",
    "wait_graph",
]


def __getattr__(name: str) -> object:
    # It needs asyncio: whoever needs it pays for it.
    if name == "queue":
        import importlib

        return importlib.import_module(".queue", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
