"""util.as_completed and util.map_unordered: values as they come, failures at their turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.process import current
from asyncray.util import as_completed, map_unordered
from tests.cluster.gates import Gates, fail, least, same, seconds, waiters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncray import ObjectRef


pytestmark = pytest.mark.usefixtures("shared_ray")

Refs = list["ObjectRef[Any]"]


@pytest.fixture
def gates(shared_ray: object, gates: Gates) -> Gates:
    return gates


def finished(count: int) -> Refs:
    """References that are done; the values are the numbers from 0."""
    return [ray.put(i) for i in range(count)]


class TestAsCompleted:
    def test_gives_values_as_they_come(self, gates: Gates) -> None:
        held = [gates.new() for _ in range(3)]
        values = as_completed([gate.ref(i) for i, gate in enumerate(held)])
        found = []
        for i in (1, 2, 0):
            held[i].open()
            found.append(next(values))
        assert found == [1, 2, 0]
        assert list(values) == []

    def test_gives_the_references_themselves_on_request_and_raises_nothing(self) -> None:
        refs = [same.remote(1), fail.remote("no"), ray.put(2)]
        assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)

    def test_raises_a_failure_at_its_turn(self, gates: Gates) -> None:
        held = [gates.new() for _ in range(2)]
        values = as_completed([held[1].ref(ValueError("its turn")), held[0].ref("first")])
        held[0].open()
        assert next(values) == "first"
        held[1].open()
        with pytest.raises(ValueError, match="its turn"):
            next(values)

    def test_gives_a_reference_as_often_as_it_stands_there(self, gates: Gates) -> None:
        gate = gates.new()
        late, done = gate.ref("late"), ray.put("done")
        values = as_completed([late, done, late, done, late])
        assert [next(values), next(values)] == ["done", "done"]
        gate.open()
        assert list(values) == ["late"] * 3

    def test_of_nothing_ends_at_once(self) -> None:
        assert list(as_completed([])) == []

    def test_takes_any_iterable(self) -> None:
        assert sorted(as_completed(same.remote(i) for i in range(3))) == [0, 1, 2]

    def test_that_is_left_early_leaves_nobody_waiting(self, gates: Gates) -> None:
        late = [gates.pending(), gates.pending()]
        for value in as_completed([*late, ray.put(1), late[0]]):
            assert value == 1
            break
        assert [waiters(ref) for ref in late] == [[], []]

    def test_that_failed_leaves_nobody_waiting(self, gates: Gates) -> None:
        late = gates.pending()
        with pytest.raises(ValueError, match="no"):
            list(as_completed([late, fail.remote("no")]))
        assert waiters(late) == []

    def test_lets_go_of_what_it_has_given(self) -> None:
        session = current().session
        assert session is not None
        count = 200
        values = as_completed([same.remote(f"let go {i}") for i in range(count)])
        for _ in range(count - 1):
            next(values)
        session.owner.drain_dropped()
        held = [
            record
            for record in session.owner.objects.owned.values()
            if str(record.value).startswith("let go")
        ]
        assert len(held) <= 2
        values.close()  # type: ignore[attr-defined]

    def test_refuses_what_is_no_reference_at_the_call(self) -> None:
        wrong: list[Any] = [[1], [ray.put(1), None]]
        for refs in wrong:
            with pytest.raises(TypeError, match=r"as_completed takes references"):
                as_completed(refs)
        for size in (0, -1):
            with pytest.raises(ValueError, match=r"chunk_size must be > 0"):
                as_completed([], chunk_size=size)

    def test_on_a_loop_gives_what_is_there_and_names_the_remedy_for_the_rest(self, gates: Gates) -> None:
        late, done = gates.pending(), ray.put(1)

        async def on_a_loop() -> None:
            values = as_completed([late, done])
            assert next(values) == 1
            with pytest.raises(RuntimeError, match=r"async for ref in asyncray\.aio\.as_completed"):
                next(values)

        asyncio.run(on_a_loop())
        assert waiters(late) == []

    @pytest.mark.slow
    def test_costs_the_same_for_each_reference_of_few_and_of_many(self) -> None:
        def per_ref(refs: Refs) -> float:
            return seconds(lambda: list(as_completed(refs))) / len(refs)

        many = finished(100_000)
        few = many[:1000]
        assert least(lambda: per_ref(many)) < 5 * least(lambda: per_ref(few))

    @pytest.mark.slow
    def test_costs_no_more_when_it_waits_for_each_of_many(self) -> None:
        """Every value is taken before the next one comes, so that each turn waits."""

        def per_ref(count: int) -> float:
            def take_all() -> None:
                queue = [same.remote(i) for i in range(count)]
                for _ in as_completed(queue):
                    pass

            return seconds(take_all) / count

        assert least(lambda: per_ref(20_000)) < 5 * least(lambda: per_ref(1000))


class TestMapUnordered:
    def test_gives_the_result_for_every_item(self) -> None:
        assert sorted(map_unordered(same, range(250))) == list(range(250))
        assert sorted(map_unordered(same, range(250), backpressure_size=None)) == list(range(250))
        assert list(map_unordered(same, [])) == []

    def test_takes_items_only_as_there_is_room(self) -> None:
        taken: list[int] = []

        def items() -> Iterator[int]:
            for i in range(100):
                taken.append(i)
                yield i

        values = map_unordered(same, items(), backpressure_size=3)
        assert taken == []
        for count in range(1, 50):
            next(values)
            assert len(taken) <= count + 2
        values.close()  # type: ignore[attr-defined]

    def test_raises_a_failure_at_its_turn(self) -> None:
        with pytest.raises(ValueError, match="of it"):
            list(map_unordered(fail, ["of it"]))

    def test_passes_on_what_the_items_raise(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            list(map_unordered(same, items()))

    def test_that_is_left_early_leaves_nobody_waiting(self, gates: Gates) -> None:
        late = gates.pending("late")
        refs: list[Any] = []

        def items() -> Iterator[Any]:
            for value in (late, 1):
                refs.append(value)
                yield value

        @ray.remote(num_cpus=0)
        def through(value: Any) -> Any:
            return value

        for value in map_unordered(through, items()):
            assert value == 1
            break
        assert len(waiters(late)) == 1, "only the task that depends on it"

    def test_refuses_what_cannot_be(self) -> None:
        wrong: Any = len
        with pytest.raises(TypeError, match=r"map_unordered takes a remote function"):
            map_unordered(wrong, [1])
        for size in (0, -1):
            with pytest.raises(ValueError, match=r"backpressure_size must be > 0"):
                map_unordered(same, [1], backpressure_size=size)
