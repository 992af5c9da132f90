"""asyncray: Ray's tasks and objects on Python's event loop.

    import asyncray as ray

    @ray.remote
    def square(x):
        return x * x

    print(ray.get([square.remote(i) for i in range(4)]))

Importing this has no side effects. The blocking verbs are here, their coroutines in ``asyncray.aio``.
"""

import typing as _typing

from . import exceptions
from .api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_gpu_ids,
    init,
    is_initialized,
    nodes,
    put,
    shutdown,
    wait,
)
from .context import get_runtime_context
from .generators import ObjectRefGenerator
from .refs import ObjectRef
from .remote import remote

if _typing.TYPE_CHECKING:
    from . import actor as actor
    from . import aio as aio
    from . import util as util
    from .actor import ActorHandle as ActorHandle
    from .actor import kill as kill
    from .actor import method as method
    from .named_actors import get_actor as get_actor

__version__ = "0.1.0"

__all__ = [
    "ActorHandle",
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "actor",
    "aio",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "util",
    "wait",
]


def __getattr__(name: str) -> object:
    # asyncio takes longer to import than all of this package: whoever needs it pays for it.
    if name in ("actor", "aio", "util"):
        import importlib

        return importlib.import_module(f".{name}", __name__)
    if name in ("ActorHandle", "kill", "method"):
        from . import actor

        return getattr(actor, name)
    if name == "get_actor":
        from .named_actors import get_actor

        return get_actor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
