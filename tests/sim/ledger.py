"""What a simulated actor has heard: all processes of a simulation share this module."""

from __future__ import annotations

#: (life of the actor, caller, number), in the order in which the actor heard it. Each test clears it first.
heard: list[tuple[int, str, int]] = []
