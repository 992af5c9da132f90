"""What a node says of its resources when somebody asks why a task waits.

The report is made of plain values, because it travels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..resources import Resources
    from .scheduler import Demand, Grant, Scheduler


def report(scheduler: Scheduler) -> dict[str, Any]:
    """What is free, who holds the rest, and who waits in which order."""
    waiting = scheduler.waiting()
    return {
        "total": dict(scheduler.resources.total),
        "free": dict(scheduler.resources.available),
        "full": len(scheduler.workers) >= scheduler.max_workers,
        "holders": [
            [grant.worker.process_id, grant.number, grant.name, dict(_held(grant))]
            for grant in scheduler.grants.values()
        ],
        "demands": [
            [demand.owner, demand.number, demand.name, demand.count, dict(demand.resources)]
            for demand in waiting
        ],
        "starting": [[d.owner, d.number, bool(d.environment)] for d in waiting if _starts(scheduler, d)],
    }


def _held(grant: Grant) -> Resources:
    """What a lease holds now: a task that waits has given its CPU back."""
    held = grant.demand.resources
    return held.subtract(held.only("CPU")) if grant.blocked else held


def _starts(scheduler: Scheduler, demand: Demand) -> bool:
    """Whether a worker is being started that could serve a demand."""
    pool = (demand.mode, demand.environment)
    return any(key[:2] == pool for key in scheduler.staff.starting)
