"""Options of tasks are checked at the line that gives them."""

import math
import pickle
import re
import warnings
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.options import _RULES, TaskOptions, TaskOptionsDict
from asyncray.resources import Resources
from asyncray.runtime_env import RuntimeEnv


class NodeAffinitySchedulingStrategy:
    """Known by its name alone, as Ray's own is."""


VALID: dict[str, list[Any]] = {
    "num_cpus": [0, 1, 0.5, None],
    "num_gpus": [0, 0.25, 2, None],
    "resources": [{"tokens": 0.5}, {}, None],
    "memory": [0, 2**40, None],
    "accelerator_type": ["H100", None],
    "label_selector": [
        {"zone": "a"},
        {"zone": "!a"},
        {"x.io/zone": "in(a, b)"},
        {"zone": "!in(a,b)"},
        {"z": ""},
    ],
    "fallback_strategy": [[{"label_selector": {"zone": "b"}}], [], None],
    "max_retries": [0, 3, -1, None],
    "retry_exceptions": [True, False, [ValueError], (ValueError, KeyError), None],
    "num_returns": [0, 1, 5, "streaming", None],
    "scheduling_strategy": ["DEFAULT", "SPREAD", NodeAffinitySchedulingStrategy(), None],
    "runtime_env": [{"env_vars": {"A": "1"}}, {}, RuntimeEnv(), None],
    "max_calls": [0, 1, None],
    "name": ["sum", None],
    "timeout": [0.001, 1, 3600.0, None],
    "priority": [-100, 0, 100, None],
    "enable_task_events": [True, False, None],
    "_labels": [{"team": "a"}, {}, None],
    "max_unread": [-1, 1, 5000, None],
    "_generator_backpressure_num_objects": [-1, 1, None],
    "_num_objects_per_yield": [1, 2, None],
}

WRONG_TYPE: dict[str, list[Any]] = {
    "num_cpus": ["1", True, 1j],
    "num_gpus": [[1], False],
    "resources": [["tokens"], {1: 1}, {"tokens": "1"}, {"tokens": True}],
    "memory": [1.5, "1GB", True],
    "accelerator_type": [1],
    "label_selector": ["zone", {"zone": 1}],
    "fallback_strategy": [{"label_selector": {}}, ["zone"], [{"label_selector": "a"}]],
    "max_retries": [1.0, "3", True],
    "retry_exceptions": [ValueError, [1], "all", 1, [ValueError("instance")]],
    "num_returns": [1.0, True, [1]],
    "scheduling_strategy": [1, object()],
    "runtime_env": ["env", [("env_vars", {})]],
    "max_calls": ["1", 0.0],
    "name": [1, b"sum"],
    "timeout": ["1", True],
    "priority": [0.5, "high", True],
    "enable_task_events": [1, "yes"],
    "_labels": [{"team": 1}, "team"],
    "max_unread": ["1", 1.5, True],
    "_generator_backpressure_num_objects": ["1", 1.5],
    "_num_objects_per_yield": ["1", True],
}

IMPOSSIBLE: dict[str, list[Any]] = {
    "num_cpus": [-1, -0.5, math.nan, math.inf, 0.00001],
    "num_gpus": [-1, 1.5],
    "resources": [{"CPU": 1}, {"GPU": 1}, {"memory": 1}, {"tokens": -1}, {"": 1}],
    "memory": [-1],
    "accelerator_type": [""],
    "label_selector": [{"zone": "in()"}, {"bad key": "a"}, {"zone": "not a value"}, {"": "a"}],
    "fallback_strategy": [[{"num_cpus": 1}], [{}]],
    "max_retries": [-2],
    "retry_exceptions": [],
    "num_returns": [-1, "many", "dynamic"],
    "scheduling_strategy": ["spread", ""],
    "runtime_env": [{"env_var": {}}],
    "max_calls": [-1],
    "name": [""],
    "timeout": [0, -1, math.nan, math.inf],
    "priority": [-101, 101],
    "enable_task_events": [],
    "_labels": [],
    "max_unread": [-2, 0],
    "_generator_backpressure_num_objects": [-2, 0],
    "_num_objects_per_yield": [0],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}={told(value)}") for name in table for value in table[name]]


def told(value: Any) -> str:
    """What a value looks like, the same in every process."""
    return re.sub(r" at 0x\w+", "", repr(value))


# ---- the table ----


def test_every_option_is_tried_below_and_is_known_to_type_checkers() -> None:
    assert set(VALID) == set(WRONG_TYPE) == set(IMPOSSIBLE) == set(_RULES)
    assert set(get_type_hints(TaskOptionsDict)) == set(_RULES) | {"num_return_vals"}


@pytest.mark.parametrize(("name", "value"), cases(VALID))
def test_a_valid_value_is_accepted(name: str, value: Any) -> None:
    options = TaskOptions.parse({name: value})

    if name != "max_calls":
        assert TaskOptions.parse({}).merge({name: value}) == options
    if value is None:
        assert options == TaskOptions.parse({})


@pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPE))
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name}.* must be .*, not "):
        TaskOptions.parse({name: value})


@pytest.mark.parametrize(("name", "value"), cases(IMPOSSIBLE))
def test_an_impossible_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        TaskOptions.parse({name: value})


@given(st.sampled_from(sorted(_RULES)), st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_any_value_is_accepted_or_refused_with_the_name_of_its_option(name: str, value: object) -> None:
    message = name
    try:
        TaskOptions.parse({name: value})
    except (TypeError, ValueError) as error:
        message = str(error)
    assert name in message


# ---- the messages ----


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus must be a finite number >= 0, not -1"),
        ({"num_cpus": True}, TypeError, "num_cpus must be a finite number >= 0, not True of type bool"),
        ({"num_cpus": 0.00001}, ValueError, "num_cpus must be 0 or a number >= 0.0001, not 1e-05"),
        ({"num_gpus": 1.5}, ValueError, "num_gpus must be a whole number when above 1, not 1.5"),
        (
            {"resources": {"CPU": 1}},
            ValueError,
            "resources cannot have 'CPU'; use the keyword num_cpus= for it",
        ),
        (
            {"num_returns": "dynamic"},
            ValueError,
            'num_returns="dynamic" is not supported; use num_returns="streaming"',
        ),
        (
            {"scheduling_strategy": "PACK"},
            ValueError,
            (
                'scheduling_strategy must be "DEFAULT", "SPREAD" or one of PlacementGroupSchedulingStrategy, '
                "NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, not 'PACK'"
            ),
        ),
        ({"timeout": 0}, ValueError, "timeout must be a finite number > 0, not 0"),
        ({"timeout": "1"}, TypeError, "timeout must be a finite number > 0, not '1' of type str"),
        ({"timeout": float("inf")}, ValueError, "timeout must be a finite number > 0, not inf"),
        ({"priority": 101}, ValueError, "priority must be a whole number >= -100 and <= 100, not 101"),
        ({"priority": -101}, ValueError, "priority must be a whole number >= -100 and <= 100, not -101"),
        (
            {"priority": 0.5},
            TypeError,
            "priority must be a whole number >= -100 and <= 100, not 0.5 of type float",
        ),
        ({"max_restarts": 1}, ValueError, "task option 'max_restarts' is an option of actors, not of tasks"),
        (
            {"placement_group": 1},
            ValueError,
            "task option 'placement_group' was dropped; use scheduling_strategy",
        ),
        (
            {"object_store_memory": 1},
            ValueError,
            "task option 'object_store_memory' is not implemented for tasks; Ray does not have it either",
        ),
    ],
    ids=str,
)
def test_a_message_names_the_option_the_value_and_what_is_allowed(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        TaskOptions.parse(given)
    assert str(caught.value) == message


def test_an_unknown_option_is_answered_with_the_nearest_and_all_others() -> None:
    with pytest.raises(ValueError, match="unknown task option 'num_cpu'; did you mean 'num_cpus'") as caught:
        TaskOptions.parse({"num_cpu": 1})
    assert all(name in str(caught.value) for name in _RULES)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(TypeError) as caught:
        TaskOptions.parse({"num_cpus": ["x"] * 10_000})
    assert len(str(caught.value)) < 300


# ---- what becomes of them ----


def test_the_defaults_are_rays() -> None:
    options = TaskOptions.parse({})

    assert options.resources == Resources.from_options(num_cpus=1)
    assert (options.max_retries, options.retry_exceptions, options.max_calls) == (3, False, 0)
    assert (options.num_returns, options.scheduling_strategy, options.name) == (None, "DEFAULT", None)
    assert options.enable_task_events
    assert (options.max_unread, options.num_objects_per_yield) == (None, 1)
    assert not options.runtime_env
    assert options == TaskOptions()


def test_quantities_become_one_vector() -> None:
    options = TaskOptions.parse({"num_cpus": 0.5, "num_gpus": 1, "memory": 100, "resources": {"tokens": 2}})

    assert options.resources.to_floats() == {"CPU": 0.5, "GPU": 1.0, "memory": 100.0, "tokens": 2.0}


def test_a_worker_that_held_a_gpu_is_not_used_again_unless_asked() -> None:
    assert TaskOptions.parse({"num_gpus": 1}).max_calls == 1
    assert TaskOptions.parse({"num_gpus": 1, "max_calls": 0}).max_calls == 0
    assert TaskOptions.parse({}).merge({"num_gpus": 0.5}).max_calls == 1
    assert TaskOptions.parse({"num_gpus": 1}).merge({"num_gpus": 0}).max_calls == 0


def test_selectors_labels_and_environment_are_resolved() -> None:
    options = TaskOptions.parse(
        {
            "fallback_strategy": [{"label_selector": {"zone": "b"}}],
            "retry_exceptions": [ValueError],
            "runtime_env": {"env_vars": {"A": "1"}},
            "_labels": {"team": "x"},
        }
    )

    assert options.fallback_strategy == ({"zone": "b"},)
    assert options.retry_exceptions == (ValueError,)
    assert options.runtime_env == RuntimeEnv(env_vars=(("A", "1"),))
    assert options.labels == {"team": "x"}


def test_changing_what_was_given_changes_no_options() -> None:
    labels = {"team": "x"}
    options = TaskOptions.parse({"_labels": labels})
    labels["team"] = "y"

    assert options.labels == {"team": "x"}


def test_options_are_values() -> None:
    one, other = (TaskOptions.parse({"num_cpus": 2, "_labels": {"a": "b"}}) for _ in range(2))

    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.max_retries = 5  # type: ignore[misc]


# ---- .options() ----


def test_options_given_later_go_over_the_earlier_ones_and_keep_the_rest() -> None:
    base = TaskOptions.parse({"num_cpus": 2, "resources": {"tokens": 1}, "name": "f"})
    merged = base.merge({"num_cpus": 0.5}).merge({"max_retries": 0})

    assert merged == TaskOptions.parse(
        {"num_cpus": 0.5, "resources": {"tokens": 1}, "name": "f", "max_retries": 0}
    )
    assert base.resources.to_floats() == {"CPU": 2.0, "tokens": 1.0}


def test_none_resets_an_option_to_its_default() -> None:
    assert (
        TaskOptions.parse({"num_cpus": 2, "name": "f"}).merge({"num_cpus": None, "name": None})
        == TaskOptions()
    )


def test_max_calls_is_refused_in_options() -> None:
    with pytest.raises(ValueError, match=r"max_calls cannot be set in \.options\(\); give it to @remote"):
        TaskOptions.parse({}).merge({"max_calls": 1})


def test_only_what_is_given_is_checked_again(tmp_path: Any) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    base = TaskOptions.parse({"runtime_env": {"working_dir": directory}})
    directory.rmdir()

    assert base.merge({"num_cpus": 2}).runtime_env.working_dir == str(directory)


# ---- the old name ----


def test_num_return_vals_is_num_returns_with_a_warning_at_the_users_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = TaskOptions.parse({"num_return_vals": 2})

    assert options.num_returns == 2
    assert [(item.category, item.filename) for item in caught] == [(DeprecationWarning, __file__)]
    assert str(caught[0].message) == "num_return_vals is deprecated; use num_returns"


def test_num_return_vals_is_checked_as_num_returns_is() -> None:
    with (
        pytest.warns(DeprecationWarning, match="num_return_vals"),
        pytest.raises(ValueError, match="num_returns must be"),
    ):
        TaskOptions.parse({"num_return_vals": -1})


def test_both_names_at_once_are_refused() -> None:
    with (
        pytest.warns(DeprecationWarning, match="num_return_vals"),
        pytest.raises(ValueError, match="give only one of them"),
    ):
        TaskOptions.parse({"num_return_vals": 2, "num_returns": 3})
