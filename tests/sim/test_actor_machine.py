"""Actors against a model of them: made, called, cancelled, killed, crashed, let go, in any order.

The real runtime, in simulation. Every call must be answered, by a value or by the error that the contract
names; the calls of one caller run in their order; in the end no table holds anything.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import SimulatedCluster, VirtualLoop
from tests.sim import ledger, notes

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asyncray import ActorHandle

T = TypeVar("T")

#: Virtual seconds in which anything must be answered: a restart after many others waits for half a minute.
PATIENCE_S = 600.0
NAMES = ("one", "two")
COUNTS = st.integers(0, 5)
#: Seconds after a call at which something happens: a message takes a millisecond at most.
MOMENTS = st.sampled_from([0.0, 0.0004, 0.001, 0.0015, 0.002, 0.003, 1.0])
ERRORS = (exceptions.ActorDiedError, exceptions.ActorUnavailableError, exceptions.TaskCancelledError)
DIED = exceptions.ActorDiedError.__name__
UNAVAILABLE = exceptions.ActorUnavailableError.__name__
CANCELLED = exceptions.TaskCancelledError.__name__


class _Scribe:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.life = notes.note("lives")

    def hear(self, caller: str, number: int) -> int:
        ledger.heard.append((self.life, caller, number))
        return number


class _AsyncScribe(_Scribe):
    """The same with coroutines, which take a moment."""

    async def hear(self, caller: str, number: int) -> int:  # type: ignore[override]
        ledger.heard.append((self.life, caller, number))
        await asyncio.sleep(0.001 * (number % 3))
        return number


KINDS: dict[str, Any] = {
    "sync": ray.remote(_Scribe),
    "async": ray.remote(_AsyncScribe),
    "threaded": ray.remote(max_concurrency=3)(_Scribe),
}


@ray.remote
def tells(scribe: list[ActorHandle[Any]], caller: str, numbers: list[int]) -> list[str]:
    """Call an actor from another process; returns how each call ended."""
    refs = [scribe[0].hear.remote(caller, number) for number in numbers]
    return [_outcome_of(ref) for ref in refs]


def _outcome_of(ref: Any) -> str:
    try:
        return str(ray.get(ref))
    except ERRORS as error:
        return type(error).__name__


@dataclass(eq=False)
class Known:
    """What the model knows of an actor."""

    handle: ActorHandle[Any] | None
    number: int
    kind: str
    name: str | None
    restarts: int
    retries: int
    alive: bool = True
    #: Whether a process of it has died while there may have been calls.
    shaken: bool = False
    #: Whether its owner may not have heard of that yet.
    unheard: bool = False
    crashes: int = 0
    #: Calls not looked at: a reference to one value or to several outcomes, and the numbers.
    calls: list[tuple[Any, list[int]]] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)

    def loses_its_process(self) -> None:
        """It starts again if it may."""
        self.crashes += 1
        self.shaken = True
        if self.restarts:
            self.restarts -= self.restarts > 0
        else:
            self.alive = False

    def allows(self, outcome: str, number: int) -> bool:
        """Whether a call may end so."""
        if outcome == str(number):
            return True
        if outcome == CANCELLED:
            return number in self.cancelled
        if outcome == UNAVAILABLE:
            return self.shaken and not self.retries
        return outcome == DIED and not self.alive


class ActorMachine(RuleBasedStateMachine):
    """The steps."""

    actors: Bundle[Known] = Bundle("actors")

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        ledger.heard.clear()
        notes.noted.clear()
        self.numbers = itertools.count(1)
        self.known: list[Known] = []
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.cluster = SimulatedCluster(seed, num_cpus=2)
        self.run(self.cluster.__aenter__())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(PATIENCE_S):
                return await coroutine

        return self.runner.run(limited())

    # --- steps ----------------------------------------------------------------------------------------------

    @rule(
        target=actors,
        wait_s=st.sampled_from([0.0, 1.0]),
        kind=st.sampled_from(sorted(KINDS)),
        restarts=st.sampled_from([0, 1, 2, -1]),
        retries=st.sampled_from([0, -1]),
        name=st.sampled_from([None, None, *NAMES]),
    )
    def make(self, kind: str, restarts: int, retries: int, name: str | None, wait_s: float) -> Any:
        options = {"max_restarts": restarts, "max_task_retries": retries}
        taken = name is not None and any(k.name == name and k.alive for k in self.known)

        async def made() -> ActorHandle[Any] | None:
            try:
                handle: ActorHandle[Any] = await KINDS[kind].options(name=name, **options).remote_async()
                return handle
            except exceptions.ActorAlreadyExistsError:
                return None

        handle = self.run(made())
        unheard = any(k.name == name and k.unheard for k in self.known)
        assert unheard or (handle is None) == taken
        if handle is None:
            return multiple()
        self.run(asyncio.sleep(wait_s))
        known = Known(handle, handle._ray_address[2], kind, name, restarts, retries)
        self.known.append(known)
        return known

    @rule(known=actors, count=st.integers(1, 6))
    def call(self, known: Known, count: int) -> None:
        if known.handle is not None:
            self.run(self._call(known, count))

    async def _call(self, known: Known, count: int) -> None:
        assert known.handle is not None
        for _ in range(count):
            number = next(self.numbers)
            known.calls.append((known.handle.hear.remote("driver", number), [number]))

    @rule(known=actors, count=st.integers(1, 4))
    def call_from_elsewhere(self, known: Known, count: int) -> None:
        async def calls() -> None:
            assert known.handle is not None
            numbers = [next(self.numbers) for _ in range(count)]
            known.calls.append((tells.remote([known.handle], f"task {numbers[0]}", numbers), numbers))

        if known.handle is not None:
            self.run(calls())

    @rule(known=actors)
    def cancel_the_last_call(self, known: Known) -> None:
        async def cancels() -> None:
            ray.cancel(known.calls[-1][0])

        if known.calls and len(known.calls[-1][1]) == 1:
            known.cancelled.update(known.calls[-1][1])
            self.run(cancels())

    @rule(known=actors)
    def look(self, known: Known) -> None:
        self.run(self._look(known))

    async def _look(self, known: Known) -> None:
        calls, known.calls = known.calls, []
        for ref, numbers in calls:
            try:
                value = await ref
                outcomes = value if isinstance(value, list) else [str(value)]
            except ERRORS as error:
                outcomes = [type(error).__name__]
            assert len(outcomes) == len(numbers)
            for outcome, number in zip(outcomes, numbers, strict=True):
                assert known.allows(outcome, number), (outcome, number, known)

    @rule(known=actors)
    def stands_as_the_model_says(self, known: Known) -> None:
        async def stands() -> None:
            await asyncio.sleep(1)
            await self._look(known)
            known.unheard = known.shaken = False
            if known.handle is not None:
                known.handle.__ray_ready__.remote()
                number = next(self.numbers)
                known.calls.append((known.handle.hear.remote("driver", number), [number]))
                await self._look(known)

        self.run(stands())

    @rule(known=actors, count=COUNTS, seconds=MOMENTS)
    def crash_in_the_middle(self, known: Known, count: int, seconds: float) -> None:
        async def crashes() -> None:
            await self._call(known, count)
            await asyncio.sleep(seconds)
            pid = self._pid(known)
            if pid in self.cluster.workers:
                known.loses_its_process()
                known.unheard = True
                self.cluster.kill_worker(pid)

        if known.handle is not None and not known.unheard:
            self.run(crashes())

    @rule(known=actors, count=COUNTS, seconds=MOMENTS, no_restart=st.booleans())
    def kill_in_the_middle(self, known: Known, count: int, seconds: float, *, no_restart: bool) -> None:
        async def kills() -> None:
            await self._call(known, count)
            await asyncio.sleep(seconds)
            if no_restart:
                known.alive = False
            elif known.unheard or self._pid(known) not in self.cluster.workers:
                return
            else:
                known.loses_its_process()
                known.unheard = True
            ray.kill(known.handle, no_restart=no_restart)  # type: ignore[arg-type]

        if known.handle is not None and known.alive:
            self.run(kills())

    @rule(known=actors)
    def let_go(self, known: Known) -> None:
        async def lets_go() -> None:
            known.handle = None
            await self._look(known)
            await asyncio.sleep(100)
            known.alive = False

        self.run(lets_go())
        assert known.number not in self.cluster.driver.actors.owned

    @rule(seconds=st.sampled_from([0.001, 0.01, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def _pid(self, known: Known) -> int | None:
        """The process of an actor; None while it has none that is up."""
        actor = self.cluster.driver.actors.owned.get(known.number)
        if actor is None or actor.lease is None:
            return None
        grant = self.cluster.node.scheduler.grants.get(actor.lease.number)
        worker = None if grant is None else self.cluster._pool.processes.get(grant.worker.number)
        return None if worker is None or worker.simulated is None else worker.simulated.pid

    # --- what is always so ----------------------------------------------------------------------------------

    @invariant()
    def tables_are_sound(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.node.scheduler.validate()
            self.cluster.driver.owner.objects.validate()

    @invariant()
    def calls_run_in_their_order_and_as_often_as_they_may(self) -> None:
        numbers = defaultdict(list)
        for life, caller, number in ledger.heard:
            numbers[life, caller].append(number)
        sync = not hasattr(self, "known") or all(known.kind == "sync" for known in self.known)
        assert not sync or all(each == sorted(each) for each in numbers.values())
        most = 1 + max((k.crashes for k in getattr(self, "known", ()) if k.retries), default=0)
        assert max(Counter(number for _, _, number in ledger.heard).values(), default=0) <= most

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        try:
            self.run(self._end())
        finally:
            self.runner.run(self.cluster.__aexit__(None, None, None))
            self.runner.close()

    async def _end(self) -> None:
        for known in self.known:
            await self._look(known)
            known.handle = None
        gc.collect()
        await asyncio.sleep(100)
        gc.collect()
        driver, node = self.cluster.driver, self.cluster.node
        actors, objects = driver.actors, driver.owner.objects
        assert not actors.owned
        assert not actors.creating
        assert not objects.lives
        assert not driver.owner.unfinished()
        assert not len(node.directory)
        assert not node.scheduler.grants
        assert not list(actors._calls)


TestActors = ActorMachine.TestCase
TestActors.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
