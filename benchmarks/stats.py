"""Medians and spreads over the rounds of a run; pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The figures of one row on one runtime: one sample a round."""

    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample. Raises: ValueError: when there is none."""
        if not samples:
            raise ValueError("a spread needs at least one sample, got none")
        return cls(tuple(samples))

    @property
    def median(self) -> float:
        """The middle sample, or the mean of the two middle ones."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """The smallest sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The largest sample."""
        return max(self.samples)


@dataclass(slots=True)
class Results:
    """All that a run has found: samples, failures and versions, by row and runtime."""

    samples: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, row: str, runtime: str, sample: float) -> None:
        """Note one round's figure."""
        self.samples[row, runtime].append(sample)

    def fail(self, row: str, runtime: str, reason: str) -> None:
        """Note why there is no figure."""
        self.failures[row, runtime] = reason

    def spread(self, row: str, runtime: str) -> Spread | None:
        """The figures of ``row`` on ``runtime``; None when there are none, or when it failed in a round."""
        samples = self.samples.get((row, runtime))
        return Spread.of(samples) if samples and (row, runtime) not in self.failures else None

    def median(self, row: str, runtime: str) -> float | None:
        """The median of ``row`` on ``runtime``, or None where there is no figure."""
        spread = self.spread(row, runtime)
        return None if spread is None else spread.median

    def ratio(self, row: str) -> float | None:
        """The median of asyncray by that of Ray; None when one of them is missing or Ray's is 0."""
        ours, rays = self.median(row, "asyncray"), self.median(row, "ray")
        return None if ours is None or not rays else ours / rays
