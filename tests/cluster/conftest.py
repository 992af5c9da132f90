"""How a test of real processes hears of its tasks, and holds them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.beacons import Beacon
from tests.cluster.doors import Doors
from tests.cluster.gates import Gate, Gates
from tests.cluster.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what tasks tell."""
    made = Beacon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def other_beacon(tmp_path: Path) -> Iterator[Beacon]:
    """Hear what other tasks tell."""
    made = Beacon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    """Meet tasks at doors."""
    made = Doors(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Hold tasks up."""
    made = Gate(tmp_path)
    yield made
    made.open()
    made.close()


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    """Hold tasks up, at as many gates as needed."""
    made = Gates(tmp_path)
    yield made
    made.close()


@pytest.fixture
def tables(shared_ray: object) -> Iterator[Tables]:
    """See what the shared session holds; at the end of the test that must be nothing."""
    made = Tables()
    yield made
    made.clear_attics()
    made.settle()
