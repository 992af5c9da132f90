"""Runtime environments as bytes, by which workers are told apart."""

from __future__ import annotations

import msgpack

from ..runtime_env import NO_RUNTIME_ENV, RuntimeEnv


def pack_environment(environment: RuntimeEnv) -> bytes:
    """A runtime environment as bytes: equal ones are equal; nothing for an empty one."""
    if not environment:
        return b""
    data: bytes = msgpack.packb(environment.to_wire(_dump))
    return data


def unpack_environment(packed: bytes) -> RuntimeEnv:
    """Undo `pack_environment`; a hook that is a function stays pickled."""
    return RuntimeEnv.from_wire(msgpack.unpackb(packed)) if packed else NO_RUNTIME_ENV


def _dump(hook: object) -> bytes:
    import cloudpickle  # heavy, and only needed for a hook that is a function

    data: bytes = cloudpickle.dumps(hook, protocol=5)
    return data
