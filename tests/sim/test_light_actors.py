"""Light actors under virtual time: hosts, owners and callers killed at each step."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.actor import exit_actor
from asyncray.node.hosts import HOST
from asyncray.state.actors import STARTING
from asyncray.testing import Event, SimulatedCluster, simulate
from tests.sim import ledger, notes
from tests.sim.tasks import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncray.actor import ActorHandle

#: Virtual seconds in which every program must be over.
LIMIT_S = 600.0
CALLS = 6


class _Listener:
    """Hears numbered messages."""

    def __init__(self) -> None:
        self.life = notes.note("lives")

    async def hear(self, caller: str, number: int) -> int:
        await asyncio.sleep(0.0001)
        ledger.heard.append((self.life, caller, number))
        return number

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _LateListener(_Listener):
    """Is made when something has come."""

    def __init__(self, something: Any) -> None:
        super().__init__()

    async def note(self, caller: str, number: int) -> None:
        ledger.heard.append((self.life, caller, number))


class _Talker:
    """Sends numbered messages, and tells how each of them ended."""

    async def talk(self, listeners: list[ActorHandle[Any]], name: str) -> list[str]:
        refs = [listener.hear.remote(name, number) for number in range(CALLS) for listener in listeners]
        return [await outcome(ref) for ref in refs]

    async def drip(self, listener: ActorHandle[Any], name: str) -> None:
        """Send one message after the other, and wait for no answer in between."""
        refs = []
        for number in range(40):
            refs.append(listener.note.remote(name, number))
            await asyncio.sleep(0.0001)
        await asyncio.gather(*refs)


class _Maker:
    """Owns listeners, also when it ends."""

    async def make(self, count: int, options: dict[str, Any]) -> list[ActorHandle[Any]]:
        self.listeners = [Listener.options(**options).remote() for _ in range(count)]
        return self.listeners


async def outcome(ref: Any) -> str:
    try:
        return str(await ref)
    except (exceptions.ActorDiedError, exceptions.ActorUnavailableError) as error:
        return type(error).__name__


Listener = ray.remote(isolation="shared")(_Listener)
LateListener = ray.remote(isolation="shared")(_LateListener)
Talker = ray.remote(_Talker)
LightTalker = ray.remote(isolation="shared")(_Talker)
Maker = ray.remote(_Maker)


@ray.remote
async def later(seconds: float) -> None:
    await asyncio.sleep(seconds)


def hosts(cluster: SimulatedCluster) -> list[int]:
    """The pids of the hosts."""
    found = [w for w in cluster._pool.processes.values() if w.worker.pool[0] == HOST and w.simulated]
    return [worker.simulated.pid for worker in found if worker.simulated is not None]


def pid_of(cluster: SimulatedCluster, actor: ActorHandle[Any]) -> int | None:
    """The process of a process actor of the driver's; None while it has none."""
    owned = cluster.driver.actors.owned.get(actor._ray_address[2])
    if owned is None or owned.lease is None:
        return None
    grant = cluster.node.scheduler.grants.get(owned.lease.number)
    worker = None if grant is None else cluster._pool.processes.get(grant.worker.number)
    return None if worker is None or worker.simulated is None else worker.simulated.pid


class Killer:
    """Kills a process at one step: when it sends a message, or is about to be sent one."""

    def __init__(self, cluster: SimulatedCluster, whom: Callable[[], list[int]], step: int) -> None:
        self._cluster = cluster
        self._whom = whom
        self._left = step
        #: Whether there was such a step.
        self.hit = False
        cluster.on_event(self._watch)

    def _watch(self, event: Event) -> None:
        if self.hit or not event.what.startswith("sends"):
            return
        for pid in self._whom():
            if pid in self._cluster.workers and (event.pid == pid or event.what.endswith(f" to {pid}")):
                self._left -= 1
                if self._left < 0:
                    self.hit = True
                    self._cluster.kill_worker(pid)
                return


def at_each_step(
    whom: Callable[[SimulatedCluster, list[Any]], list[int]],
    program: Callable[[SimulatedCluster, list[Any]], Awaitable[None]],
    fewest: int = 10,
) -> None:
    """Run a program as often as it has steps, and kill whom it says at each of them.

    Args:
        whom: The pids that may be killed, from the cluster and what the program has put into its list.
        program: What runs.
        fewest: Steps that there are at least.
    """

    def run(step: int) -> bool:
        killer: Killer

        async def main(cluster: SimulatedCluster) -> None:
            nonlocal killer
            known: list[Any] = []
            killer = Killer(cluster, lambda: whom(cluster, known), step)
            async with asyncio.timeout(LIMIT_S):
                await program(cluster, known)
            until_idle(cluster)

        notes.noted.clear()
        ledger.heard.clear()
        simulate(main, seed=step)
        return killer.hit

    step = 0
    while run(step):
        step += 1
    assert step > fewest


def until_idle(cluster: SimulatedCluster) -> None:
    """Nothing waits for an answer that will not come."""
    for session in cluster.sessions:
        assert not len(session.lights.strangers)


async def conversation(listeners: list[ActorHandle[Any]]) -> dict[str, list[str]]:
    """A process, a light actor and the driver talk to some listeners; how each call ended."""
    talkers = {"process": Talker.remote(), "light": LightTalker.options(max_restarts=-1).remote()}
    told = {name: talker.talk.remote(listeners, name) for name, talker in talkers.items()}
    own = [outcome(listener.hear.remote("driver", n)) for n in range(CALLS) for listener in listeners]
    ends = {"driver": list(await asyncio.gather(*own))}
    for name, ref in told.items():
        try:
            ends[name] = await ref
        except (exceptions.ActorDiedError, exceptions.ActorUnavailableError):
            assert name == "light"  # it was there
    return ends


def check(ends: dict[str, list[str]], count: int, *, at_most: int = 1) -> None:
    """Nothing is lost in silence, or doubled beyond the contract."""
    times = Counter((caller, number) for _, caller, number in ledger.heard)
    for caller, outcomes in ends.items():
        assert len(outcomes) == CALLS * count
        for place, told in enumerate(outcomes):
            if told.isdigit():
                assert told == str(place // count)
                assert times[caller, place // count] >= 1
    if set(ends) >= {"light"}:
        assert max(times.values(), default=0) <= at_most * count


def test_several_processes_talk_to_light_actors() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listeners = [Listener.remote() for _ in range(3)]
        ends = await conversation(listeners)
        check(ends, 3)
        assert all(told.isdigit() for outcomes in ends.values() for told in outcomes)
        assert len(hosts(cluster)) == 1

    for seed in range(5):
        ledger.heard.clear()
        simulate(main, seed=seed)


def heard_of(caller: str) -> list[int]:
    return [number for _, name, number in ledger.heard if name == caller]


def test_calls_made_before_an_actor_is_placed_run_before_later_ones() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = LateListener.remote(later.remote(0.01))
        refs = [listener.note.remote("driver", number) for number in range(3)]
        owned = cluster.driver.lights.owned[listener._ray_address[2]]
        while owned.state != STARTING:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.00001)
        refs += [listener.note.remote("driver", number) for number in range(3, 6)]
        await asyncio.gather(*refs)
        assert heard_of("driver") == [0, 1, 2, 3, 4, 5]

    simulate(main)


def test_calls_of_another_process_keep_their_order_while_an_actor_is_made() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        talkers = [Talker.remote() for _ in range(2)]
        await asyncio.gather(*[talker.talk.remote([], "") for talker in talkers])
        first = Listener.remote()
        await first.hear.remote("driver", 0)
        listener = LateListener.remote(later.remote(0.001))
        told = [talker.drip.remote(listener, str(place)) for place, talker in enumerate(talkers)]
        await asyncio.gather(*told)
        for place in range(2):
            assert heard_of(str(place)) == list(range(40))

    for seed in range(20):
        ledger.heard.clear()
        simulate(main, seed=seed)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_host_is_killed_at_any_step_of_a_conversation(retries: int) -> None:
    async def program(cluster: SimulatedCluster, known: list[Any]) -> None:
        options: Any = {"max_restarts": 1, "max_task_retries": retries}
        listeners = [Listener.options(**options).remote() for _ in range(2)]
        ends = await conversation(listeners)
        check(ends, 2, at_most=1 + retries)
        if retries:
            assert all(told.isdigit() for outcomes in ends.values() for told in outcomes)
        for listener in listeners:
            assert await listener.hear.options(max_task_retries=1).remote("driver", CALLS) == CALLS

    at_each_step(lambda cluster, _: hosts(cluster), program)


def test_a_host_is_killed_at_any_step_of_a_restart() -> None:
    async def program(cluster: SimulatedCluster, known: list[Any]) -> None:
        listeners = [Listener.options(max_restarts=2).remote() for _ in range(2)]
        await asyncio.gather(*[listener.hear.remote("driver", 0) for listener in listeners])
        cluster.kill_worker(hosts(cluster)[0])
        known.append(True)
        check(await conversation(listeners), 2)

    at_each_step(lambda cluster, known: hosts(cluster) if known else [], program)


def test_actors_without_restarts_are_dead_for_all_callers() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listeners = [Listener.remote() for _ in range(3)]
        sleeping = [listener.sleep.remote(1e6) for listener in listeners]
        talker = Talker.remote()
        await asyncio.gather(*[listener.hear.remote("driver", 0) for listener in listeners])
        told = talker.talk.remote(listeners, "one")
        await told
        cluster.kill_worker(hosts(cluster)[0])
        assert {await outcome(ref) for ref in sleeping} == {"ActorDiedError"}
        assert set(await talker.talk.remote(listeners, "one")) == {"ActorDiedError"}
        assert await outcome(listeners[0].hear.remote("driver", 1)) == "ActorDiedError"
        until_idle(cluster)
        assert not cluster.driver.lights.owned

    for seed in range(5):
        simulate(main, seed=seed)


def test_an_owner_is_killed_at_any_step() -> None:
    async def program(cluster: SimulatedCluster, known: list[Any]) -> None:
        maker = Maker.remote()
        known.append(maker)
        try:
            listeners = await maker.make.remote(2, {"max_restarts": 1})
        except exceptions.ActorDiedError:
            return
        ends = await conversation(listeners)
        check(ends, 2)
        ray.kill(maker)
        await asyncio.sleep(1)
        assert await outcome(listeners[0].hear.remote("driver", CALLS)) == "ActorDiedError"

    def whom(cluster: SimulatedCluster, known: list[Any]) -> list[int]:
        pid = pid_of(cluster, known[0]) if known else None
        return [] if pid is None else [pid]

    at_each_step(whom, program)


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_the_actors_of_an_owner_that_ends_in_order_end_with_it(isolation: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        maker = ray.remote(isolation=isolation)(_Maker).remote()
        for listener in await maker.make.remote(3, {"isolation": isolation}):
            await listener.hear.remote("driver", 1)
        del maker, listener
        await asyncio.sleep(10)
        assert not hosts(cluster)
        assert not cluster.node.scheduler.grants

    simulate(main)


def test_a_caller_killed_at_any_step_hurts_nobody_else() -> None:
    async def program(cluster: SimulatedCluster, known: list[Any]) -> None:
        listeners = [Listener.remote() for _ in range(2)]
        talkers = [Talker.remote() for _ in range(2)]
        known.append(talkers[0])
        told = [talker.talk.remote(listeners, str(place)) for place, talker in enumerate(talkers)]
        own = [outcome(listener.hear.remote("driver", n)) for n in range(CALLS) for listener in listeners]
        assert all(end.isdigit() for end in await asyncio.gather(*own))
        assert all(end.isdigit() for end in await told[1])
        await outcome(told[0])

    def whom(cluster: SimulatedCluster, known: list[Any]) -> list[int]:
        pid = pid_of(cluster, known[0]) if known else None
        return [] if pid is None else [pid]

    at_each_step(whom, program, fewest=3)


def test_a_host_without_actors_ends_and_comes_again() -> None:
    """New ones are made at each moment of its end."""

    async def main(cluster: SimulatedCluster) -> None:
        for delay_ms in range(995, 1010):
            listener = Listener.remote()
            assert await listener.hear.remote("driver", 1) == 1
            del listener
            await asyncio.sleep(delay_ms / 1000)
        await asyncio.sleep(5)
        assert not hosts(cluster)

    for seed in range(5):
        simulate(main, seed=seed)


def test_a_host_whose_loop_is_blocked_for_good_is_killed_with_the_actor() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listeners = [Listener.remote() for _ in range(3)]
        await asyncio.gather(*[listener.hear.remote("driver", 0) for listener in listeners])
        sleeping = [listener.sleep.remote(1e6) for listener in listeners]
        (host,) = [h for h in cluster.driver.lights.hosts.values() if h.lease is not None]
        assert host.lease is not None
        # What is sent to it is not read any more.
        host.lease.link.connection.send = lambda message, buffers=(): None
        ray.kill(listeners[0])
        assert await outcome(sleeping[1]) == "ActorDiedError"
        assert now() > 10
        assert await outcome(sleeping[0]) == "ActorDiedError"

    simulate(main)


class _Anybody(_Listener):
    """Owns, hears, streams, leaves."""

    async def make(self, count: int, options: dict[str, Any]) -> list[ActorHandle[Any]]:
        self.owned = [Anybody.options(**options).remote() for _ in range(count)]
        return self.owned

    async def stream(self, count: int) -> Any:
        for number in range(count):
            await asyncio.sleep(0.001)
            yield number

    async def leave(self) -> None:
        exit_actor()

    async def on_stop(self) -> None:
        await asyncio.sleep(0.002)


ENDS = (exceptions.RayActorError, exceptions.TaskCancelledError, exceptions.GetTimeoutError)


async def do_anything(rng: random.Random, actors: list[ActorHandle[Any]]) -> None:
    """Call, stream, kill, leave, cancel, time out, or let go of an actor."""
    chosen: Any = rng.choice(actors)
    choice = rng.randrange(7)
    if choice == 0:
        await asyncio.gather(*[actor.hear.remote("somebody", 1) for actor in actors])
    elif choice == 1:
        async for ref in chosen.stream.remote(5):
            await ref
    elif choice == 2:
        ray.kill(chosen, no_restart=rng.random() < 0.5)
    elif choice == 3:
        await chosen.leave.remote()
    elif choice == 4:
        ref = chosen.hear.remote("somebody", 2)
        await asyncio.sleep(rng.random() * 0.002)
        ray.cancel(ref)
        await ref
    elif choice == 5:
        await chosen.hear.options(timeout=rng.random() * 0.01).remote("somebody", 3)
    elif len(actors) > 1:
        actors.remove(chosen)


async def client(rng: random.Random) -> None:
    """Does what comes to its mind to its actors, some of them owned by another one."""
    options: Any = {"max_restarts": rng.choice([0, 1, -1]), "max_task_retries": rng.choice([0, 1, -1])}
    owner = ray.remote(isolation=rng.choice(["shared", "process"]))(_Anybody).options(**options).remote()
    actors: list[Any] = [owner, *[Anybody.options(**options).remote() for _ in range(4)]]
    with contextlib.suppress(*ENDS):
        actors += await owner.make.remote(3, options)
    del owner
    for _ in range(10):
        with contextlib.suppress(*ENDS):
            await do_anything(rng, actors)


Anybody = ray.remote(isolation="shared")(_Anybody)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_nobody_hangs_and_nothing_is_left(seed: int) -> None:
    rng = random.Random(seed)

    async def killer(cluster: SimulatedCluster) -> None:
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(rng.random() * 0.1)
            if cluster.workers:
                cluster.kill_worker(rng.choice(cluster.workers))

    async def main(cluster: SimulatedCluster) -> None:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*[client(rng) for _ in range(3)], killer(cluster))
        gc.collect()
        await asyncio.sleep(100)
        until_idle(cluster)
        assert not hosts(cluster)
        assert not cluster.driver.lights.owned
        assert not cluster.driver.statistics().objects_owned

    simulate(main, seed=seed, num_cpus=rng.choice([1, 2, 4]))


def test_a_crash_loop_slows_down() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = Listener.options(max_restarts=-1, max_task_retries=-1).remote()
        kills = 0

        def watch(event: Event) -> None:
            nonlocal kills
            if event.what.startswith("sends RESULTS") and event.pid in hosts(cluster) and kills < 8:
                kills += 1
                cluster.kill_worker(event.pid)

        cluster.on_event(watch)
        assert await listener.hear.remote("driver", 1) == 1
        assert now() > 2

    simulate(main)
