"""Arrow tables and pandas blocks are read where they lie, without a copy, where those are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from tests.cluster.tables import Tables, counted, session

if TYPE_CHECKING:
    from collections.abc import Iterator

np = pytest.importorskip("numpy")

MIB = 1 << 20
ROWS = 200_000


@pytest.fixture
def tables() -> Iterator[Tables]:
    with counted(object_store_memory=100 * MIB) as tables:
        yield tables


def lies_in_store(address: int) -> bool:
    """Whether a place in memory is one of the store's, where nobody can write."""
    arena: Any = session().store._arena
    return bool(arena._read <= address < arena._read + arena.size)


class TestArrow:
    """Tables, of numbers and of text."""

    @pytest.fixture
    def pa(self) -> Any:
        return pytest.importorskip("pyarrow")

    def table(self, pa: Any) -> Any:
        numbers = np.arange(ROWS)
        return pa.table({"number": numbers, "half": numbers / 2, "text": [f"row {n}" for n in range(ROWS)]})

    def buffers(self, table: Any) -> list[Any]:
        """The large ones: a small one is part of the pickle."""
        chunks = [chunk for column in table.columns for chunk in column.chunks]
        found = [buffer for chunk in chunks for buffer in chunk.buffers() if buffer is not None]
        return [buffer for buffer in found if buffer.size >= MIB]

    def test_a_table_that_was_put_is_read_without_a_copy(self, pa: Any, tables: Tables) -> None:
        table = self.table(pa)
        read = ray.get(ray.put(table))
        assert read.equals(table)
        buffers = self.buffers(read)
        assert len(buffers) >= 3
        assert all(lies_in_store(buffer.address) for buffer in buffers)
        assert not any(buffer.is_mutable for buffer in buffers)

    def test_a_table_goes_to_a_task_and_comes_back(self, pa: Any, tables: Tables) -> None:
        table = self.table(pa)

        @ray.remote
        def upper_half(table: Any) -> list[Any]:
            places = [lies_in_store(buffer.address) for buffer in TestArrow().buffers(table)]
            return [all(places), table.slice(ROWS // 2)]

        in_store, half = ray.get(upper_half.remote(ray.put(table)))
        assert in_store
        assert half.equals(table.slice(ROWS // 2))
        assert all(lies_in_store(buffer.address) for buffer in self.buffers(half))

    def test_a_column_outlives_table_and_reference(self, pa: Any, tables: Tables) -> None:
        column = ray.get(ray.put(self.table(pa))).column("number").chunk(0)
        others = [ray.put(np.zeros(4 * MIB, "u1")) for _ in range(10)]
        assert column.to_numpy()[-1] == ROWS - 1
        assert (column.to_numpy() == np.arange(ROWS)).all()
        del others, column


class TestPandas:
    """Frames, whose blocks are arrays."""

    @pytest.fixture
    def pd(self) -> Any:
        return pytest.importorskip("pandas")

    def frame(self, pd: Any) -> Any:
        numbers = np.arange(ROWS)
        return pd.DataFrame({"number": numbers, "half": numbers / 2, "odd": numbers % 2 == 1})

    def places(self, frame: Any) -> list[bool]:
        return [lies_in_store(frame[name].to_numpy().ctypes.data) for name in ("number", "half", "odd")]

    def test_a_frame_that_was_put_is_read_without_a_copy(self, pd: Any, tables: Tables) -> None:
        frame = self.frame(pd)
        read = ray.get(ray.put(frame))
        pd.testing.assert_frame_equal(read, frame)
        assert self.places(read) == [True] * 3
        assert not read["number"].to_numpy().flags.writeable

    def test_a_frame_goes_to_a_task_and_comes_back(self, pd: Any, tables: Tables) -> None:
        frame = self.frame(pd)

        @ray.remote
        def doubled(frame: Any) -> list[Any]:
            return [TestPandas().places(frame), frame.assign(number=frame["number"] * 2)]

        places, back = ray.get(doubled.remote(frame))
        assert places == [True] * 3
        pd.testing.assert_frame_equal(back, frame.assign(number=frame["number"] * 2))
        assert self.places(back) == [True] * 3

    def test_a_column_can_be_changed_after_a_copy_and_the_object_stays(self, pd: Any, tables: Tables) -> None:
        ref = ray.put(self.frame(pd))
        mine = ray.get(ref).copy()
        mine.loc[0, "number"] = -1
        assert ray.get(ref)["number"].iloc[0] == 0
        with pytest.raises(ValueError, match="read-only"):
            ray.get(ref)["number"].to_numpy()[0] = 1

    def test_text_comes_back_equal(self, pd: Any, tables: Tables) -> None:
        frame = pd.DataFrame(
            {"text": [f"row {n}" for n in range(20_000)], "when": pd.Timestamp("2026-01-01")}
        )
        pd.testing.assert_frame_equal(ray.get(ray.put(frame)), frame)
