"""An object lives as long as somebody alive can reach it, and no longer: with whole processes, which crash.

The machine makes objects, passes them between processes in every way there is, drops them, and kills owners
and borrowers, while messages take as long as they like. When all is quiet it compares what each process has
in its tables with what somebody holds: not more, and not less.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

pytest.importorskip("numpy")

import asyncray as ray
from asyncray.exceptions import ActorDiedError, ActorUnavailableError, OwnerDiedError, RayTaskError
from asyncray.testing import SimulatedCluster, VirtualLoop
from tests.sim.keepers import Keeper, made, number_or_error, send, value_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asyncray.client.session import Session

#: Virtual seconds after which all is quiet.
QUIET_S = 20.0
KEEPERS = 3
WAYS = ("argument", "value", "closure", "direct", "read")


@dataclass(eq=False, repr=False)
class Peer:
    """One process: a keeper, or the driver (no actor)."""

    actor: Any = None
    process_id: bytes = b""
    pid: int = 0
    #: What it should hold: slot -> object, and whether as a value.
    holds: dict[int, tuple[Thing, bool]] = field(default_factory=dict)
    #: Slots into which what they should hold has surely come by now.
    filled: set[int] = field(default_factory=set)

    def __repr__(self) -> str:
        return f"<{self.pid or 'driver'}>"


@dataclass(eq=False)
class Thing:
    """One object."""

    number: int
    owner: Peer
    record: int = 0
    stored: bool = False
    #: Whether somebody who passed it on died meanwhile: until the receiver has registered, it hangs on him.
    excused: bool = False


class Borrowing(RuleBasedStateMachine):
    """The driver and some keepers."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.count = 0
        self.driver = Peer()
        self.slots: dict[int, Any] = {}
        self.peers: list[Peer] = [self.driver]
        #: Calls that nobody has looked at yet.
        self.under_way: list[Any] = []
        #: What was passed on since all was quiet: by whom, what, to whom, which slot.
        self.passed: list[tuple[Peer, Thing, Peer, int]] = []
        #: Slots of which nobody knows whether something came.
        self.open: dict[int, tuple[Peer, Thing, bool]] = {}

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def next(self) -> int:
        self.count += 1
        return self.count

    # --- rules ----------------------------------------------------------------------------------------------

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        async def begin() -> None:
            await self.cluster.__aenter__()
            for _ in range(KEEPERS):
                await self.add_keeper()

        # What was there before need not be looked at whenever garbage is collected.
        gc.freeze()
        self.cluster = SimulatedCluster(seed)
        self.run(begin())
        self.driver.process_id = self.cluster.driver.identity.process_id

    @rule(data=st.data(), large=st.booleans())
    def put(self, data: st.DataObject, large: bool) -> None:
        self.run(self.put_at(self.pick(data), large))

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), way=st.sampled_from(WAYS))
    def pass_on(self, data: st.DataObject, way: str) -> None:
        """One process sends what it has to another."""
        sender, slot = self.pick_held(data)
        to = data.draw(st.sampled_from([peer for peer in self.peers if peer not in (sender, self.driver)]))
        self.run(self.send(sender, slot, to, way))

    @precondition(lambda self: any(peer is not self.driver for peer, _ in self.holders()))
    @rule(data=st.data())
    def hand_out(self, data: st.DataObject) -> None:
        """One process returns what it has, and another gets that."""
        sender, slot = self.pick_held(data, without=self.driver)
        to = data.draw(st.sampled_from([peer for peer in self.peers if peer is not sender]))
        self.run(self.give(sender, slot, to))

    @precondition(lambda self: any(peer.holds for peer in self.peers))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from([peer for peer in self.peers if peer.holds]))
        slot = data.draw(st.sampled_from(sorted(peer.holds)))
        self.run(self.drop_at(peer, slot))

    @rule(seconds=st.sampled_from([0.0, 0.0003, 0.002]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.peers[1:]))
        self.run(self.kill(peer))

    @rule()
    def settle(self) -> None:
        self.run(self.quiet())
        self.run(self.check())

    def teardown(self) -> None:
        try:
            if hasattr(self, "cluster"):
                self.run(self.end())
        finally:
            self.runner.close()
            gc.unfreeze()

    # --- how ------------------------------------------------------------------------------------------------

    def pick(self, data: st.DataObject) -> Peer:
        return data.draw(st.sampled_from(self.peers))

    def holders(self) -> list[tuple[Peer, int]]:
        """Who has a reference, and where."""
        return [
            (peer, slot)
            for peer in self.peers
            for slot, (_, as_value) in peer.holds.items()
            if not as_value and slot in peer.filled
        ]

    def pick_held(self, data: st.DataObject, without: Peer | None = None) -> tuple[Peer, int]:
        return data.draw(st.sampled_from([held for held in self.holders() if held[0] is not without]))

    async def add_keeper(self) -> None:
        actor: Any = ray.remote(Keeper).remote()
        process_id, pid = await actor.identity.remote()
        self.peers.append(Peer(actor, process_id, pid))

    async def put_at(self, peer: Peer, large: bool) -> None:
        thing, slot = Thing(self.next(), peer), self.next()
        if peer is self.driver:
            ref: Any = await ray.aio.put(value_of(thing.number, large=large))
            self.slots[slot] = ref
            told = made(ref)
        else:
            told = await peer.actor.put.remote(slot, thing.number, large)
        thing.record, thing.stored = told.record, told.stored
        peer.holds[slot] = (thing, False)
        peer.filled.add(slot)

    async def send(self, sender: Peer, slot: int, to: Peer, way: str) -> None:
        thing, its_slot = sender.holds[slot][0], self.next()
        if sender is self.driver:
            self.under_way.append(send(self.slots[slot], to.actor, its_slot, way))
        else:
            self.under_way.append(sender.actor.pass_on.remote(slot, to.actor, its_slot, way))
        self.expect(sender, thing, to, its_slot, as_value=way in ("direct", "read"))

    async def give(self, sender: Peer, slot: int, to: Peer) -> None:
        thing, its_slot = sender.holds[slot][0], self.next()
        result = sender.actor.give.remote(slot)
        if to is self.driver:
            with contextlib.suppress(ActorDiedError, ActorUnavailableError):
                (self.slots[its_slot],) = await result
        else:
            self.under_way.append(to.actor.keep.remote(its_slot, result))
        self.expect(sender, thing, to, its_slot, as_value=False)

    def expect(self, sender: Peer, thing: Thing, to: Peer, slot: int, *, as_value: bool) -> None:
        to.holds[slot] = (thing, as_value)
        self.passed.append((sender, thing, to, slot))

    async def drop_at(self, peer: Peer, slot: int) -> None:
        del peer.holds[slot]
        if peer is self.driver:
            self.slots.pop(slot, None)
            return
        self.under_way.append(peer.actor.drop.remote(slot))

    async def kill(self, peer: Peer) -> None:
        for sender, thing, to, slot in self.passed:
            # What he passed on may not have arrived; and what he held may hang on him.
            thing.excused |= sender is peer or thing in [held for held, _ in peer.holds.values()]
            if sender is peer and slot in to.holds:
                self.open[slot] = (to, *to.holds[slot])
        for thing, _ in peer.holds.values():
            thing.excused |= any(passed is thing for _, passed, _, _ in self.passed)
        self.cluster.kill_worker(peer.pid)
        self.peers.remove(peer)
        # Its objects, which others may still hold, name it.
        peer.actor = None
        await self.add_keeper()

    async def quiet(self) -> None:
        """Let everything that is under way end."""
        while self.under_way:
            with contextlib.suppress(ActorDiedError, ActorUnavailableError, OwnerDiedError, RayTaskError):
                await self.under_way.pop(0)
        for _ in range(2):
            await asyncio.sleep(QUIET_S)
            gc.collect()
        self.passed.clear()
        await self.see_what_came()

    async def see_what_came(self) -> None:
        """Compare what can be read with what should be there."""
        for peer in self.peers:
            if peer is self.driver:
                seen = {s: await self.cluster.run_blocking(number_or_error, r) for s, r in self.slots.items()}
            else:
                seen = await peer.actor.look.remote()
            for slot in list(peer.holds):
                self.compare(peer, slot, seen.pop(slot, None))
            peer.filled = set(peer.holds)
            assert not seen, "something is held that was dropped"
        self.open.clear()
        await asyncio.sleep(QUIET_S)
        gc.collect()

    def compare(self, peer: Peer, slot: int, seen: str | int | None) -> None:
        thing, _ = peer.holds[slot]
        alive = thing.owner in self.peers
        if seen is None and slot in self.open:
            del peer.holds[slot]
        elif seen == "OwnerDiedError" or seen is None:
            # A value whose owner died before it was read never came.
            assert not alive, (thing, seen)
            if seen is None:
                del peer.holds[slot]
        elif seen == "ObjectFreedError":
            assert thing.excused, thing
        else:
            assert seen == thing.number

    async def check(self) -> None:
        """The tables say what is held, exactly."""
        sessions = {session.identity.process_id: session for session in self.cluster.sessions}
        for peer in self.peers:
            self.check_one(peer, sessions[peer.process_id])

    def check_one(self, peer: Peer, session: Session) -> None:
        objects = session.owner.objects
        objects.validate()
        borrowers: dict[int, set[bytes]] = {}
        for other in self.peers:
            for thing, as_value in other.holds.values():
                if thing.owner is not peer or (as_value and (not thing.stored or other is peer)):
                    continue
                if thing.excused and thing.record not in objects.owned:
                    continue
                borrowers.setdefault(thing.record, set()).update({other.process_id} - {peer.process_id})
        lives = {record.number for record in objects.lives if record.home is None}
        owned = {number: set(r.borrowers or ()) for number, r in objects.owned.items() if number not in lives}
        assert owned == borrowers, f"{peer} has {owned}, and should have {borrowers}"
        assert not session.peers.borrowing.pins()
        assert not session.peers.borrowing.registering()
        assert session.store.held <= len(peer.holds) + len(owned)

    async def end(self) -> None:
        for peer in self.peers:
            for slot in list(peer.holds):
                await self.drop_at(peer, slot)
        await self.quiet()
        await self.check()
        for peer in self.peers:
            assert not peer.holds
        self.peers.clear()
        await self.cluster.__aexit__(None, None, None)


TestBorrowing = Borrowing.TestCase
TestBorrowing.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
