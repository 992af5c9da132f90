"""Values that are put on the session's own loop, where nobody can wait for the store."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate
from asyncray.wire.stored import Stored
from tests.sim.lost import first, kept, large

#: Of a store that has no room.
SMALL_STORE = 1 << 20


def test_a_value_put_where_nobody_can_wait_moves_into_the_store() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs: list[Any] = [ray.put(large(seed)) for seed in range(3)]
        refs += [ray.put([large(3), ray.put("inner")])]
        records: list[Any] = [ref._record for ref in refs]
        assert not any(type(record.value) is Stored for record in records)
        reading = first.remote(refs[0])
        await asyncio.sleep(1)
        assert all(type(record.value) is Stored for record in records)
        assert await ray.aio.get(refs[:3]) == [large(0), large(1), large(2)]
        value, inner = await refs[3]
        assert (value, await inner) == (large(3), "inner")
        assert [await reading, await first.remote(refs[1])] == [0, 1]
        # One that is dropped meanwhile leaves nothing.
        ray.put(large(4))
        del refs, records, reading, inner
        await kept(cluster)
        assert not any(cluster.driver.statistics()._replace(functions=0))

    simulate(main)


def test_a_value_that_finds_no_room_stays_where_it_is() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [ray.put(large(seed)) for seed in range(8)]
        await asyncio.sleep(60)
        records: list[Any] = [ref._record for ref in refs]
        assert {type(record.value) for record in records} == {Stored, bytes}
        assert await ray.aio.get(refs) == [large(seed) for seed in range(8)]

    simulate(main, object_store_memory=SMALL_STORE)


def test_a_session_that_ends_meanwhile_ends() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = ray.put(large(1))
        await asyncio.sleep(0)
        cluster.kill_node()
        await asyncio.sleep(1)
        assert await ref == large(1)

    simulate(main)
