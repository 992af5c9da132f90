"""Shared memory: the pages that values lie in."""
