"""What is said of calls whose actor is not there, and of actors that wait for each other: both isolations."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.holding import behind, settle
from tests.sim.waiting import plain

if TYPE_CHECKING:
    from asyncray.actor import ActorHandle

ISOLATIONS = pytest.mark.parametrize("isolation", ["process", "shared"])


class _Peer:
    """Calls others, and waits for them."""

    def __init__(self, something: Any = None) -> None:
        pass

    async def ready(self) -> None: ...

    async def call(self, others: list[ActorHandle[Any]]) -> None:
        self.others = others
        await others[0].ready.remote()

    async def why(self, others: list[ActorHandle[Any]]) -> str:
        """Why a call of another one is not done."""
        ref = others[0].ready.remote()
        await settle()
        return str(await ray.aio.explain(ref))


def peer(isolation: Any, *args: Any, **options: Any) -> ActorHandle[Any]:
    return ray.remote(isolation=isolation, **options)(_Peer).remote(*args)


async def restarting(isolation: Any) -> ActorHandle[Any]:
    """One that waits for a while before it starts again."""
    actor = peer(isolation, max_restarts=-1)
    for _ in range(4):
        await actor.ready.options(max_task_retries=-1).remote()
        ray.kill(actor, no_restart=False)
        await settle()
    return actor


@ISOLATIONS
def test_a_call_between_two_lives_waits_for_the_next(isolation: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        actor = await restarting(isolation)
        ref = actor.ready.remote()
        told = await ray.aio.explain(ref)
        assert str(told) == "'_Peer.ready' waits for its actor, which is being restarted."
        assert told.state == "queued"
        await ref

    simulate(main, delay_s=0.0)


@ISOLATIONS
def test_a_call_of_one_that_is_not_made_yet_waits_for_that(isolation: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        notes.gates["made"] = asyncio.Event()
        actor = peer(isolation, behind.remote("made"))
        ref = actor.ready.remote()
        await settle()
        assert str(await ray.aio.explain(ref)) == "'_Peer.ready' waits for its actor, which is being made."
        asker = peer("process")
        told = await asker.why.remote([actor])
        assert "waits for its actor, which is not there: its owner is to say when it is" in told
        notes.gates["made"].set()
        await ref

    simulate(main, delay_s=0.0)


@ISOLATIONS
def test_another_process_is_told_of_a_restart(isolation: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        asker = peer("process")
        actor = peer(isolation, max_restarts=-1)
        await asker.call.remote([actor])
        for _ in range(4):
            await actor.ready.options(max_task_retries=-1).remote()
            ray.kill(actor, no_restart=False)
            await settle()
        told = await asker.why.remote([actor])
        # Of a light actor, who calls it hears that it is there, or dead.
        why = {"process": "being restarted", "shared": "not there: its owner is to say when it is"}
        assert told == f"'_Peer.ready' waits for its actor, which is {why[isolation]}."

    simulate(main, delay_s=0.0)


@ISOLATIONS
def test_actors_that_are_busy_with_each_other_are_named_in_a_warning(
    isolation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        one, other, third = (peer(isolation, max_concurrency=1) for _ in range(3))
        await asyncio.gather(one.ready.remote(), other.ready.remote())
        refs = [one.call.remote([other]), other.call.remote([one])]
        await asyncio.sleep(60)
        assert [len(circle) for circle in (await ray.aio.wait_graph()).cycles] == [4]
        told = plain(await ray.aio.explain(refs[0]))
        assert "'_Peer.ready' is queued at the worker with pid P" in told
        assert "'_Peer.call' has been running there" in told
        # A third one of the same kind, in the same process maybe, has nothing to do with it.
        await third.ready.remote()
        ray.cancel(refs[0])
        await refs[1]

    with caplog.at_level(logging.WARNING, "asyncray"):
        simulate(main, delay_s=0.0, num_cpus=4)
    (message,) = caplog.messages
    assert "tasks wait for each other, and none of them can go on: '_Peer.call'" in message
    assert "waits for its turn behind '_Peer.call'" in message


@ISOLATIONS
def test_actors_that_have_turns_left_are_no_circle(isolation: Any) -> None:
    """Others in the same process that are busy take none of them."""

    async def main(cluster: SimulatedCluster) -> None:
        one, other = (peer(isolation, max_concurrency=2) for _ in range(2))
        slow = [peer(isolation, max_concurrency=1) for _ in range(2)]
        notes.gates["done"] = asyncio.Event()
        busy = [each.call.remote([peer(isolation, behind.remote("done"))]) for each in slow]
        await asyncio.gather(one.call.remote([other]), other.call.remote([one]))
        await asyncio.sleep(60)
        assert not (await ray.aio.wait_graph()).cycles
        notes.gates["done"].set()
        await asyncio.gather(*busy)

    simulate(main, delay_s=0.0, num_cpus=6)
