"""Tasks that wait, for simulations, and what their tests look at."""

from __future__ import annotations

import asyncio
import pickle
import re
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray.testing import SimulatedCluster, simulate, sleep
from tests.sim import notes
from tests.sim.tasks import work

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncray import ObjectRef

LONG_S = 100.0


@ray.remote
def total(*values: int) -> int:
    return sum(values)


@ray.remote
def parent(count: int, enough: int) -> None:
    """Wait for some of its children, which take long."""
    ray.wait([work.remote(LONG_S) for _ in range(count)], num_returns=enough)


@ray.remote(resources={"slot": 1}, num_cpus=0)
def slotted(seconds: float) -> Any:
    """Hold a slot while a child works that needs none."""
    return ray.get(work.remote(seconds))


@ray.remote
async def aparent() -> None:
    """Wait for two children at once."""
    await asyncio.gather(work.remote(LONG_S), work.remote(LONG_S))


@ray.remote
async def atwice() -> None:
    """Wait twice for the same child."""
    ref = work.remote(LONG_S)
    await asyncio.gather(ref, ray.aio.get([ref]))


@ray.remote
def passed(box: list[ObjectRef[Any]]) -> Any:
    """Wait for a reference that came inside a list."""
    return ray.get(box[0])


@ray.remote
def stubborn(seconds: float) -> None:
    """Go on, whatever is raised."""
    try:
        sleep(seconds)
    except KeyboardInterrupt:
        sleep(seconds)


@ray.remote(resources={"slot": 1}, num_cpus=0)
def holder(seconds: float = 0) -> Any:
    """Hold what its child needs, and call for that after some time."""
    sleep(seconds)
    return ray.get(holder_child.remote())


@ray.remote(resources={"slot": 1}, num_cpus=0)
def holder_child() -> int:
    return 1


@ray.remote
async def post() -> list[Any]:
    """Deliver the first letter."""
    while not notes.letters:  # noqa: ASYNC110 - a simulated process has no event of another's
        await asyncio.sleep(0.1)
    return [pickle.loads(notes.letters[0])]


@ray.remote
def opens(box: list[ObjectRef[Any]]) -> Any:
    """Wait for a letter, and then for what is in it."""
    (ref,) = ray.get(box[0])
    return ray.get(ref)


@ray.remote
def asks_of_itself(box: list[ObjectRef[Any]]) -> str:
    return str(ray.util.explain(box[0]))


async def text_after(seconds: float, ref: ObjectRef[Any]) -> str:
    await asyncio.sleep(seconds)
    return plain(await ray.aio.explain(ref))


def lines(*texts: str) -> str:
    return "\n".join(texts)


def told(main: Callable[[SimulatedCluster], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    return simulate(main, delay_s=0.0, **options)


async def after(seconds: float, ref: ObjectRef[Any], **options: Any) -> Any:
    await asyncio.sleep(seconds)
    return await ray.aio.explain(ref, **options)


async def outcome(ref: ObjectRef[Any]) -> BaseException | None:
    await asyncio.wait([ref])  # type: ignore[type-var]
    return ref.exception()


def nodes_of(graph: Any, circle: Any) -> list[Any]:
    by_id = {node.id: node for node in graph.nodes}
    return [by_id[one] for one in circle]


def plain(text: object) -> str:
    """A text in which all processes are called P."""
    return re.sub(r"pid \d+", "pid P", str(text))


def name_of(ref: ObjectRef[Any]) -> str:
    binary = ref.binary()
    return f"{binary[:4].hex()}:{int.from_bytes(binary[16:24], 'big')}"
