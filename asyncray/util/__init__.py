"""Helpers built on the public verbs alone."""

from __future__ import annotations

from ..memory import memory_summary
from ..serialization import deregister_serializer, inspect_serializability, register_serializer
from .completion import as_completed, map_unordered

__all__ = [
    "as_completed",
    "deregister_serializer",
    "inspect_serializability",
    "map_unordered",
    "memory_summary",
    "register_serializer",
]
