"""Helpers built on the public verbs alone."""

from __future__ import annotations

from .completion import as_completed, map_unordered

__all__ = ["as_completed", "map_unordered"]
