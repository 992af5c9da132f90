"""Several owners and callers, kills and restarts at any time: what light actors hear is in order, and once.

Random programs. Each caller numbers what it says to each actor; the actors note what they hear, and in which
life. What is held open on purpose is in test_light_order.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.node.hosts import HOST
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import ledger, notes

if TYPE_CHECKING:
    from asyncray.actor import ActorHandle

#: Virtual seconds in which every program must be over.
LIMIT_S = 600.0
ENDS = (exceptions.ActorDiedError, exceptions.ActorUnavailableError)
#: What became of one call: actor, number, whether its caller had killed the actor for good, and its end.
Said = tuple[int, int, bool, str]


@ray.remote
async def later(seconds: float) -> None:
    await asyncio.sleep(seconds)


class _Listener:
    def __init__(self, something: Any = None) -> None:
        self.life = notes.note("lives")

    async def hear(self, caller: str, actor: int, number: int, seconds: float) -> None:
        ledger.heard.append((self.life, f"{caller} to {actor}", number))
        await asyncio.sleep(seconds)


Listener = ray.remote(isolation="shared")(_Listener)


class _Owner:
    async def make(self, options: Any) -> list[ActorHandle[Any]]:
        self.listeners = [Listener.options(**options).remote() for _ in range(2)]
        return self.listeners


class _Talker:
    def __init__(self) -> None:
        self.killed: set[int] = set()
        self.refs: list[tuple[int, int, bool, Any]] = []

    async def talk(self, actors: list[ActorHandle[Any]], name: str, seed: int) -> list[Said]:
        """Call, kill, and pause at random; how each call has ended."""
        rng = random.Random(seed)
        numbers = [0] * len(actors)
        for _ in range(60):
            at, choice = rng.randrange(len(actors)), rng.random()
            if choice < 0.85:
                for _ in range(rng.choice([1, 1, 2, 5])):
                    ref = actors[at].hear.remote(name, at, numbers[at], rng.choice([0, 0.0005]))
                    self.refs.append((at, numbers[at], at in self.killed, ref))
                    numbers[at] += 1
            elif choice < 0.9:
                self.kill(actors[at], at, for_good=rng.random() < 0.2)
            else:
                await asyncio.sleep(rng.random() * 0.01)
        return [(at, number, killed, await outcome(ref)) for at, number, killed, ref in self.refs]

    def kill(self, actor: ActorHandle[Any], at: int, *, for_good: bool) -> None:
        ray.kill(actor, no_restart=for_good)
        if for_good:
            self.killed.add(at)


async def outcome(ref: Any) -> str:
    try:
        await ref
    except ENDS as error:
        return type(error).__name__
    return "done"


def check(name: str, said: list[Said], *, again: bool) -> None:
    """Nothing is doubled or lost in silence, and all is in order."""
    times: dict[tuple[str, int], int] = defaultdict(int)
    heard: dict[str, list[int]] = defaultdict(list)
    for _, who, number in ledger.heard:
        times[who, number] += 1
        if times[who, number] == 1:  # what runs again, was heard in its place
            heard[who].append(number)
    for at, number, killed, end in said:
        count = times[f"{name} to {at}", number]
        assert count <= 1 or again
        assert end != "done" or (count and not killed)
    assert all(numbers == sorted(numbers) for numbers in heard.values())


def hosts(cluster: SimulatedCluster) -> list[int]:
    living = [worker for worker in cluster._pool.processes.values() if worker.worker.pool[0] == HOST]
    return [w.simulated.pid for w in living if w.simulated is not None and w.simulated.alive]


async def converse(cluster: SimulatedCluster, rng: random.Random, options: Any) -> None:
    """Let some processes, light actors and the driver talk to the actors of several owners."""
    kinds: Any = ["process", "shared"]
    owners: list[Any] = [ray.remote(isolation=rng.choice(kinds))(_Owner).remote() for _ in range(2)]
    actors = [actor for owner in owners for actor in await owner.make.remote(options)]
    actors += [Listener.options(**options).remote(later.remote(rng.random() * 0.01)) for _ in range(2)]
    talkers: list[Any] = [ray.remote(isolation=rng.choice(kinds))(_Talker).remote() for _ in range(3)]
    told = [t.talk.remote(actors, str(place), rng.random()) for place, t in enumerate(talkers)]
    own = asyncio.ensure_future(_Talker().talk(actors, "driver", rng.randrange(1000)))
    for _ in range(rng.choice([0, 0, 1, 3])):
        await asyncio.sleep(rng.random() * 0.05)
        if hosts(cluster):
            cluster.kill_worker(rng.choice(hosts(cluster)))
    again = options["max_task_retries"] != 0
    check("driver", await own, again=again)
    for place, ref in enumerate(told):
        try:
            said = await ref
        except exceptions.ActorDiedError:
            continue  # its host was killed
        check(str(place), said, again=again)


@pytest.mark.parametrize("seed", range(20))
def test_each_caller_is_heard_in_order_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    options = {
        "max_restarts": -1,
        "max_task_retries": rng.choice([0, -1]),
        "max_concurrency": rng.choice([1, 1000]),
    }

    async def main(cluster: SimulatedCluster) -> None:
        async with asyncio.timeout(LIMIT_S):
            await converse(cluster, rng, options)
        await asyncio.sleep(50)
        assert not any(len(session.lights.strangers) for session in cluster.sessions)
        gc.collect()
        await asyncio.sleep(50)
        assert not hosts(cluster)
        assert not cluster.driver.lights.owned
        assert not cluster.driver.statistics().objects_owned

    simulate(main, seed=seed, num_cpus=rng.choice([1, 2, 4]))
