"""Random programs, random losses, random deaths: every value is right in the end, and nothing is kept."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import asyncray as ray
from asyncray.state.objects import READY
from asyncray.testing import SimulatedCluster, simulate, sleep
from asyncray.wire.stored import Stored
from tests.sim.lost import kept, large, owner_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MOD = 251
#: They may run as often as they like.
often = ray.remote(max_retries=-1)


@often
def leaf(seed: int) -> bytes:
    sleep(0.5)
    return large(seed)


@often
def summed(*values: Any) -> bytes:
    sleep(0.5)
    return large(sum(map(seed_of, values)) % MOD)


@often
async def summed_inside(values: list[Any]) -> bytes:
    await asyncio.sleep(0.5)
    return large(sum(map(seed_of, await ray.aio.get(values))) % MOD)


@often
def summed_small(*values: Any) -> int:
    return sum(map(seed_of, values)) % MOD


@ray.remote(max_retries=-1, num_returns=3)
def several(*values: Any) -> tuple[bytes, int, bytes]:
    sleep(0.5)
    total = sum(map(seed_of, values)) % MOD
    return large(total), total, large((total + 1) % MOD)


@ray.remote(max_retries=-1, max_unread=2)
def streamed(*values: Any) -> Iterator[bytes]:
    total = sum(map(seed_of, values)) % MOD
    for more in range(3):
        sleep(0.2)
        yield large((total + more) % MOD)


def seed_of(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])


class Program:
    """References, with the seeds of the values that they must have."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.refs: list[tuple[Any, int]] = []
        self.readers: list[asyncio.Task[None]] = []

    async def step(self, what: str, chosen: list[int]) -> None:
        picked = [self.refs[each % len(self.refs)] for each in chosen if self.refs]
        if what in MAKERS:
            self.refs += await self.made(what, chosen[0], [ref for ref, _ in picked], [s for _, s in picked])
        elif what == "drop" and self.refs:
            del self.refs[chosen[0] % len(self.refs)]
        elif what == "lose":
            self.lose([ref for ref, _ in picked])
        elif what == "kill":
            with contextlib.suppress(LookupError):
                self.cluster.kill_worker()
        elif what == "read" and picked:
            self.readers.append(asyncio.ensure_future(check(*picked[0])))
        elif what == "pass":
            await asyncio.sleep(chosen[0] / 50)

    async def made(self, what: str, seed: int, refs: list[Any], seeds: list[int]) -> list[tuple[Any, int]]:
        total = sum(seeds) % MOD
        if what == "leaf":
            return [(leaf.remote(seed), seed)]
        if what == "put":
            return [(ray.put([seed]), seed)]
        if what == "inside":
            return [(summed_inside.remote(refs), total)]
        if what == "several":
            returns: Any = several.remote(*refs)
            return list(zip(returns, [total, total, (total + 1) % MOD], strict=True))
        if what == "streamed":
            items = [ref async for ref in streamed.remote(*refs)]
            return [(ref, (total + more) % MOD) for more, ref in enumerate(items)]
        function: Any = summed if what == "summed" else summed_small
        return [(function.remote(*refs), total)]

    def lose(self, refs: list[Any]) -> None:
        """Lose what could be on disk: nobody else reads it."""
        for ref in refs:
            record = ref._record
            under_way = self.cluster.driver.leases.under_way()
            read = {ref._record for task in under_way for _, ref in task.dependencies or ()}
            alone = not record.borrowers and record not in read
            if alone and record.state == READY and type(record.value) is Stored:
                assert owner_of(ref).remaking.lost(record, record.value, "the disk has failed")

    async def end(self) -> None:
        await asyncio.gather(*self.readers)
        self.readers.clear()
        for ref, seed in self.refs:
            await check(ref, seed)
        self.lose([ref for ref, _ in self.refs])
        for ref, seed in self.refs:
            await check(ref, seed)
        self.cluster.driver.owner.objects.validate()
        self.refs.clear()
        # What was called for and dropped goes on.
        await asyncio.sleep(60)


async def check(ref: Any, seed: int) -> None:
    assert seed_of(await ref) == seed


MAKERS = ["leaf", "put", "summed", "small", "inside", "several", "streamed"]
KINDS = [*MAKERS, "leaf", "drop", "drop", "lose", "lose", "kill", "read", "pass"]
steps = st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 250), min_size=1, max_size=3))


# A value that was found lost between the note of who is told where it lies and the telling.
@example(seed=0, program=[("inside", [0]), ("inside", [0]), ("drop", [1])])
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1000), program=st.lists(steps, min_size=3, max_size=25))
def test_random_programs_end_with_the_right_values(seed: int, program: list[tuple[str, list[int]]]) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        running = Program(cluster)
        for what, chosen in program:
            await running.step(what, chosen)
        await running.end()
        assert await kept(cluster) == 0
        await asyncio.sleep(10)
        told = cluster.driver.statistics()
        assert not any(told._replace(functions=0)), told
        assert not cluster.driver.owner.remaking.running

    simulate(main, seed=seed)
