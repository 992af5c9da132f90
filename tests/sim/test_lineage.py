"""Objects that are lost are made again, in simulation: who waits, what is made first, what is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import asyncray as ray
from asyncray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    ObjectReconstructionFailedError,
)
from asyncray.testing import SimulatedCluster, simulate
from tests.sim import notes
from tests.sim.lost import (
    first,
    first_inside,
    is_pending,
    kept,
    large,
    large_inside,
    large_of,
    lose,
    made,
    owner_of,
    plus,
)
from tests.sim.tasks import now
from tests.sim.waiting import plain

# --- one run for all that wait ----------------------------------------------------------------------------


def test_all_that_read_a_lost_object_wait_for_one_run() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(3, 5.0)
        await ref
        record: Any = ref._record
        value = record.value
        lose(ref)
        # A reader that had the old value in its hand finds it lost once more: nothing further happens.
        assert owner_of(ref).remaking.lost(record, value, "again")
        assert is_pending(ref)
        assert not ref.done()
        readers: list[Any] = [ref, ray.aio.get([ref]), first.remote(ref), first_inside.remote([ref])]
        readers += [cluster.run_blocking(ray.get, ref), ref.as_future()]
        got = await asyncio.gather(*readers)
        assert got == [large(3), [large(3)], 3, 3, large(3), large(3)]
        assert notes.noted["made"] == 2

    simulate(main)


def test_wait_tells_the_truth_while_a_value_is_made_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref, other = made.remote(3, 5.0), made.remote(4)
        await ray.aio.get([ref, other])
        lose(ref)
        assert await ray.aio.wait([ref, other], num_returns=2, timeout=1) == ([other], [ref])
        began = now()
        assert await ray.aio.wait([ref, other], num_returns=2) == ([ref, other], [])
        assert now() - began == pytest.approx(4, abs=0.1)
        lose(ref)
        with pytest.raises(GetTimeoutError):
            await ray.aio.get(ref, timeout=1)
        assert await ref == large(3)

    simulate(main)


def test_a_value_lost_between_its_arrival_and_the_look_is_waited_for_within_the_timeout() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.options(max_retries=10).remote(3, 5.0)
        await ref
        references = cluster.driver.references
        real = references.load
        losses = iter([ref])

        def load(record: Any) -> Any:
            for each in losses:
                lose(each)
            return real(record)

        references.load = load  # type: ignore[method-assign]
        with pytest.raises(GetTimeoutError):
            await ray.aio.get([ref], timeout=2)
        assert await ray.aio.get([ref], timeout=4) == [large(3)]
        for get in (ref.result, lambda: ray.get(ref, timeout=10), lambda: ray.get([ref])[0]):
            losses = iter([ref])
            assert await cluster.run_blocking(get) == large(3)
        losses = iter([ref])
        assert await ref == large(3)
        losses = iter([ref])
        assert await asyncio.wrap_future(ref.future()) == large(3)
        assert notes.noted["made"] == 7

    simulate(main)


def test_explain_says_that_a_value_is_made_again() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        one = made.remote(3, 5.0)
        two = plus.remote(one, 1)
        await two
        lose(one)
        await asyncio.sleep(1)
        text = plain(await ray.aio.explain(one))
        again = "The value of 'made' was there and was lost: it is made again."
        assert text == f"{again} 'made' has been running for 1.0 s on pid P. This is attempt 2."
        del one
        await two
        await asyncio.sleep(10)
        lose(two)
        await asyncio.sleep(1)
        text = plain(await ray.aio.explain(two))
        assert text.startswith(
            "The value of 'plus' was there and was lost: it is made again. 'plus' waits for its"
        )
        assert again in text
        task_id = two.task_id()
        await two
        assert two.task_id() == task_id

    simulate(main, delay_s=0.0)


def test_another_process_that_reads_waits_for_the_run() -> None:
    class Holder:
        async def keep(self, refs: list[Any]) -> None:
            self.refs = refs

        async def read(self) -> int:
            (ref,) = self.refs
            value: bytes = await ref
            return value[0]

        async def is_there(self) -> bool:
            return bool((await ray.aio.wait(self.refs, timeout=0.1))[0])

    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(3, 5.0)
        await ref
        holder: Any = ray.remote(Holder).remote()
        await holder.keep.remote([ref])
        lose(ref)
        assert not await holder.is_there.remote()
        assert await holder.read.remote() == 3
        assert notes.noted["made"] == 2

    simulate(main)


def test_a_question_that_was_about_to_be_answered_waits_for_the_run() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(3, 5.0)
        await ref
        peers = cluster.driver.peers
        real = peers.fetching._send_answers

        def lose_first(connection: Any) -> None:
            peers.fetching._send_answers = real  # type: ignore[method-assign]
            lose(ref)
            real(connection)

        peers.fetching._send_answers = lose_first  # type: ignore[method-assign]
        assert await first_inside.remote([ref]) == 3
        assert notes.noted["made"] == 2

    simulate(main)


# --- what has to be made first ----------------------------------------------------------------------------


def test_a_chain_of_which_nothing_else_is_left_is_made_from_its_beginning() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(1)
        for _ in range(30):
            ref = plus.remote(ref, 1)
        assert (await ref)[0] == 31
        assert await kept(cluster) == 31
        assert cluster.driver.statistics().objects_owned == 1
        lose(ref)
        assert (await ref)[0] == 31
        assert (notes.noted["made"], notes.noted["plus"]) == (2, 60)
        assert await kept(cluster) == 31
        assert cluster.driver.statistics().objects_owned == 1
        del ref
        assert await kept(cluster) == 0

    simulate(main)


def test_an_argument_that_two_lost_objects_need_is_made_once() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        source = made.remote(1, 5.0)
        refs = [plus.remote(source, 1), plus.remote(source, 2)]
        await ray.aio.get(refs)
        del source
        assert await kept(cluster) == 3
        lose(*refs)
        assert await ray.aio.get(refs) == [large(2), large(3)]
        assert notes.noted["made"] == 2

    simulate(main)


def test_references_inside_arguments_are_made_again_too() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        deep = large_inside.remote([made.remote(7)])
        small = large_inside.remote([ray.put([9])])
        both = large_inside.remote(ray.put([ray.put([5]), made.remote(1)]))
        assert [value[0] for value in await ray.aio.get([deep, small, both])] == [7, 9, 5]
        assert await kept(cluster) == 5
        lose(deep, small, both)
        assert [value[0] for value in await ray.aio.get([deep, small, both])] == [7, 9, 5]
        del deep, small, both
        assert await kept(cluster) == 0

    simulate(main)


def test_a_small_argument_that_the_user_still_holds_is_freed_with_the_last_reference() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        source = ray.put([7])
        ref = large_of.remote(source)
        await ref
        lose(ref)
        assert await ref == large(7)
        assert await source == [7]
        del source, ref
        assert await kept(cluster) == 0
        assert not any(cluster.driver.statistics()[:5])

    simulate(main)


def test_an_argument_that_was_put_must_still_be_there() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        source = ray.put(large(1))
        ref, inside = plus.remote(source, 1), large_inside.remote([source])
        await ray.aio.get([ref, inside])
        lose(ref)
        assert await ref == large(2)
        del source
        await kept(cluster)
        lose(ref, inside)
        freed = "needs an object that was freed.*cannot be made again.*`put`"
        with pytest.raises(ObjectReconstructionFailedError, match=freed):
            await ref
        with pytest.raises(ObjectReconstructionFailedError, match=freed):
            await inside

    simulate(main)


def test_a_large_argument_by_value_is_not_kept_for_another_run() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        # On its loop the driver has an extent for an argument only when one is at hand.
        await ray.aio.put(large(1))
        await kept(cluster)
        ref = plus.remote(large(1), 1)
        await ref
        await kept(cluster)
        assert cluster.driver.statistics().objects_owned == 1
        lose(ref)
        with pytest.raises(ObjectLostError, match="as a large argument"):
            await ref

    simulate(main)


# --- what is kept -----------------------------------------------------------------------------------------


def test_only_tasks_with_large_results_in_scope_are_kept() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        small = [first.remote(made.remote(1)) for _ in range(20)]
        assert await ray.aio.get(small) == [1] * 20
        assert await kept(cluster) == 0
        refs = [made.remote(1) for _ in range(20)]
        await ray.aio.get(refs)
        assert await kept(cluster) == 20
        del refs[5:]
        assert await kept(cluster) == 5
        refs.clear()
        assert await kept(cluster) == 0
        assert cluster.driver.owner.objects.lineage.size_bytes == 0

    simulate(main)


def test_the_oldest_are_forgotten_when_they_take_too_much() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        old = made.remote(1)
        await old
        refs = [plus.remote(old, 1)]
        await refs[0]
        for seed in range(10):
            refs.append(made.remote(seed))
            await refs[-1]
        assert 5 < await kept(cluster) < 10
        assert cluster.driver.owner.objects.lineage.size_bytes <= 5_000
        lose(refs[-1])
        assert await refs[-1] == large(9)
        lose(old, refs[0])
        for ref in (old, refs[0]):
            with pytest.raises(ObjectReconstructionFailedError, match=r"'(made|plus)'.*max_lineage_bytes"):
                await ref

    simulate(main, max_lineage_bytes=5_000)


def test_nothing_is_kept_where_there_is_no_room_for_it() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(1)
        await ref
        assert await kept(cluster) == 0
        lose(ref)
        with pytest.raises(ObjectReconstructionFailedError, match="max_lineage_bytes"):
            await ref

    simulate(main, max_lineage_bytes=0)


def test_an_object_that_is_dropped_while_it_is_made_again_is_freed() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        source = made.remote(1)
        ref = plus.remote(source, 1)
        await ref
        del source
        await kept(cluster)
        lose(ref)
        del ref
        assert await kept(cluster) == 0
        assert not any(cluster.driver.statistics()[:5])

    simulate(main)


def test_a_function_that_holds_its_own_results_keeps_nothing_alive() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def make() -> None:
            results: list[Any] = []

            def step() -> Any:
                return large(len(results) + 1)

            results.append(ray.remote(step).remote())
            await results[0]

        await make()
        assert await kept(cluster) == 0

    simulate(main)


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def make(self) -> bytes:
        self.calls += 1
        return large(self.calls)


class LightMaker(Maker):
    async def make(self) -> bytes:  # type: ignore[override]
        return super().make()


@pytest.mark.parametrize("maker_class", [ray.remote(Maker), ray.remote(isolation="shared")(LightMaker)])
def test_calls_of_actors_are_made_again_where_they_may_run_twice(maker_class: Any) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        maker: Any = maker_class.remote()
        once = maker.make.remote()
        twice = maker.make.options(max_task_retries=2).remote()
        await ray.aio.get([once, twice])
        lose(once, twice)
        with pytest.raises(ObjectReconstructionFailedError, match=r"Maker.make' made it.*max_task_retries=0"):
            await once
        assert await twice == large(3)
        # What may be asked for again keeps no actor alive.
        del maker
        await kept(cluster)
        await asyncio.sleep(5)
        assert not cluster.driver.actors.owned
        assert not cluster.driver.lights.owned
        lose(twice)
        with pytest.raises(ActorDiedError):
            await twice

    simulate(main)


def test_a_destructor_that_has_interrupted_us_is_not_kept_waiting() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        ref = made.remote(1)
        await ref
        record: Any = ref._record
        with owner_of(ref).lock:
            assert not owner_of(ref).remaking.lost(record, record.value, "the disk has failed")
            assert not is_pending(ref)
        await asyncio.sleep(0.001)
        assert is_pending(ref)
        assert await ref == large(1)

    simulate(main)
