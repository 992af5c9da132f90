"""What tests of several files look at: a session's tables, what is held, what was cancelled."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import TaskCancelledError
from asyncray.process import current
from tests.cluster import cancellable as tasks
from tests.cluster.beacons import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncray import ObjectRef
    from asyncray.client.session import Session


def the_session() -> Session:
    """The driver's own."""
    session = current().session
    assert session is not None
    return session


def assert_cancelled(*refs: ObjectRef[Any]) -> None:
    """They are done at once, and raise what a cancelled task raises."""
    for ref in refs:
        assert ref.done()
        assert ref.cancelled()
        with pytest.raises(TaskCancelledError, match="was cancelled"):
            ray.get(ref)


def assert_nothing_is_held(cpus: int = 2) -> None:
    """All CPUs are free, the tables are whole, and nothing is under way."""
    assert ray.get(tasks.plain.options(num_cpus=cpus).remote(1), timeout=PATIENCE_S) == 1
    session = the_session()
    session.owner.drain_dropped()
    # What takes no CPU may be under way whatever CPUs are free: the worker of a cancelled call has to answer.
    wait_until(lambda: not any_in_flight(session))
    with session.owner.lock:
        session.owner.objects.validate()
        assert all(not record.waiters for record in session.owner.objects.owned.values() if record.state)
        for group in session.leases._by_number:
            assert group.demand() == 0


def any_in_flight(session: Session) -> bool:
    """Whether a worker has not answered for all that it was sent."""
    with session.owner.lock:
        return any(lease.in_flight for lease in session.leases._leases.values())


def assert_resources_come_back() -> None:
    """All that the node has is free again, once the leases are given back that are kept for a while."""
    wait_until(lambda: ray.available_resources() == ray.cluster_resources())


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again; each answer is a round trip to the node."""
    for _ in range(int(PATIENCE_S * 100)):
        if condition():
            return
        select.poll().poll(10)
    raise TimeoutError(condition)
