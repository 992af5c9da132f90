"""Hundreds of actors with processes of their own: made, called and ended without anything left behind.

The suite makes sixty. The issue's five hundred: ASYNCRAY_MANY_ACTORS=500, which takes about ten seconds.
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate
from tests.cluster.processes import left_of
from tests.cluster.tables import session, settled

if TYPE_CHECKING:
    from collections.abc import Sized
    from types import ModuleType

    from asyncray.client.session import Session

COUNT = int(os.environ.get("ASYNCRAY_MANY_ACTORS", "60"))
SIMULATED = 100
#: Descriptors of the node for each worker that there is: its connection, two pipes for its output, its mark.
AT_NODE = 4
#: Who is counted.
OF = ("tables", "driver", "node")


class _Cell:
    """Keeps a number."""

    def __init__(self, value: int) -> None:
        self.value = value

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def pid(self) -> int:
        return os.getpid()


Cell = ray.remote(_Cell)


def made_and_called(count: int) -> list[int]:
    """Make so many actors, call them, and let them go; returns their processes."""
    cells = [Cell.remote(number) for number in range(count)]
    assert ray.get([cell.add.remote(1) for cell in cells]) == list(range(1, count + 1))
    pids: list[int] = ray.get([cell.pid.remote() for cell in cells])
    assert len(set(pids)) == count
    return pids


def of_process(pid: int) -> dict[str, int]:
    """How many descriptors, threads and pieces of shared memory a process has."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        "threads": sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()),
        "segments": sum("memfd" in line or "/dev/shm" in line for line in maps),
    }


def of_tables(here: Session) -> dict[str, int]:
    """What the tables of a process hold, where anything may stay behind an actor."""
    owner, actors, leases = here.owner, here.actors, here.leases
    tables: dict[str, Sized] = {
        "objects": owner.objects.owned,
        "borrowed": owner.objects.borrowed,
        "lives": owner.objects.lives,
        "unreturned": owner.unreturned,
        "actors": actors.owned,
        "constructors": actors.creating,
        "mailboxes": actors._calls,
        "leases": leases._leases,
        "links": leases.links._links,
        "peers": here.peers._connections,
    }
    return {name: len(table) for name, table in tables.items()}


def test_many_actors_leave_nothing_behind(ray_session: ModuleType) -> None:
    here = session()
    node = here.facts["pid"]
    assert left_of(made_and_called(3), 10) == []
    gc.collect()

    def stock() -> dict[str, int]:
        """What is there beyond what the workers take that the node keeps warm, however many those are."""
        warm = {pid for pid, *_ in here.questions.blocking("workers")}
        linked = [link.connection.peer.pid for link in here.leases.links._links.values()]
        driver, host = of_process(os.getpid()), of_process(node)
        driver["descriptors"] -= len(linked)
        host["descriptors"] -= AT_NODE * len(warm)
        to_nobody = {"links": sum(pid not in warm for pid in linked)}
        rows = {**of_tables(here), **to_nobody}, driver, host
        return {f"{who} {name}": n for who, row in zip(OF, rows, strict=True) for name, n in row.items()}

    def at_rest() -> bool:
        return not any(n for row, n in stock().items() if row.startswith("tables"))

    settled(at_rest, 10.0, lambda: str(stock()))
    before = stock()
    pids = made_and_called(COUNT)
    assert left_of(pids, 30) == []
    gc.collect()
    settled(lambda: stock() == before, 10.0, lambda: f"{stock()} instead of {before}")


def test_actors_are_all_made_also_when_workers_have_idled_before() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        # Those that are started ahead are up by then.
        await asyncio.sleep(5.0)
        cells = [Cell.remote(number) for number in range(10)]
        async with asyncio.timeout(5.0):
            assert [await cell.add.remote(1) for cell in cells] == list(range(1, 11))

    simulate(main, num_cpus=2)


def test_many_actors_leave_no_entry_in_the_tables_of_the_node() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        cells = [Cell.remote(number) for number in range(SIMULATED)]
        totals = [cell.add.remote(1) for cell in cells]
        assert [await total for total in totals] == list(range(1, SIMULATED + 1))
        scheduler = cluster.node.scheduler
        assert len(scheduler.grants) == SIMULATED
        scheduler.validate()
        cells.clear()
        totals.clear()
        await asyncio.sleep(60.0)
        scheduler.validate()
        assert not scheduler.grants
        assert len(scheduler.workers) <= 2, "those that are kept warm"
        assert not cluster.driver.actors.owned

    simulate(main, num_cpus=2)
