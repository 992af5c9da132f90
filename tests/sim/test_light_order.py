"""The order in which light actors run each caller's calls: races are replayed, held open where it matters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import ledger, notes
from tests.sim.holding import Held, behind, from_hosts, from_peer, host_of, session_of, settle, to_host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncray.actor import ActorHandle


class _Listener:
    """Hears numbered messages, when its argument is there."""

    def __init__(self, something: Any = None) -> None:
        pass

    async def hear(self, caller: str, number: int) -> None:
        ledger.heard.append((0, caller, number))

    async def hear_behind(self, gate: str, caller: str, number: int) -> None:
        await notes.gates[gate].wait()
        await self.hear(caller, number)

    async def wait(self) -> None:
        await asyncio.Event().wait()


Listener = ray.remote(isolation="shared", max_restarts=-1)(_Listener)
#: Hears one at a time, so that what is called for waits in its host.
OneAtATime = Listener.options(max_restarts=-1, max_concurrency=1)


class _Talker:
    """Calls from a process of its own, and waits for no answer."""

    def __init__(self) -> None:
        self.refs: list[Any] = []

    async def say(self, listeners: list[ActorHandle[Any]], *numbers: int) -> None:
        """Calls that may run again are made."""
        hear = listeners[0].hear.options(max_task_retries=-1)
        self.refs += [hear.remote("talker", number) for number in numbers]

    async def keep_busy(self, listeners: list[ActorHandle[Any]]) -> None:
        """One call that does not end."""
        self.refs.append(listeners[0].wait.remote())

    async def kill_and_say(self, listeners: list[ActorHandle[Any]], number: int) -> None:
        ray.kill(listeners[0])
        await self.say(listeners, number)

    async def ends(self) -> list[str]:
        """How all calls have ended."""
        ends = await asyncio.gather(*self.refs, return_exceptions=True)
        return [type(end).__name__ for end in ends]


class _Maker:
    """Owns a listener."""

    def __init__(self, isolation: Any) -> None:
        self.listener = ray.remote(isolation=isolation)(_Listener).remote()

    async def make(self) -> ActorHandle[Any]:
        return self.listener


Talker = ray.remote(_Talker)


def heard(caller: str) -> list[int]:
    return [number for _, name, number in ledger.heard if name == caller]


def simulated(main: Callable[[SimulatedCluster], Awaitable[None]]) -> None:
    """With messages that take no time, so that only what is held back is late."""
    simulate(main, delay_s=0.0)


# --- calls that a host gives back ---------------------------------------------------------------------------


@pytest.mark.parametrize("earlier", [0, 1, 2], ids=["at once", "after a restart", "after two"])
def test_what_a_killed_one_had_not_begun_runs_before_what_was_called_for_since(earlier: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = OneAtATime.remote()
        for _ in range(earlier):  # each makes the next restart wait longer
            ray.kill(listener, no_restart=False)
            await listener.hear.remote("somebody", 0)
        running = listener.wait.remote()
        refs = [listener.hear.remote("driver", number) for number in range(3)]
        await settle()
        ray.kill(listener, no_restart=False)
        refs += [listener.hear.remote("driver", number) for number in range(3, 6)]
        await asyncio.gather(*refs)
        with pytest.raises(exceptions.ActorUnavailableError):
            await running
        assert heard("driver") == [0, 1, 2, 3, 4, 5]

    simulated(main)


def test_so_does_what_a_host_gives_back_late() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = OneAtATime.remote()
        listener.wait.remote()
        refs = [listener.hear.remote("driver", 0)]
        await settle()
        host = from_hosts(cluster.driver)
        ray.kill(listener, no_restart=False)
        refs.append(listener.hear.remote("driver", 1))
        await settle()
        while len(host):
            host.let_through(1)
            await settle()
        refs.append(listener.hear.remote("driver", 2))
        host.open()
        await asyncio.gather(*refs)
        assert heard("driver") == [0, 1, 2]

    simulated(main)


def test_so_does_what_was_begun_and_may_run_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        notes.gates["go"] = asyncio.Event()
        listener = OneAtATime.remote()
        refs = [listener.hear_behind.options(max_task_retries=1).remote("go", "driver", 0)]
        refs += [listener.hear.remote("driver", number) for number in range(1, 3)]
        await settle()
        ray.kill(listener, no_restart=False)
        refs.append(listener.hear.remote("driver", 3))
        await settle()
        notes.gates["go"].set()
        await asyncio.gather(*refs)
        assert heard("driver") == [0, 1, 2, 3]

    simulated(main)


def test_a_host_that_dies_before_it_has_given_anything_back() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        listener = OneAtATime.remote()
        listener.wait.remote()
        hear = listener.hear.options(max_task_retries=1)
        refs = [hear.remote("driver", number) for number in range(3)]
        await settle()
        from_hosts(cluster.driver)
        ray.kill(listener, no_restart=False)
        refs += [hear.remote("driver", number) for number in range(3, 6)]
        await settle()
        assert not heard("driver")
        cluster.kill_worker(next(host_of(cluster)))
        await asyncio.gather(*refs)
        assert heard("driver") == [0, 1, 2, 3, 4, 5]

    simulated(main)


def test_one_is_killed_while_another_is_about_to_start_again() -> None:
    """Its end goes to the host before its new constructor does."""

    async def main(cluster: SimulatedCluster) -> None:
        crowd = [Listener.remote() for _ in range(101)]
        await asyncio.gather(*[listener.hear.remote("somebody", 0) for listener in crowd])
        lights = cluster.driver.lights
        after = lights.after

        def then_kill(delay_s: float, actor: Any) -> None:
            after(delay_s, actor)
            lights.after = after  # type: ignore[method-assign]
            ray.kill(crowd[0], no_restart=False)

        lights.after = then_kill  # type: ignore[method-assign]
        cluster.kill_worker(list(host_of(cluster))[1])
        await settle()
        await asyncio.gather(crowd[0].hear.remote("driver", 0), crowd[-1].hear.remote("driver", 1))
        await settle()
        await crowd[0].hear.remote("driver", 2)
        assert heard("driver") == [0, 1, 2]

    simulated(main)


# --- another process's calls --------------------------------------------------------------------------------


async def an_audience(cluster: SimulatedCluster) -> ActorHandle[Any]:
    """Have a talker that knows the ways to the host and to the driver; nothing is under way there."""
    notes.gates["made"] = asyncio.Event()
    talker = Talker.remote()
    first = Listener.remote(behind.remote("made"))
    await talker.say.remote([first], -1)
    await settle()
    notes.gates["made"].set()
    await talker.ends.remote()
    notes.gates["made"] = asyncio.Event()
    ledger.heard.clear()
    return talker


def test_calls_behind_one_that_was_turned_away_are_turned_away_too() -> None:
    """They come when the actor is there, before their caller has heard that the first one was too early."""

    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = Listener.remote(behind.remote("made"))
        host = from_hosts(session_of(cluster, talker))
        await talker.say.remote([listener], 0)
        await settle()
        assert len(host) == 1  # it is not there
        notes.gates["made"].set()
        await listener.hear.remote("driver", 0)
        await talker.say.remote([listener], 1)
        await settle()
        assert not heard("talker")
        host.open()
        await talker.ends.remote()
        assert heard("talker") == [0, 1]

    simulated(main)


def test_the_owner_is_asked_when_all_that_was_turned_away_has_come_back() -> None:
    """What is called for in between waits behind it, too."""

    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = Listener.remote(behind.remote("made"))
        host = from_hosts(session_of(cluster, talker))
        await talker.say.remote([listener], 0)
        await settle()
        notes.gates["made"].set()
        await listener.hear.remote("driver", 0)
        await talker.say.remote([listener], 1)
        await settle()
        host.let_through(1)
        await settle()
        await talker.say.remote([listener], 2)
        await settle()
        assert not heard("talker")
        host.open()
        await talker.ends.remote()
        assert heard("talker") == [0, 1, 2]

    simulated(main)


async def one_lost(cluster: SimulatedCluster, talker: ActorHandle[Any]) -> ActorHandle[Any]:
    """Have a call of a talker be lost with its host; what the owner says of that is held back."""
    listener = Listener.remote()
    await talker.say.remote([listener], -1)
    await talker.ends.remote()
    from_hosts(session_of(cluster, talker))  # no answer comes
    await talker.say.remote([listener], 0)
    await settle()
    ledger.heard.clear()
    return listener


def test_calls_wait_behind_those_that_were_lost_with_a_host() -> None:
    """The new host, which knows of nothing, is reached before the owner's word comes."""

    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = await one_lost(cluster, talker)
        owner = from_peer(session_of(cluster, talker), cluster.driver)
        cluster.kill_worker(next(host_of(cluster)))
        await settle()
        await talker.say.remote([listener], 1)
        await settle()
        assert len(owner) >= 1
        assert not heard("talker")
        owner.open()
        await talker.ends.remote()
        assert heard("talker") == [0, 1]

    simulated(main)


def test_calls_made_while_there_is_no_host_run_behind_those_that_were_lost_with_it() -> None:
    """The owner's word comes before the new host is reached."""

    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = await one_lost(cluster, talker)
        session = session_of(cluster, talker)
        owner = from_peer(session, cluster.driver)
        cluster.kill_worker(next(host_of(cluster)))
        await settle()
        node = Held(session.control)
        await talker.say.remote([listener], 1)
        await settle()
        owner.open()
        await settle()
        assert len(node) >= 1
        node.open()
        await talker.ends.remote()
        assert heard("talker") == [0, 1]

    simulated(main)


# --- kills by who is not the owner --------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_who_kills_others_actor_is_not_answered_by_it_any_more(isolation: Any) -> None:
    """Its owner hears of the kill after the next call has been made."""

    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = ray.remote(isolation=isolation, max_restarts=-1)(_Listener).remote()
        await talker.say.remote([listener], 0)
        await talker.ends.remote()
        to_owner = from_peer(cluster.driver, session_of(cluster, talker))
        await talker.kill_and_say.remote([listener], 1)
        await talker.say.remote([listener], 2)
        await settle()
        assert heard("talker") == [0]
        to_owner.open()
        assert await talker.ends.remote() == ["NoneType", "NoneType", "ActorDiedError", "ActorDiedError"]
        assert heard("talker") == [0]
        assert not len(session_of(cluster, talker).lights.strangers)

    simulated(main)


def test_it_does_not_either_when_its_host_has_not_heard_of_its_end() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = Listener.remote()
        await listener.hear.remote("driver", 0)
        host = to_host(cluster, cluster.driver)
        await talker.kill_and_say.remote([listener], 0)
        await settle()
        await talker.say.remote([listener], 1)
        assert await talker.ends.remote() == ["NoneType", "ActorDiedError", "ActorDiedError"]
        assert len(host) >= 1
        assert not heard("talker")
        host.open()

    simulated(main)


def test_a_word_that_its_owner_said_before_the_kill_does_not_count() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        listener = Listener.remote(behind.remote("made"))
        session = session_of(cluster, talker)
        await talker.say.remote([listener], 0)
        await settle()
        from_owner, to_owner = from_peer(session, cluster.driver), from_peer(cluster.driver, session)
        notes.gates["made"].set()
        await settle()
        assert len(from_owner) == 1  # that it is there
        await talker.kill_and_say.remote([listener], 1)
        from_owner.open()
        await settle()
        assert not heard("talker")
        to_owner.open()
        assert await talker.ends.remote() == ["NoneType", "ActorDiedError", "ActorDiedError"]

    simulated(main)


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_who_kills_others_actor_hears_of_its_owners_death(isolation: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        talker = await an_audience(cluster)
        maker = ray.remote(_Maker).remote(isolation)
        listener = await maker.make.remote()
        await talker.say.remote([listener], 0)
        await talker.ends.remote()
        from_peer(session_of(cluster, maker), session_of(cluster, talker))
        await talker.kill_and_say.remote([listener], 1)
        ray.kill(maker)
        assert await talker.ends.remote() == ["NoneType", "NoneType", "ActorDiedError"]
        await asyncio.sleep(1)  # all have been told of it
        await talker.kill_and_say.remote([listener], 2)
        assert (await talker.ends.remote())[3:] == ["ActorDiedError"]

    simulated(main)
