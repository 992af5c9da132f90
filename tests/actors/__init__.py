"""Actors, with real processes."""
