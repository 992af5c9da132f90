"""Random programs, random deaths: every call ends with its value or the contract's error; nothing stays."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import asyncray as ray
from asyncray import exceptions
from asyncray.testing import Event, SimulatedCluster, simulate, sleep

if TYPE_CHECKING:
    from collections.abc import Callable

#: Virtual seconds in which every program must be over; the longest works for less than one.
LIMIT_S = 600.0
NUM_CPUS = 2


@ray.remote
def work(seconds: float, *values: int) -> int:
    sleep(seconds)
    return 1 + sum(values)


@ray.remote
async def idle(seconds: float, *values: int) -> int:
    await asyncio.sleep(seconds)
    return 1 + sum(values)


@ray.remote
def fail(seconds: float, *values: int) -> int:
    sleep(seconds)
    raise ValueError(values)


@ray.remote
def fan(seconds: float, *values: int) -> int:
    """Call for the sum in two halves, and wait."""
    if len(values) < 2:
        sleep(seconds)
        return 1 + sum(values)
    middle = len(values) // 2
    halves = [fan.remote(seconds, *values[:middle]), fan.remote(seconds, *values[middle:])]
    total: int = sum(ray.get(halves)) - 1
    return total


@ray.remote
async def async_fan(seconds: float, *values: int) -> int:
    await asyncio.sleep(seconds)
    if len(values) < 2:
        return 1 + sum(values)
    left = async_fan.remote(seconds, *values[:1])
    right = fan.remote(seconds, *values[1:])
    total: int = await left + await right - 1
    return total


@ray.remote
def unbox(seconds: float, boxed: list[Any], hops: int) -> int:
    """Get what was passed on so many times as a reference."""
    if hops:
        ref = (async_unbox if hops % 2 else unbox).remote(seconds, boxed, hops - 1)
        sleep(seconds)
        return ray.get(ref)
    values: list[int] = ray.get(boxed)
    return 1 + sum(values)


@ray.remote
async def async_unbox(seconds: float, boxed: list[Any], hops: int) -> int:
    if hops:
        return await unbox.remote(seconds, boxed, hops - 1)
    values: list[int] = await ray.aio.get(boxed)
    return 1 + sum(values)


@ray.remote
def box(seconds: float, *values: int) -> list[Any]:
    """Return references that this worker owns: to a value, and to a result to come."""
    return [ray.put(sum(values)), work.remote(seconds)]


@ray.remote
async def open_box(seconds: float, boxed: list[Any]) -> int:
    await asyncio.sleep(seconds)
    return sum([await ref for ref in boxed])


KINDS = ("work", "idle", "fail", "fan", "async_fan", "unbox", "box")


@dataclass(frozen=True)
class Step:
    """One call of a program; its arguments are earlier ones."""

    kind: str
    seconds: float
    arguments: tuple[int, ...]
    max_retries: int
    timeout: float | None
    priority: int
    #: What happens after the call: seconds to wait, an earlier call to cancel, one to forget.
    pause: float | None
    cancel: tuple[int, bool] | None
    drop: int | None


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Calls whose arguments are results of earlier ones."""
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 12))):
        earlier = st.integers(0, number)
        steps.append(
            Step(
                kind=draw(st.sampled_from(KINDS)),
                seconds=draw(st.sampled_from([0.0, 0.0001, 0.002, 0.03])),
                arguments=tuple(
                    draw(st.lists(st.integers(0, max(0, number - 1)), max_size=3 if number else 0))
                ),
                max_retries=draw(st.sampled_from([-1, 0, 1, 3])),
                timeout=draw(st.sampled_from([None, None, None, 0.001, 0.01, 0.05, 100.0])),
                priority=draw(st.sampled_from([0, 0, 0, -1, 2])),
                pause=draw(st.sampled_from([None, None, 0.0005, 0.01])),
                cancel=draw(st.none() | st.tuples(earlier, st.booleans())) if draw(st.booleans()) else None,
                drop=draw(st.none() | earlier),
            )
        )
    return steps


@dataclass
class Run:
    """One run of a program."""

    cluster: SimulatedCluster
    refs: dict[int, ray.ObjectRef[int]] = field(default_factory=dict)
    #: What each call returns if nothing goes wrong; None for those that fail anyway.
    expected: list[int | None] = field(default_factory=list)
    cancelled: bool = False
    forced: bool = False
    timed: bool = False
    killed: int = 0

    def call(self, step: Step) -> None:
        arguments = [self.refs[at] for at in step.arguments if at in self.refs]
        known = [self.expected[at] for at in step.arguments if at in self.refs]
        total = None if None in known else 1 + sum(value or 0 for value in known)
        options: Any = {"max_retries": step.max_retries, "timeout": step.timeout, "priority": step.priority}
        self.timed |= step.timeout is not None
        if step.kind == "unbox":
            hops = len(arguments)
            ref = unbox.options(**options).remote(step.seconds, arguments, hops)
        elif step.kind == "box":
            boxed: Any = box.options(**options).remote(step.seconds, *arguments)
            ref = open_box.options(**options).remote(step.seconds, boxed)
        else:
            function: Any = globals()[step.kind]
            ref = function.options(**options).remote(step.seconds, *arguments)
        self.refs[len(self.expected)] = ref
        self.expected.append(None if step.kind == "fail" else total)

    async def after(self, step: Step) -> None:
        if step.pause is not None:
            await asyncio.sleep(step.pause)
        if step.cancel is not None and step.cancel[0] in self.refs:
            self.cancelled = True
            self.forced |= step.cancel[1]
            ray.cancel(self.refs[step.cancel[0]], force=step.cancel[1])
        if step.drop is not None:
            self.refs.pop(step.drop, None)

    async def check_outcome(self, number: int) -> None:
        expected = self.expected[number]
        try:
            value = await self.refs[number]
        except exceptions.TaskCancelledError:
            # Who has called for a box may hear of its end before its own deadline.
            assert self.cancelled or self.timed
        except exceptions.GetTimeoutError:
            assert self.timed
        except (exceptions.WorkerCrashedError, exceptions.OwnerDiedError):
            assert self.killed or self.forced
        except ValueError:
            assert expected is None
        else:
            assert value == expected


async def settled(cluster: SimulatedCluster) -> None:
    """Check that nothing is left of a program whose references are gone."""
    await asyncio.sleep(30)
    gc.collect()  # what a traceback holds in a cycle
    await asyncio.sleep(30)
    for session in cluster.sessions:
        session.owner.objects.validate()
        assert session.owner.objects.owned == {}, session
        assert session.owner.objects.borrowed == {}, session
        assert not session.peers.borrowing.pins(), session
    cluster.node.scheduler.validate()
    assert (await ray.aio.available_resources())["CPU"] == NUM_CPUS
    assert len(cluster.workers) <= NUM_CPUS
    assert await work.remote(0.0) == 1


def killer(run: Run, moments: dict[int, bool]) -> Callable[[Event], None]:
    """Kills a worker at some events: the one that acts, or any."""
    count = 0

    def watch(happened: Event) -> None:
        nonlocal count
        count += 1
        if count not in moments or not run.cluster.workers:
            return
        actor = happened.pid if moments[count] and happened.pid in run.cluster.workers else None
        run.killed += 1
        run.cluster.kill_worker(actor)

    return watch


async def play(cluster: SimulatedCluster, program: list[Step], moments: dict[int, bool]) -> str:
    run = Run(cluster)
    cluster.on_event(killer(run, moments))
    async with asyncio.timeout(LIMIT_S):
        for step in program:
            run.call(step)
            await run.after(step)
        for number in list(run.refs):
            await run.check_outcome(number)
            del run.refs[number]
        await settled(cluster)
    event(f"{min(run.killed, 5)} killed")
    return str(cluster.trace)


MOMENTS = st.dictionaries(st.integers(1, 150), st.booleans(), max_size=6)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**16), program=programs(), moments=MOMENTS)
def test_whatever_dies_every_call_ends_as_promised_and_nothing_is_left(
    seed: int, program: list[Step], moments: dict[int, bool]
) -> None:
    simulate(lambda cluster: play(cluster, program, moments), seed=seed, num_cpus=NUM_CPUS)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**16), program=programs(), moments=MOMENTS)
def test_whatever_dies_the_seed_replays_it(seed: int, program: list[Step], moments: dict[int, bool]) -> None:
    traces = {
        simulate(lambda cluster: play(cluster, program, moments), seed=seed, num_cpus=NUM_CPUS)
        for _ in range(2)
    }
    assert len(traces) == 1
