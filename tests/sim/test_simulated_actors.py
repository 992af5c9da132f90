"""Actors under virtual time: killed at each step of a call and of a restart, with callers in processes."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.state.restarts import FIRST_DELAY_S
from asyncray.testing import Event, SimulatedCluster, simulate, sleep
from tests.sim import ledger, notes
from tests.sim.tasks import HOUR_S, now

if TYPE_CHECKING:
    from asyncray import ActorHandle

#: Virtual seconds in which every program must be over.
LIMIT_S = 600.0
CALLS = 12


class _Listener:
    """Hears numbered messages."""

    def __init__(self) -> None:
        self.life = notes.note("lives")

    def hear(self, caller: str, number: int) -> int:
        ledger.heard.append((self.life, caller, number))
        return number

    def work(self, seconds: float) -> int:
        sleep(seconds)
        return self.life

    def crash(self) -> None:
        notes.note("crash")
        raise SystemError


class _AsyncListener(_Listener):
    """The same with coroutines."""

    async def hear(self, caller: str, number: int) -> int:  # type: ignore[override]
        await asyncio.sleep(0.0001)
        ledger.heard.append((self.life, caller, number))
        return number


class _Talker:
    """Sends numbered messages, and tells how each of them ended."""

    def talk(self, listener: ActorHandle[Any], name: str) -> list[str]:
        return [outcome(ref) for ref in [listener.hear.remote(name, number) for number in range(CALLS)]]


def outcome(ref: Any) -> str:
    try:
        return str(ray.get(ref))
    except (exceptions.ActorDiedError, exceptions.ActorUnavailableError) as error:
        return type(error).__name__


async def awaited(ref: Any) -> str:
    try:
        return str(await ref)
    except (exceptions.ActorDiedError, exceptions.ActorUnavailableError) as error:
        return type(error).__name__


Listener = ray.remote(_Listener)
AsyncListener = ray.remote(_AsyncListener)
Talker = ray.remote(_Talker)


async def conversation(listener: ActorHandle[Any]) -> dict[str, list[str]]:
    """Three callers talk to one listener; how each call ended."""
    talkers = {name: Talker.remote() for name in ("one", "two")}
    told = {name: talker.talk.remote(listener, name) for name, talker in talkers.items()}
    own = [awaited(listener.hear.remote("driver", number)) for number in range(CALLS)]
    async with asyncio.timeout(LIMIT_S):
        ends = {"driver": list(await asyncio.gather(*own))}
        for name, ref in told.items():
            ends[name] = await ref
    return ends


def check(ends: dict[str, list[str]], *, in_order: bool, at_most: int = 1) -> None:
    """Nothing is lost in silence, doubled beyond the contract, or out of order."""
    times = Counter((caller, number) for _, caller, number in ledger.heard)
    for caller, outcomes in ends.items():
        assert len(outcomes) == CALLS
        for number, told in enumerate(outcomes):
            if told.isdigit():
                assert told == str(number)
                assert times[caller, number] >= 1
    assert max(times.values(), default=0) <= at_most
    if in_order:
        by_life = defaultdict(list)
        for life, caller, number in ledger.heard:
            by_life[life, caller].append(number)
        assert all(numbers == sorted(numbers) for numbers in by_life.values())


def pid_of_listener(cluster: SimulatedCluster, listener: ActorHandle[Any]) -> int | None:
    """The process of the driver's actor; None while it has none."""
    actor = cluster.driver.actors.owned.get(listener._ray_address[2])
    if actor is None or actor.lease is None:
        return None
    grant = cluster.node.scheduler.grants.get(actor.lease.number)
    worker = None if grant is None else cluster._pool.processes.get(grant.worker.number)
    return None if worker is None or worker.simulated is None else worker.simulated.pid


class Killer:
    """Kills an actor at one step: when it sends a message, or is about to be sent one."""

    def __init__(self, cluster: SimulatedCluster, listener: ActorHandle[Any], step: int) -> None:
        self._cluster = cluster
        self._listener = listener
        self._left = step
        #: Whether there was such a step.
        self.hit = False
        cluster.on_event(self._watch)

    def _watch(self, event: Event) -> None:
        if self.hit or not event.what.startswith("sends"):
            return
        pid = pid_of_listener(self._cluster, self._listener)
        if pid in self._cluster.workers and (event.pid == pid or event.what.endswith(f" to {pid}")):
            self._left -= 1
            if self._left < 0:
                self.hit = True
                self._cluster.kill_worker(pid)


@pytest.mark.parametrize("actor_class", [Listener, AsyncListener], ids=["sync", "async"])
def test_several_processes_talk_to_one_actor(actor_class: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ends = await conversation(actor_class.remote())
        check(ends, in_order=actor_class is Listener)
        assert all(outcomes == list(map(str, range(CALLS))) for outcomes in ends.values())

    for seed in range(5):
        ledger.heard.clear()
        simulate(main, seed=seed)


@pytest.mark.parametrize("actor_class", [Listener, AsyncListener], ids=["sync", "async"])
@pytest.mark.parametrize("retries", [0, 1])
def test_an_actor_killed_at_any_step_of_a_conversation_starts_again(actor_class: Any, retries: int) -> None:
    """The step is each event in turn: what the actor does, and what is done to it."""

    def run(step: int) -> bool:
        """Kill at this step; False when the program has fewer."""
        killer: Killer

        async def main(cluster: SimulatedCluster) -> None:
            listener = actor_class.options(max_restarts=1, max_task_retries=retries).remote()
            nonlocal killer
            killer = Killer(cluster, listener, step)
            ends = await conversation(listener)
            check(ends, in_order=actor_class is Listener and not retries, at_most=1 + retries)
            if retries:
                assert all(told.isdigit() for outcomes in ends.values() for told in outcomes)
            assert await listener.hear.options(max_task_retries=1).remote("driver", CALLS) == CALLS

        ledger.heard.clear()
        simulate(main, seed=step)
        return killer.hit

    step = 0
    while run(step):
        step += 1
    assert step > 10


def test_an_actor_killed_at_any_step_of_its_restart_starts_again() -> None:
    def run(step: int) -> bool:
        killer: Killer

        async def main(cluster: SimulatedCluster) -> None:
            listener = Listener.options(max_restarts=2).remote()
            assert await listener.hear.remote("driver", 0) == 0
            cluster.kill_worker(pid_of_listener(cluster, listener))
            nonlocal killer
            killer = Killer(cluster, listener, step)
            ends = await conversation(listener)
            check(ends, in_order=True)

        ledger.heard.clear()
        simulate(main, seed=step)
        return killer.hit

    step = 0
    while run(step):
        step += 1
    assert step > 10


@pytest.mark.parametrize("actor_class", [Listener, AsyncListener], ids=["sync", "async"])
def test_a_caller_killed_at_any_step_hurts_nobody_else(actor_class: Any) -> None:
    def run(step: int) -> bool:
        killer: Killer

        async def main(cluster: SimulatedCluster) -> None:
            nonlocal killer
            listener = actor_class.remote()
            talkers = [Talker.remote() for _ in range(2)]
            killer = Killer(cluster, talkers[0], step)
            told = [talker.talk.remote(listener, str(place)) for place, talker in enumerate(talkers)]
            own = [awaited(listener.hear.remote("driver", number)) for number in range(CALLS)]
            async with asyncio.timeout(LIMIT_S):
                assert list(await asyncio.gather(*own)) == list(map(str, range(CALLS)))
                assert await told[1] == list(map(str, range(CALLS)))
                await awaited(told[0])
            assert await listener.hear.remote("driver", CALLS) == CALLS
            (actor,) = [a for a in cluster.driver.actors.owned.values() if a.name == listener._ray_shape.name]
            alive = {session.identity.process_id for session in cluster.sessions}
            assert set(actor.watchers) <= alive

        ledger.heard.clear()
        simulate(main, seed=step)
        return killer.hit

    step = 0
    while run(step):
        step += 1
    assert step > 5


def test_a_crash_loop_slows_down() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = Listener.options(max_restarts=-1, max_task_retries=-1).remote()
        times: list[float] = []

        def watch(event: Event) -> None:
            reports = event.what.startswith("sends RESULTS") and len(times) < 8
            if reports and event.pid == pid_of_listener(cluster, listener):
                times.append(event.at_s)
                cluster.kill_worker(event.pid)

        cluster.on_event(watch)
        assert await listener.hear.remote("driver", 1) == 1
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps[0] < FIRST_DELAY_S
        assert gaps[-1] > 8 * FIRST_DELAY_S

    simulate(main)


def test_an_actor_without_restarts_is_dead_for_all_its_callers() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = Listener.remote()
        assert await listener.hear.remote("driver", 0) == 0
        works = listener.work.remote(HOUR_S)
        talker = Talker.remote()
        told = talker.talk.remote(listener, "one")
        await asyncio.sleep(1)
        cluster.kill_worker(pid_of_listener(cluster, listener))
        assert set(await told) == {"ActorDiedError"}
        with pytest.raises(exceptions.ActorDiedError):
            await works
        assert set(await talker.talk.remote(listener, "one")) == {"ActorDiedError"}

    simulate(main)


def test_an_actor_dies_with_the_process_that_made_it() -> None:
    class Maker:
        """Makes an actor, and dies."""

        def make(self) -> list[ActorHandle[Any]]:
            self.listener = Listener.options(max_restarts=-1).remote()
            return [self.listener]

    async def main(cluster: SimulatedCluster) -> None:
        maker = ray.remote(Maker).remote()
        (listener,) = await maker.make.remote()
        assert await listener.hear.remote("driver", 1) == 1
        works = listener.work.remote(HOUR_S)
        cluster.kill_worker(pid_of_listener(cluster, maker))
        with pytest.raises(exceptions.ActorDiedError):
            await works
        with pytest.raises(exceptions.ActorDiedError):
            await listener.hear.remote("driver", 2)

    simulate(main)


def test_the_result_of_a_quick_call_does_not_wait_for_a_slow_one_behind_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = Listener.remote()
        quick = [listener.hear.remote("driver", number) for number in range(5)]
        slow = listener.work.remote(HOUR_S)
        await asyncio.gather(*quick)
        assert now() < 1
        await slow

    simulate(main)


def test_threads_of_an_actor_work_at_the_same_time() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = Listener.options(max_concurrency=3).remote()
        await asyncio.gather(*[listener.work.remote(HOUR_S) for _ in range(6)])
        assert now() == pytest.approx(2 * HOUR_S, abs=1)

    simulate(main)


def test_two_clients_that_race_for_a_name_get_one_actor() -> None:
    class Client:
        """Gets or makes an actor."""

        def get(self) -> str:
            listener = Listener.options(name="the one", get_if_exists=True).remote()
            self.kept = listener
            return str(listener._actor_id.hex())

    async def main(cluster: SimulatedCluster) -> None:
        clients = [ray.remote(Client).remote() for _ in range(4)]
        assert len(set(await asyncio.gather(*[client.get.remote() for client in clients]))) == 1
        assert len(cluster.node.directory) == 1

    for seed in range(10):
        simulate(main, seed=seed)


def test_an_idle_actor_holds_no_cpu() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        actors = [Listener.remote() for _ in range(5)]
        await asyncio.gather(*[actor.hear.remote("driver", 0) for actor in actors])
        assert (await ray.aio.available_resources())["CPU"] == 2
        held = Listener.options(num_cpus=2).remote()
        await held.hear.remote("driver", 0)
        assert "CPU" not in await ray.aio.available_resources()

    simulate(main)


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_a_name_whose_answer_nobody_awaits_any_more_is_free(isolation: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        named = ray.remote(_AsyncListener).options(name="the name", isolation=isolation)
        for turns in range(4):
            asked = asyncio.ensure_future(named.remote_async())
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        await asyncio.sleep(1.0)
        assert not cluster.driver.owner.objects.owned
        assert not len(cluster.node.directory)
        listener = await named.remote_async()
        assert await listener.hear.remote("caller", 7) == 7

    simulate(main, num_cpus=2)
