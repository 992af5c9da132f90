"""Waiting for what no event announces."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import asyncray as ray

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that nothing in these tests needs: what takes longer hangs.
PATIENCE_S = 20.0


def eventually(look: Callable[[], Any], expected: Any) -> None:
    """Look again and again, with a round trip to the node in between, until it is as expected.

    Raises:
        AssertionError: when it never is.
    """
    end = time.monotonic() + PATIENCE_S
    while (seen := look()) != expected:
        assert time.monotonic() < end, f"{seen!r} never became {expected!r}"
        ray.available_resources()


def get(refs: Any) -> Any:
    """What the references stand for.

    Raises:
        GetTimeoutError: when that hangs.
    """
    return ray.get(refs, timeout=PATIENCE_S)
