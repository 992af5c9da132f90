"""`explain` and `wait_graph` under virtual time: every answer, sentence by sentence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim.tasks import add, fail, idle, work
from tests.sim.waiting import (
    LONG_S,
    after,
    aparent,
    asks_of_itself,
    atwice,
    lines,
    name_of,
    parent,
    plain,
    stubborn,
    text_after,
    told,
    total,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@ray.remote(max_unread=1)
async def counting() -> AsyncIterator[float]:
    """Yield without end the times of the yields."""
    while True:
        yield asyncio.get_running_loop().time()


# --- what is done -----------------------------------------------------------------------------------------


def test_what_is_done_is_said_to_be_done() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = add.remote(1, 2)
        await ref
        explanation = await ray.aio.explain(ref)
        assert explanation.state == "done"
        assert str(explanation) == f"The object {name_of(ref)} is done: its value is there."

    told(main)


def test_what_failed_is_said_to_have_failed_and_why() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = fail.remote("boom")
        assert ref.exception() if ref.done() else await asyncio.wait([ref])  # type: ignore[type-var]
        explanation = await ray.aio.explain(ref)
        assert explanation.state == "failed"
        assert isinstance(explanation.error, ValueError)
        assert str(explanation).startswith(f"The object {name_of(ref)} is done: it failed with RayTaskError")
        assert str(explanation).endswith("ValueError: boom")

    told(main)


def test_a_put_is_done() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert (await ray.aio.explain(ray.put(1))).state == "done"

    told(main)


def test_something_that_is_no_reference_is_refused() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        with pytest.raises(TypeError, match="explain takes references, not 1 of type int"):
            await ray.aio.explain(1)  # type: ignore[arg-type]

    told(main)


def test_a_generator_is_explained_by_its_producer_whose_bound_stays() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = counting.remote()
        await asyncio.sleep(1)
        explanation = await ray.aio.explain(stream)
        assert (explanation.name, explanation.state) == ("counting", "paused")
        first, second = await (await anext(stream)), await (await anext(stream))
        assert second - first >= 1, "it was made before anybody had read"

    told(main)


def test_whether_to_look_at_stacks_is_true_or_false() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(LONG_S)
        with pytest.raises(TypeError, match="stack must be True or False, not 'yes' of type str"):
            await ray.aio.explain(ref, stack="yes")  # type: ignore[arg-type]

    told(main)


# --- what waits -------------------------------------------------------------------------------------------


def test_a_task_waits_for_those_of_its_arguments_that_are_not_there() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = total.options(name="sum").remote(
            work.remote(LONG_S), add.remote(1, 2), total.remote(work.remote(LONG_S))
        )
        await asyncio.sleep(3)
        explanation = await ray.aio.explain(ref)
        assert plain(explanation) == lines(
            "'sum' waits for 2 of its 3 arguments:",
            "  'work' has been running for 3.0 s on pid P.",
            "  'total' waits for its argument:",
            "    'work' has been running for 3.0 s on pid P.",
        )
        assert explanation.state == "arguments"
        assert [child.state for child in explanation.waits_for] == ["running", "arguments"]
        running = explanation.waits_for[0]
        assert running.pid in cluster.workers
        assert running.running_s == pytest.approx(3.0)
        assert running.node == ray.nodes()[0]["NodeID"]

    told(main, num_cpus=2)


def test_a_task_waits_for_resources_and_it_is_said_who_holds_them() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        hogs = [work.options(name=name).remote(LONG_S) for name in ("hog", "pig")]
        await asyncio.sleep(1)
        waiting = add.remote(1, 2)
        await asyncio.sleep(1)
        explanation = await ray.aio.explain(waiting)
        assert plain(explanation) == lines(
            "'add' waits for resources: it needs CPU: 1, and free are CPU: 0 of 2.",
            "  'hog' on pid P holds CPU: 1.",
            "  'pig' on pid P holds CPU: 1.",
        )
        resources = explanation.resources
        assert resources is not None
        assert (resources.wanted, resources.free, resources.total) == ({"CPU": 1}, {"CPU": 0}, {"CPU": 2})
        assert [(h.name, h.pid, h.amounts) for h in resources.holders] == [
            ("hog", resources.holders[0].pid, {"CPU": 1}),
            ("pig", resources.holders[1].pid, {"CPU": 1}),
        ]
        del hogs

    told(main, num_cpus=2)


def test_a_queued_task_says_what_stands_before_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        running = work.remote(LONG_S)
        await asyncio.sleep(1)
        before = [add.remote(1, 2), total.remote(3), total.remote(4)]
        explanation = await asyncio.ensure_future(ray.aio.explain(last := work.remote(0)))
        await asyncio.sleep(1)
        explanation = await ray.aio.explain(last)
        assert str(explanation).splitlines()[0] == (
            "'work' waits for resources: it needs CPU: 1, and free are CPU: 0 of 1. "
            "Before it in its queue: 1 x 'add' and 2 x 'total'."
        )
        assert explanation.queue is not None
        assert (explanation.queue.ahead, explanation.queue.names) == (3, {"add": 1, "total": 2})
        del running, before

    told(main, num_cpus=1)


def test_the_node_serves_others_first() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        running = work.remote(LONG_S)
        await asyncio.sleep(1)
        first = [idle.remote(1), idle.remote(2)]
        await asyncio.sleep(1)
        text = await text_after(1, add.remote(1, 2))
        assert "The node serves 2 other calls first." in text
        del running, first

    told(main, num_cpus=1)


def test_what_can_never_run_is_said_to_be_so() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = add.options(num_cpus=64, resources={"magic": 2}).remote(1, 2)
        assert await text_after(1, ref) == (
            "'add' can never run: it needs CPU: 64, magic: 2, and the node has CPU: 2, magic: 0."
        )
        assert (await ray.aio.explain(ref)).state == "infeasible"

    told(main)


def test_a_task_waits_for_a_worker_to_start() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        def hook() -> None:
            pass

        special: Any = {"worker_process_setup_hook": hook}
        refs = [add.options(runtime_env=special).remote(1, 2), idle.remote(1)]
        await asyncio.sleep(0.001)
        starting = await asyncio.gather(*map(ray.aio.explain, refs))
        assert [explanation.state for explanation in starting] == ["starting"] * 2
        assert [str(explanation) for explanation in starting] == [
            "'add' waits for a worker process with its runtime environment to start.",
            "'idle' waits for a worker process to start.",
        ]
        await ray.aio.get(refs)

    simulate(main, num_cpus=2, delay_s=0.5, seed=1)


def test_a_task_is_queued_at_a_worker_behind_others() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await asyncio.gather(*[work.remote(1e-6) for _ in range(50)])  # quick: several are sent at a time
        refs = [work.remote(LONG_S), *(work.remote(0) for _ in range(3))]
        await asyncio.sleep(1)
        ran = "'work' has been running there for 1.0 s."
        assert [plain(await ray.aio.explain(ref)) for ref in refs] == [
            "'work' has been running for 1.0 s on pid P.",
            f"'work' is queued at the worker with pid P, behind 'work'. {ran}",
            f"'work' is queued at the worker with pid P, behind 2 x 'work'. {ran}",
            f"'work' is queued at the worker with pid P, behind 3 x 'work'. {ran}",
        ]
        explanation = await ray.aio.explain(refs[-1])
        assert explanation.state == "sent"
        assert explanation.pid in cluster.workers
        assert explanation.queue is not None
        assert (explanation.queue.ahead, explanation.queue.names) == (3, {"work": 3})

    told(main, num_cpus=1, recall_after_s=1000.0)


def test_a_long_queue_is_not_counted_to_its_end() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [work.remote(LONG_S) for _ in range(3000)]
        await asyncio.sleep(1)
        assert "Before it in its queue: 1000 x 'work' and more." in await text_after(0, refs[-1])
        graph = await ray.aio.wait_graph()
        assert len(graph.nodes) == 1000
        assert graph.missing == ("There is more than is shown here.",)
        ray.cancel(*refs)

    told(main, num_cpus=1)


# --- what runs --------------------------------------------------------------------------------------------


def test_a_running_task_that_waits_says_for_what() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = parent.remote(3, 2)
        await asyncio.sleep(2)
        explanation = await ray.aio.explain(ref)
        first, *children = str(explanation).splitlines()
        pid = explanation.pid
        assert first == (
            f"'parent' has been running for 2.0 s on pid {pid}, and has been waiting there for 2.0 s for "
            "2 of 3 references:"
        )
        assert [line.partition(" on pid")[0] for line in children] == [
            "  'work' has been running for 2.0 s"
        ] * 3
        assert (explanation.state, explanation.enough) == ("blocked", 2)
        assert explanation.waiting_s == pytest.approx(2.0)

    told(main, num_cpus=4)


def test_a_coroutine_that_waits_for_several_says_for_which() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        explanation = await after(2, aparent.remote())
        assert explanation.state == "blocked"
        assert [child.name for child in explanation.waits_for] == ["work", "work"]
        assert explanation.enough is None

    told(main, num_cpus=4)


def test_what_is_waited_for_twice_is_one_reference() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        explanation = await after(2, atwice.remote())
        first, *below = plain(explanation).splitlines()
        assert first.endswith("and has been waiting there for 2.0 s for 1 reference:")
        assert below == ["  'work' has been running for 2.0 s on pid P."]
        assert explanation.more == 0

    told(main)


def test_a_reference_of_another_process_is_explained_by_its_owner() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        slow = work.remote(LONG_S)
        await asyncio.sleep(1)
        assert plain(await asks_of_itself.remote([slow])) == "'work' has been running for 1.0 s on pid P."
        assert await cluster.run_blocking(lambda: plain(ray.util.explain(slow))) == (
            "'work' has been running for 1.0 s on pid P."
        )

    told(main)


def test_the_stack_of_a_coroutine_goes_through_all_that_it_awaits() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await asyncio.sleep(0)
        ref = idle.remote(LONG_S)
        await asyncio.sleep(1)
        stack = (await ray.aio.explain(ref, stack=True)).stack
        assert stack is not None
        assert "in idle" in stack
        assert "await asyncio.sleep(seconds)" in stack
        assert "in sleep" in stack
        assert "asyncray/worker" not in stack
        assert (await ray.aio.explain(ref)).stack is None

    told(main)


def test_the_stack_of_a_synchronous_task_is_that_of_its_thread() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        explanation = await after(1, work.remote(LONG_S), stack=True)
        assert explanation.stack is not None
        assert explanation.stack.splitlines()[0].endswith("in work")
        text = str(explanation).splitlines()
        assert text[0] == f"'work' has been running for 1.0 s on pid {explanation.pid}."
        assert all(line.startswith("  | ") for line in text[1:])

    told(main)


# --- groups -----------------------------------------------------------------------------------------------


@ray.remote
def leaves(child: Any) -> int:
    child.remote(LONG_S)
    return 1


@ray.remote
async def leaves_async(child: Any) -> int:
    child.remote(LONG_S)
    return 1


@ray.remote
async def leaves_group(child: Any) -> None:
    async with ray.aio.TaskGroup():
        child.remote(LONG_S)


@pytest.mark.parametrize("caller", [leaves, leaves_async, leaves_group])
def test_a_call_in_a_group_waits_for_what_it_has_left_behind(caller: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async with ray.aio.TaskGroup():
            ref = caller.remote(work)
            explanation = await after(5, ref)
            assert explanation.state == "blocked"
            assert [child.name for child in explanation.waits_for] == ["work"]
            assert not (await ray.aio.wait_graph()).cycles

    told(main)


# --- streams ----------------------------------------------------------------------------------------------


@ray.remote
def items(count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        sleep(seconds)
        yield number


@ray.remote
async def items_async(count: int, seconds: float) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(seconds)
        yield number


@ray.remote
def reads(producer: Any) -> int:
    return sum(ray.get(ref) for ref in producer.remote(10, LONG_S))


@ray.remote
async def reads_async(producer: Any) -> int:
    return sum([await ref async for ref in producer.remote(10, LONG_S)])


PRODUCERS = pytest.mark.parametrize("producer", [items, items_async])


@PRODUCERS
def test_a_paused_stream_says_how_much_is_unread(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        stream = producer.options(max_unread=2).remote(10, 0.0)
        explanation = await after(5, stream, stack=True)
        assert explanation.state == "paused"
        assert explanation.stack is None
        assert str(explanation) == (
            f"{stream_name(producer)} has been running for 5.0 s on pid {explanation.pid}. "
            "Its stream is paused: 2 items are unread."
        )
        assert not (await ray.aio.wait_graph()).cycles

    told(main)


@PRODUCERS
def test_a_stream_stands_for_its_producer_and_the_stack_is_the_generators(producer: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        explanation = await after(5, producer.remote(10, LONG_S), stack=True)
        assert explanation.state == "running"
        assert explanation.stack is not None
        assert f"in {stream_name(producer)[1:-1]}" in explanation.stack.splitlines()[0]
        assert "asyncray/worker" not in explanation.stack

    told(main)


@PRODUCERS
@pytest.mark.parametrize("reader", [reads, reads_async])
def test_who_reads_a_stream_waits_for_its_producer(producer: Any, reader: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        explanation = await after(5, reader.remote(producer))
        assert explanation.state == "blocked"
        assert [child.name for child in explanation.waits_for] == [stream_name(producer)[1:-1]]

    told(main)


def stream_name(producer: Any) -> str:
    return repr(producer._function.__name__)


# --- ends -------------------------------------------------------------------------------------------------


def test_a_cancelled_task_that_goes_on_is_said_to() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = stubborn.remote(LONG_S)
        await asyncio.sleep(1)
        ray.cancel(ref)
        explanation = await after(2, ref)
        assert explanation.state == "stopping"
        assert str(explanation) == (
            f"'stubborn' was cancelled, and still runs on pid {explanation.pid}, for 3.0 s by now."
        )
        await asyncio.sleep(2 * LONG_S)
        assert (await ray.aio.explain(ref)).state == "failed"

    told(main)


def test_a_retried_task_says_which_attempt_it_is() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(LONG_S)
        await asyncio.sleep(1)
        cluster.kill_worker()
        explanation = await after(1, ref)
        assert str(explanation).endswith("This is attempt 2.")

    told(main)


def test_large_trees_are_cut_and_say_so() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        explanation = await after(1, total.remote(*[work.remote(LONG_S) for _ in range(30)]))
        assert len(explanation.waits_for) == 10
        assert explanation.more == 20
        assert str(explanation).splitlines()[-1] == "  And 20 more."
        chain: Any = work.remote(LONG_S)
        for _ in range(300):
            chain = total.remote(chain)
        assert len(str(await after(1, chain)).splitlines()) < 40

    told(main, num_cpus=1)


def test_what_two_wait_for_is_told_once() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        shared = work.remote(LONG_S)
        text = await text_after(
            1, add.remote(total.remote(shared), total.options(name="other").remote(shared))
        )
        assert text.splitlines()[1:] == [
            "  'total' waits for its argument:",
            "    'work' has been running for 1.0 s on pid P.",
            "  'other' waits for its argument:",
            "    'work' is told of above.",
        ]

    told(main)


# --- deaths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_an_explanation_comes_in_bounded_time_whoever_dies_meanwhile(seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        one: Any = parent.remote(2, 2)
        other: Any = aparent.remote()
        ref = total.remote(one, other, work.remote(LONG_S))
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        asking = [asyncio.ensure_future(ray.aio.explain(ref, stack=True)) for _ in range(2)]
        graph = asyncio.ensure_future(ray.aio.wait_graph())
        loop.call_later(0.0005 * (seed % 5), cluster.kill_worker)
        for explanation in await asyncio.gather(*asking):
            assert explanation.state == "arguments"
            assert len(str(explanation).splitlines()) >= 4
        assert str(await graph)
        assert loop.time() - began <= 2.5

    simulate(main, seed=seed, num_cpus=6)


def test_a_dead_owner_is_named() -> None:
    @ray.remote
    def owner() -> list[Any]:
        return [work.remote(LONG_S)]

    async def main(cluster: SimulatedCluster) -> None:
        (ref,) = await owner.remote()
        await asyncio.sleep(1)
        assert (await ray.aio.explain(ref)).state == "running"
        process_id = ref._record.home[0]
        pid = next(s.identity.pid for s in cluster.sessions if s.identity.process_id == process_id)
        cluster.kill_worker(pid)
        explanation = await after(1, ref)
        assert explanation.state == "failed"
        assert "OwnerDiedError" in str(explanation)

    told(main)


def test_nothing_is_left_when_the_node_dies() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = work.remote(LONG_S)
        await asyncio.sleep(1)
        cluster.kill_node()
        explanation = await after(1, ref)
        assert explanation.state == "failed"

    told(main)
