"""What asyncray is to reach, and whether it did; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Medians(Protocol):
    """The medians of a run."""

    def median(self, row: str, runtime: str) -> float | None:
        """The median of ``row`` on ``runtime``, or None where there is no figure."""


class Target(Protocol):
    """What one row has to reach on asyncray."""

    def describe(self) -> str:
        """The target in a few characters, for the table."""

    def met(self, row: str, medians: Medians) -> bool | None:
        """Whether ``row`` reached it; None when a figure that it needs is missing."""


@dataclass(frozen=True, slots=True)
class TimesRay:
    """At least ``times`` the figure of Ray in the same run."""

    times: float

    def describe(self) -> str:
        """As :meth:`Target.describe`."""
        return f">= {self.times:g}x"

    def met(self, row: str, medians: Medians) -> bool | None:
        """As :meth:`Target.met`."""
        ours, rays = medians.median(row, "asyncray"), medians.median(row, "ray")
        if ours is None or not rays:
            return None
        return ours / rays >= self.times


@dataclass(frozen=True, slots=True)
class AtMost:
    """At most ``limit``, in the row's unit."""

    limit: float

    def describe(self) -> str:
        """As :meth:`Target.describe`."""
        return f"<= {self.limit:g}"

    def met(self, row: str, medians: Medians) -> bool | None:
        """As :meth:`Target.met`."""
        ours = medians.median(row, "asyncray")
        return None if ours is None else ours <= self.limit


@dataclass(frozen=True, slots=True)
class AtLeast:
    """At least ``limit``, in the row's unit."""

    limit: float

    def describe(self) -> str:
        """As :meth:`Target.describe`."""
        return f">= {self.limit:g}"

    def met(self, row: str, medians: Medians) -> bool | None:
        """As :meth:`Target.met`."""
        ours = medians.median(row, "asyncray")
        return None if ours is None else ours >= self.limit


@dataclass(frozen=True, slots=True)
class AtMostTimesRow:
    """At most ``times`` the figure of asyncray's row ``other``, in the same unit."""

    times: float
    other: str

    def describe(self) -> str:
        """As :meth:`Target.describe`."""
        return f"<= {self.times:g}x {self.other}"

    def met(self, row: str, medians: Medians) -> bool | None:
        """As :meth:`Target.met`."""
        ours, others = medians.median(row, "asyncray"), medians.median(self.other, "asyncray")
        if ours is None or others is None:
            return None
        return ours <= self.times * others


@dataclass(frozen=True, slots=True)
class AheadOf:
    """More than the figure of the row ``other``, which is another framework's and stands under bare."""

    other: str

    def describe(self) -> str:
        """As :meth:`Target.describe`."""
        return f"> {self.other}"

    def met(self, row: str, medians: Medians) -> bool | None:
        """As :meth:`Target.met`."""
        ours, others = medians.median(row, "asyncray"), medians.median(self.other, "bare")
        return None if ours is None or others is None else ours > others
