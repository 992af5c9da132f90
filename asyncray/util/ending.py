"""How helpers end the actors that they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..actor import ActorHandle


def end(actors: Sequence[ActorHandle[Any]], patience_s: float) -> None:
    """End actors.

    Args:
        actors: Their handles.
        patience_s: Seconds in which they may do what they were called for, and as many to clean up; then they
            are killed.
    """
    # An actor that was asked to end says so, and cleans up; it answers nothing more until it is dead.
    try:
        for step in ("__ray_terminate__", "__ray_ready__"):
            refs = [getattr(actor, step).remote() for actor in actors] if patience_s > 0 else []
            if refs and len(asyncray.wait(refs, num_returns=len(refs), timeout=patience_s)[0]) < len(refs):
                break
    finally:  # a Ctrl-C, or an actor with no room for one more call, leaves nothing behind either
        _kill(actors)


async def end_async(actors: Sequence[ActorHandle[Any]], patience_s: float | None) -> None:
    """As end, for coroutines, and with patience for both together; None is as long as it takes."""
    import asyncio

    try:
        if patience_s is None or patience_s > 0:
            async with asyncio.timeout(patience_s):
                await asyncio.gather(*[actor.__aexit__(None, None, None) for actor in actors])
    except TimeoutError:
        return
    finally:  # whoever is cancelled here leaves nothing behind either
        _kill(actors)


def _kill(actors: Sequence[ActorHandle[Any]]) -> None:
    for actor in actors:  # those that have ended are no worse for it
        asyncray.kill(actor)
