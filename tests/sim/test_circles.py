"""Who waits for whom under virtual time: the wait graph, and the warnings of circles."""

from __future__ import annotations

import asyncio
import logging
import pickle

import pytest

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.tasks import afib, fib, outer, work
from tests.sim.waiting import (
    LONG_S,
    aparent,
    holder,
    lines,
    nodes_of,
    opens,
    outcome,
    parent,
    passed,
    plain,
    post,
    slotted,
    told,
    total,
)

# --- circles ----------------------------------------------------------------------------------------------


def test_a_task_and_the_holder_of_what_it_needs_are_a_circle(caplog: pytest.LogCaptureFixture) -> None:
    async def main(cluster: SimulatedCluster) -> tuple[str, str]:
        ref = holder.remote()
        await asyncio.sleep(4)
        graph = await ray.aio.wait_graph()
        assert [[node.name for node in nodes_of(graph, circle)] for circle in graph.cycles] == [
            ["holder", "holder_child"]
        ]
        assert not caplog.messages
        await asyncio.sleep(2)
        (warning,) = caplog.messages
        await asyncio.sleep(1000)
        assert caplog.messages == [warning]
        return plain(await ray.aio.explain(ref)), plain(warning)

    with caplog.at_level(logging.WARNING, "asyncray"):
        text, warning = told(main, resources={"slot": 1})
    assert text.splitlines()[1:] == [
        "  'holder_child' waits for resources: it needs slot: 1, and free are slot: 0 of 1.",
        "    'holder' on pid P holds slot: 1, and waits for 'holder_child'.",
    ]
    assert warning == (
        "tasks wait for each other, and none of them can go on: 'holder' (pid P) waits for the result of "
        "'holder_child'; 'holder_child' waits for slot, which 'holder' (pid P) holds. Cancel one of them, or "
        "see asyncray.util.wait_graph()"
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_knot_of_several_circles_is_told_of_once(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [holder.remote(1.0 + number) for number in range(3)]
        joined = passed.options(num_cpus=0).remote([refs[0]])
        await asyncio.sleep(100)
        assert len(caplog.messages) == 1
        assert len((await ray.aio.wait_graph()).cycles) == 1
        assert (await ray.aio.explain(joined)).state == "blocked"
        ray.cancel(*refs)
        await asyncio.sleep(100)
        assert str(await ray.aio.wait_graph()) == "Nothing waits for anything."

    with caplog.at_level(logging.WARNING, "asyncray"):
        simulate(main, seed=seed, resources={"slot": 3})
    assert len(caplog.messages) == 1


@pytest.mark.filterwarnings("ignore:an ObjectRef was pickled by other means")
def test_two_tasks_that_wait_for_each_other_are_a_circle(caplog: pytest.LogCaptureFixture) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        one = opens.options(name="one").remote([post.remote()])
        two = passed.options(name="two").remote([one])
        notes.letters.append(pickle.dumps(two))
        await asyncio.sleep(20)
        (warning,) = caplog.messages
        assert warning.startswith("tasks wait for each other, and none of them can go on: ")
        graph = await ray.aio.wait_graph()
        (circle,) = graph.cycles
        assert {node.name for node in nodes_of(graph, circle)} == {"one", "two"}
        explanation = await ray.aio.explain(one)
        waits = "has been running for 20.0 s on pid P, and has been waiting there for 20.0 s for 1 reference:"
        assert plain(explanation) == lines(
            f"'one' {waits}", f"  'two' {waits}", "    'one', which is told of above: they wait in a circle."
        )
        ray.cancel(one)
        assert isinstance(await outcome(two), ray.exceptions.TaskCancelledError)

    notes.letters.clear()
    with caplog.at_level(logging.WARNING, "asyncray"):
        told(main, num_cpus=3)


def test_those_who_wait_for_long_and_not_for_each_other_are_let_be(caplog: pytest.LogCaptureFixture) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [parent.remote(2, 2), aparent.remote(), passed.remote([work.remote(LONG_S)])]
        await ray.aio.get(refs)

    with caplog.at_level(logging.WARNING, "asyncray"):
        told(main)
    assert caplog.messages == []


@pytest.mark.parametrize("seed", range(20))
def test_looks_at_every_moment_find_no_circle_where_there_is_none(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        refs = [fib.remote(5), afib.remote(5), outer.remote(0.1), parent.remote(2, 1), aparent.remote()]
        boxes = [passed.options(num_cpus=seed % 2).remote([ref]) for ref in refs]
        await ray.aio.get([*refs, *boxes, *(slotted.remote(0.01 * n) for n in range(5))])

    with caplog.at_level(logging.WARNING, "asyncray"):
        simulate(main, seed=seed, num_cpus=1 + seed % 3, resources={"slot": 1}, wait_check_s=0.002)
    assert caplog.messages == []


def test_nobody_looks_when_that_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = holder.remote()
        await asyncio.sleep(1000)
        assert len((await ray.aio.wait_graph()).cycles) == 1
        del ref

    with caplog.at_level(logging.WARNING, "asyncray"):
        told(main, resources={"slot": 1}, wait_check_s=0)
    assert caplog.messages == []


def test_the_wait_graph_tells_of_all_that_waits() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        assert str(await ray.aio.wait_graph()) == "Nothing waits for anything."
        slow = work.remote(LONG_S)
        ref = total.remote(slow)
        await asyncio.sleep(1)
        graph = await ray.aio.wait_graph()
        assert plain(graph) == "'total' waits for its argument 'work' (pid P)."
        assert [(node.kind, node.name, node.state) for node in graph.nodes] == [
            ("task", "work", "running"),
            ("task", "total", "arguments"),
        ]
        (edge,) = graph.edges
        assert edge.reason == "argument"
        assert (await cluster.run_blocking(ray.util.wait_graph)).edges == graph.edges
        del ref

    told(main)
