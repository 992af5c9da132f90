"""What simulated tasks note for their test: all of them share this module, as they share their process."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

#: How often each thing was noted. Each test clears it first.
noted: Counter[str] = Counter()

#: What simulated tasks wait for, by name. Each test that uses one makes it first.
gates: dict[str, asyncio.Event] = {}

#: Pickled references on their way to a task, by a way where nobody counts them. Each test clears it first.
letters: list[bytes] = []


def note(what: str) -> int:
    """Note something; return how often that has happened by now."""
    noted[what] += 1
    return noted[what]
