"""Processes that keep what they are given and pass it on: for machines that check who keeps what alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import asyncray as ray
from asyncray.exceptions import ObjectFreedError, OwnerDiedError
from asyncray.process import current
from asyncray.wire.stored import Stored

#: Bytes of a value that lies in the store.
LARGE = 120_000


def value_of(number: int, *, large: bool) -> dict[str, Any]:
    """The value of object *number*."""
    return {"number": number, "data": np.full(LARGE if large else 1, number % 251, "u1")}


def number_in(value: dict[str, Any]) -> int:
    """Which object's value this is, whole."""
    assert (value["data"] == value["number"] % 251).all(), "pages were used again while somebody read them"
    return int(value["number"])


@dataclass(frozen=True)
class Made:
    """What is known of a new object."""

    #: Its number at its owner.
    record: int
    #: Whether it lies in the store.
    stored: bool


def made(ref: Any) -> Made:
    """What there is to know of an object of this process."""
    return Made(ref._record.number, type(ref._record.value) is Stored)


class Keeper:
    """A process that keeps references and values, each in a slot, until it is told to drop it."""

    def __init__(self) -> None:
        self.slots: dict[int, Any] = {}
        #: Slots that were to be dropped before what is for them had come.
        self.early: set[int] = set()

    def identity(self) -> tuple[bytes, int]:
        session = current().session
        assert session is not None
        return session.identity.process_id, session.identity.pid

    def put(self, slot: int, number: int, large: bool) -> Made:
        ref = ray.put(value_of(number, large=large))
        self.keep(slot, [ref])
        return made(ref)

    def keep(self, slot: int, boxed: list[Any]) -> None:
        if slot in self.early:
            self.early.discard(slot)
            return
        self.slots[slot] = boxed[0]

    def keep_inner(self, slot: int, outer: list[Any]) -> None:
        self.keep(slot, ray.get(outer[0]))

    def keep_value(self, slot: int, value: Any) -> None:
        self.keep(slot, [value])

    def keep_read(self, slot: int, boxed: list[Any]) -> None:
        self.keep(slot, [ray.get(boxed[0])])

    def give(self, slot: int) -> list[Any]:
        return [self.slots[slot]]

    def pass_on(self, slot: int, to: Any, its_slot: int, way: str) -> None:
        send(self.slots[slot], to, its_slot, way)

    def drop(self, slot: int) -> None:
        if self.slots.pop(slot, None) is None:
            self.early.add(slot)

    def look(self) -> dict[int, str | int]:
        """The numbers of the objects whose values can be read here, by slot, or why they cannot."""
        return {slot: number_or_error(held) for slot, held in self.slots.items()}


def number_or_error(held: Any) -> str | int:
    """Which object is held, or why its value cannot be had."""
    if not isinstance(held, ray.ObjectRef):
        return number_in(held)
    try:
        return number_in(ray.get(held))
    except (OwnerDiedError, ObjectFreedError) as error:
        return type(error).__name__


def send(ref: Any, to: Any, slot: int, way: str) -> Any:
    """Send a reference, or its value, to a keeper; returns the reference to the call's end."""
    if way == "argument":
        return to.keep.remote(slot, [ref])
    if way == "value":
        return to.keep_inner.remote(slot, [ray.put([ref])])
    if way == "closure":
        return to.keep.remote(slot, ray.remote(lambda: [ref]).remote())
    if way == "direct":
        return to.keep_value.remote(slot, ref)
    assert way == "read"
    return to.keep_read.remote(slot, [ref])
