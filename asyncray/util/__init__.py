"""Helpers built on the public verbs alone."""

from __future__ import annotations

from ..explaining import explain, wait_graph
from .completion import as_completed, map_unordered

__all__ = ["as_completed", "explain", "map_unordered", "wait_graph"]
