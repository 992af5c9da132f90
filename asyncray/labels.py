"""Whether a node's labels are what a task asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether *labels* meet every condition of *selector*: "v", "!v", "in(a,b)" or "!in(a,b)" by key."""
    return all(_meets(condition, labels.get(key)) for key, condition in selector.items())


def any_matches(
    selector: Mapping[str, str], fallbacks: Sequence[Mapping[str, str]], labels: Mapping[str, str]
) -> bool:
    """Whether *labels* meet *selector*, or one of the selectors to fall back on."""
    return matches(selector, labels) or any(matches(fallback, labels) for fallback in fallbacks)


def _meets(condition: str, label: str | None) -> bool:
    wanted = condition.removeprefix("!")
    allowed = {value.strip() for value in wanted[3:-1].split(",")} if wanted.startswith("in(") else {wanted}
    return (label in allowed) != condition.startswith("!")
