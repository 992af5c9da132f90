"""Helpers built on the public verbs alone."""

from __future__ import annotations

from ..explaining import explain, wait_graph
from .completion import as_completed, map_unordered
from .mapping import map  # noqa: A004 - it is the builtin's twin

__all__ = ["as_completed", "explain", "map", "map_unordered", "wait_graph"]
