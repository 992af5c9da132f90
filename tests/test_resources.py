"""Resources are exact: what is taken and given back sums to what there was."""

import math
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from asyncray.exceptions import InternalError
from asyncray.resources import NodeResources, Resources, to_units

NAMES = st.sampled_from(["CPU", "GPU", "memory", "tokens"])
VECTORS = st.builds(Resources, st.dictionaries(NAMES, st.integers(0, 50_000)))


# ---- quantities ----


@pytest.mark.parametrize(
    ("quantity", "units"),
    [
        (0, 0),
        (1, 10_000),
        (0.0001, 1),
        (0.0003, 3),
        (0.29, 2900),
        (0.1 + 0.2, 3000),
        (2.5, 25_000),
        (1e12, 10**16),
    ],
)
def test_a_quantity_counts_ten_thousandths(quantity: float, units: int) -> None:
    assert to_units("num_cpus", quantity) == units


@given(st.integers(1, 10_000))
def test_n_tasks_of_one_nth_fit_together(n: int) -> None:
    assert to_units("num_cpus", 1 / n) * n <= 10_000


@given(st.integers(1, 10**9))
def test_every_decimal_of_four_places_is_exact(units: int) -> None:
    assert to_units("num_cpus", units / 10_000) == units


@pytest.mark.parametrize("quantity", [-1, -0.5, 0.00001, 0.00009999, math.nan, math.inf])
def test_an_impossible_quantity_is_refused_by_name(quantity: float) -> None:
    with pytest.raises(ValueError, match=r"^num_cpus must be .*number.* >= 0.*, not "):
        Resources.from_options(num_cpus=quantity)


@pytest.mark.parametrize("quantity", ["1", True, None, [1], 1j])
def test_a_quantity_that_is_no_number_is_refused_by_name(quantity: Any) -> None:
    with pytest.raises(TypeError, match=r"^num_gpus must be a finite number >= 0, not "):
        Resources.from_options(num_gpus=quantity)


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")

    assert Resources.from_options(numpy.int64(2), numpy.float32(0.5)).to_floats() == {"CPU": 2, "GPU": 0.5}


def test_more_than_one_gpu_must_be_whole() -> None:
    with pytest.raises(ValueError, match=r"num_gpus must be a whole number when above 1, not 1.5"):
        Resources.from_options(num_gpus=1.5)


@pytest.mark.parametrize(
    ("custom", "error", "message"),
    [
        ({"CPU": 1}, ValueError, "resources cannot have 'CPU'; use the keyword num_cpus= for it"),
        ({"GPU": 1}, ValueError, "use the keyword num_gpus="),
        ({"memory": 1}, ValueError, "use the keyword memory="),
        ({"tokens": -1}, ValueError, r"resources\['tokens'\] must be a finite number >= 0, not -1"),
        (
            {"tokens": "1"},
            TypeError,
            r"resources\['tokens'\] must be a finite number >= 0, not '1' of type str",
        ),
        ({"": 1}, ValueError, "names that are not empty"),
        ({1: 1}, TypeError, "names that are not empty to numbers, not {1: 1} of type dict"),
        ([("tokens", 1)], TypeError, "of type list"),
    ],
)
def test_custom_resources_that_cannot_be_are_refused(
    custom: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Resources.from_options(resources=custom)


def test_memory_is_whole_bytes() -> None:
    assert Resources.from_options(memory=2**40).to_floats() == {"memory": 2**40}
    with pytest.raises(TypeError, match=r"memory must be a whole number >= 0 \(bytes\), not 1.5"):
        Resources.from_options(memory=1.5)  # type: ignore[arg-type]


# ---- vectors ----


def test_zeros_do_not_count() -> None:
    assert Resources.from_options(num_cpus=0) == Resources()
    assert not Resources({"CPU": 0})


def test_equal_vectors_hash_the_same_in_any_order() -> None:
    one, other = Resources({"CPU": 1, "GPU": 2}), Resources({"GPU": 2, "CPU": 1})

    assert one == other
    assert {one: "class"}[other] == "class"
    assert one != Resources({"CPU": 1})
    assert one != {"CPU": 1, "GPU": 2}


def test_a_vector_hashes_right_after_the_way_to_another_process() -> None:
    vector = Resources.from_options(num_cpus=0.5, resources={"tokens": 3})
    code = (
        "import pickle, sys; from asyncray.resources import Resources; "
        f"there = pickle.loads({pickle.dumps(vector)!r}); "
        "sys.exit(there not in {Resources.from_options(num_cpus=0.5, resources={'tokens': 3})})"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@given(VECTORS, VECTORS)
def test_a_sum_less_one_part_is_the_other(one: Resources, other: Resources) -> None:
    total = one.add(other)

    assert total.subtract(other) == one
    assert one.fits(total)
    assert other.fits(total)
    assert Resources.from_wire(total.to_wire()) == total
    assert Resources.from_options().add(one) == one


@given(VECTORS, VECTORS)
def test_what_does_not_fit_cannot_be_subtracted(one: Resources, other: Resources) -> None:
    if other.fits(one):
        assert one.subtract(other).add(other) == one
    else:
        with pytest.raises(ValueError, match="resources cannot be negative"):
            one.subtract(other)


def test_a_part_can_be_taken_by_name() -> None:
    vector = Resources.from_options(num_cpus=2, num_gpus=1, memory=5)

    assert vector.only("CPU") == Resources.from_options(num_cpus=2)
    assert vector.only("tokens") == Resources()


def test_a_vector_reads_like_the_options_it_came_from() -> None:
    vector = Resources.from_options(num_cpus=0.5, num_gpus=2, memory=2**40, resources={"tokens": 3})

    assert vector.to_floats() == {"CPU": 0.5, "GPU": 2.0, "memory": 2.0**40, "tokens": 3.0}
    assert repr(vector) == "Resources(CPU: 0.5, GPU: 2, memory: 1099511627776, tokens: 3)"


# ---- a node ----


def test_a_demand_is_taken_whole_or_not_at_all() -> None:
    node = NodeResources(Resources.from_options(num_cpus=2, num_gpus=1))

    assert not node.acquire(Resources.from_options(num_cpus=1, num_gpus=1, resources={"tokens": 1}))
    assert node.available == dict(node.total)
    assert node.acquire(Resources.from_options(num_cpus=1, num_gpus=1))
    assert repr(node) == "<NodeResources CPU: 1, GPU: 0 free of CPU: 2, GPU: 1>"


def test_a_task_that_resumes_may_oversubscribe_and_nobody_else_starts_then() -> None:
    node = NodeResources(Resources.from_options(num_cpus=1))
    one = Resources.from_options(num_cpus=1)

    assert node.acquire(one)
    assert node.acquire(one, force=True)
    assert node.available == {"CPU": -10_000}
    assert not node.acquire(Resources.from_options(num_cpus=0.5))
    node.release(one)
    node.release(one)
    assert node.available == dict(node.total)


def test_a_demand_for_nothing_is_granted_on_an_oversubscribed_node() -> None:
    node = NodeResources(Resources.from_options(num_cpus=1))
    node.acquire(Resources.from_options(num_cpus=2), force=True)

    assert node.acquire(Resources())


def test_what_was_never_acquired_cannot_be_released() -> None:
    node = NodeResources(Resources.from_options(num_cpus=1))
    node.acquire(Resources.from_options(num_cpus=0.5))

    with pytest.raises(InternalError, match="released Resources"):
        node.release(Resources.from_options(num_cpus=1))
    assert node.available == {"CPU": 5000}


def test_a_node_knows_what_it_can_never_grant() -> None:
    node = NodeResources(Resources.from_options(num_cpus=1))
    node.acquire(node.total)

    assert node.feasible(Resources.from_options(num_cpus=1))
    assert not node.feasible(Resources.from_options(num_cpus=1.5))


class NodeMachine(RuleBasedStateMachine):
    """Grants in any order against a plain list of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.node = NodeResources(Resources.from_options(num_cpus=4, num_gpus=2, resources={"tokens": 3}))
        self.held: list[Resources] = []

    @rule(demand=VECTORS, force=st.booleans())
    def acquire(self, demand: Resources, force: bool) -> None:
        could = demand.fits(self.node.available)
        assert self.node.acquire(demand, force=force) == (could or force)
        if could or force:
            self.held.append(demand)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            self.node.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def free_and_held_sum_to_the_total(self) -> None:
        for name in ("CPU", "GPU", "memory", "tokens"):
            held = sum(demand.get(name, 0) for demand in self.held)
            assert self.node.available.get(name, 0) + held == self.node.total.get(name, 0)


test_free_and_held_always_sum_to_the_total = NodeMachine.TestCase
