"""Tasks whose results lie in the store, and the loss of those."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray.state.objects import PENDING
from asyncray.testing import SimulatedCluster, sleep
from tests.sim import notes

if TYPE_CHECKING:
    from asyncray import ObjectRef

#: More than lives in its owner's memory.
LARGE = 200_000


def large(seed: int) -> bytes:
    return bytes([seed]) * LARGE


@ray.remote
def made(seed: int, seconds: float = 0.0) -> bytes:
    notes.note("made")
    sleep(seconds)
    return large(seed)


@ray.remote
def plus(value: bytes, more: int) -> bytes:
    notes.note("plus")
    return large(value[0] + more)


@ray.remote
def first(value: bytes) -> int:
    return value[0]


@ray.remote
def first_inside(values: list[Any]) -> int:
    value: bytes = ray.get(values[0])
    return value[0]


@ray.remote
def large_of(values: list[int]) -> bytes:
    return large(values[0])


@ray.remote
def large_inside(values: list[Any]) -> bytes:
    return large(ray.get(values[0])[0])


def owner_of(ref: ObjectRef[Any]) -> Any:
    owner: Any = ref._record.owner
    return owner.session.owner


def lose(*refs: ObjectRef[Any]) -> None:
    """What a reader does that cannot have a value any more."""
    for ref in refs:
        record: Any = ref._record
        assert owner_of(ref).remaking.lost(record, record.value, "the disk has failed")


def is_pending(ref: ObjectRef[Any]) -> bool:
    return ref._record.state == PENDING


async def kept(cluster: SimulatedCluster) -> int:
    """How many tasks the driver could run again, when it has accounted for dropped references."""
    gc.collect()
    await asyncio.sleep(1)
    cluster.driver.owner.objects.lineage.validate()
    return len(cluster.driver.owner.objects.lineage)
