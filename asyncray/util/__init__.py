"""Helpers beside the verbs, for programs without an event loop; ``asyncray.aio`` has what a loop can have.

``map`` over many items, a few calls at a time; ``as_completed`` and ``map_unordered``, as Ray has them.
``explain`` and ``wait_graph`` tell why something is not done, ``memory_summary`` what the objects take.
``register_serializer``, ``deregister_serializer``, ``inspect_serializability``: how values are pickled.
"""

from __future__ import annotations

from ..explaining import explain, wait_graph
from ..memory import memory_summary
from ..named_actors import list_named_actors
from ..serialization import deregister_serializer, inspect_serializability, register_serializer
from .actor_group import ActorGroup
from .actor_pool import ActorPool
from .completion import as_completed, map_unordered
from .mapping import map  # noqa: A004 - it is the builtin's twin

__all__ = [
    "ActorGroup",
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "explain",
    "inspect_serializability",
    "list_named_actors",
    "map",
    "map_unordered",
    "memory_summary",
    "register_serializer",
    "wait_graph",
]


def __getattr__(name: str) -> object:
    # It needs asyncio: whoever needs it pays for it.
    if name == "queue":
        import importlib

        return importlib.import_module(".queue", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
