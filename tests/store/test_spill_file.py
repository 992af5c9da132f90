"""The spill file: pieces come back as they were, nothing has a name, freed bytes leave the disk."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from asyncray.exceptions import OutOfDiskError
from asyncray.store.spill_file import SpillFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SpillFile]:
    made = SpillFile(str(tmp_path), 1.0)
    yield made
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_pieces_of_any_size_come_back_in_any_order(file: SpillFile) -> None:
    rng = random.Random(1)
    pieces = [rng.randbytes(rng.choice((1, 100, 4096, 4097, 100_000))) for _ in range(50)]
    places = [file.write([memoryview(piece)[:10], memoryview(piece)[10:]]) for piece in pieces]
    for number in rng.sample(range(50), 50):
        into = memoryview(bytearray(len(pieces[number])))
        file.read(into, *places[number])
        assert bytes(into) == pieces[number]
        file.free(places[number][0], len(pieces[number]))
    assert file._fd < 0


def test_a_freed_piece_leaves_the_disk_at_once(file: SpillFile) -> None:
    places = [file.write([memoryview(b"x" * 1_000_000)]) for _ in range(4)]
    before = os.fstat(file._fd).st_blocks
    file.free(places[1][0], 1_000_000)
    assert os.fstat(file._fd).st_blocks <= before * 0.8
    into = memoryview(bytearray(1_000_000))
    file.read(into, *places[2])


def test_changed_bytes_are_told_from_written_ones(file: SpillFile) -> None:
    at, checksum = file.write([memoryview(b"written")])
    os.pwrite(file._fd, b"x", at + 3)
    with pytest.raises(OSError, match="checksum"):
        file.read(memoryview(bytearray(7)), at, checksum)


def test_a_piece_that_is_cut_off_is_named(file: SpillFile) -> None:
    at, checksum = file.write([memoryview(b"written")])
    os.ftruncate(file._fd, 3)
    with pytest.raises(OSError, match="too short"):
        file.read(memoryview(bytearray(7)), at, checksum)


def test_a_disk_too_full_is_refused(tmp_path: Path) -> None:
    file = SpillFile(str(tmp_path), 1e-9)
    with pytest.raises(OutOfDiskError, match="more than 0% full"):
        file.write([memoryview(b"x")])
    file.close()


def test_after_its_end_nothing_is_written(file: SpillFile) -> None:
    at, checksum = file.write([memoryview(b"x")])
    file.close()
    with pytest.raises(OutOfDiskError, match="ended"):
        file.write([memoryview(b"x")])
    with pytest.raises(OSError, match="ended"):
        file.read(memoryview(bytearray(1)), at, checksum)
    file.free(at, 1)
