"""The table of objects: their sizes, where they are, who owns and who holds them, which line made them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray import util
from tests.cluster.tables import await_registration, counted, own, stash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@pytest.fixture
def session() -> Iterator[ModuleType]:
    with counted(_system_config={"record_call_sites": 1}):
        yield ray


def rows() -> dict[str, list[str]]:
    """The table's rows by object id."""
    table = util.memory_summary().splitlines()[4:]
    return {line.split()[0]: line.split(maxsplit=6)[1:] for line in table}


def test_each_object_is_listed(session: Any) -> None:
    small, large = ray.put([1]), ray.put(b"x" * 1_000_000)
    told = rows()
    assert told[small.hex()][1] == "owner"
    size, place, owner, refs, held_by, line = told[large.hex()]
    assert 1_000_000 <= int(size) < 1_001_000
    assert (place, owner, refs, held_by) == ("store", str(os.getpid()), "1", "-")
    assert line.startswith(__file__)
    assert line.endswith("test_each_object_is_listed")
    assert "2 objects" in util.memory_summary(stats_only=True)


def test_borrowers_are_named(session: Any) -> None:
    ref = ray.put(b"x" * 1_000_000)
    pid = ray.get(stash.remote("kept", [ref]))
    assert rows()[ref.hex()][4] == str(pid)


def test_objects_of_workers_are_listed(session: Any) -> None:
    [inner] = ray.get(own.remote("value"))
    await_registration(inner)
    told = rows()[inner.hex()]
    assert told[2] != str(os.getpid())
    assert told[4] == str(os.getpid())


def test_without_being_asked_no_line_is_remembered() -> None:
    with counted():
        ref = ray.put([1])
        assert rows()[ref.hex()][5] == "-"
        del ref
