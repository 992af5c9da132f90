"""The keywords of `init` are checked at the line that gives them."""

import warnings
from typing import Any, get_type_hints

import pytest

from asyncray.exceptions import UnknownKeywordError
from asyncray.init_options import _RULES, InitOptions, InitOptionsDict
from asyncray.runtime_env import RuntimeEnv

MIB = 1024 * 1024


def test_the_defaults_are_rays() -> None:
    options = InitOptions.parse({})

    assert options == InitOptions()
    assert (options.log_to_driver, options.ignore_reinit_error, options.configure_logging) == (
        True,
        False,
        True,
    )
    assert (options.address, options.num_cpus, options.object_store_memory) == (None, None, None)
    assert (options.logging_level, options.include_dashboard, options.dashboard_host) == (
        20,
        None,
        "localhost",
    )


def test_every_keyword_is_known_to_type_checkers() -> None:
    assert set(get_type_hints(InitOptionsDict)) == set(_RULES) | {"include_webui"}


@pytest.mark.parametrize("name", sorted(_RULES))
def test_none_is_the_default_of_every_keyword(name: str) -> None:
    assert InitOptions.parse({name: None}) == InitOptions()


@pytest.mark.parametrize(
    ("keyword", "value", "field", "resolved"),
    [
        ("address", "local", "address", "local"),
        ("num_cpus", 4, "num_cpus", 4),
        ("num_cpus", 0, "num_cpus", 0),
        ("num_gpus", 2.0, "num_gpus", 2),
        ("resources", {"tokens": 3}, "resources", {"tokens": 3}),
        ("labels", {"zone": "a"}, "labels", {"zone": "a"}),
        ("object_store_memory", 75 * MIB, "object_store_memory", 75 * MIB),
        ("namespace", "mine", "namespace", "mine"),
        ("logging_level", "debug", "logging_level", 10),
        ("logging_level", "WARNING", "logging_level", 30),
        ("logging_level", 15, "logging_level", 15),
        ("logging_format", "%(message)s", "logging_format", "%(message)s"),
        ("log_to_driver", False, "log_to_driver", False),
        ("dashboard_port", 8265, "dashboard_port", 8265),
        ("runtime_env", {"env_vars": {"A": "1"}}, "runtime_env", RuntimeEnv(env_vars=(("A", "1"),))),
        ("preload", ["json", "xml.dom"], "preload", ("json", "xml.dom")),
        ("_system_config", {"max_pipeline": 3}, "system_config", {"max_pipeline": 3}),
    ],
)
def test_a_valid_keyword_is_resolved(keyword: str, value: Any, field: str, resolved: Any) -> None:
    assert getattr(InitOptions.parse({keyword: value}), field) == resolved


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"address": "auto"}, ValueError, "address='auto' cannot be reached: clusters are not there yet"),
        ({"address": "ray://host:10001"}, ValueError, "clusters are not there yet"),
        ({"address": 6379}, TypeError, 'address must be None or "local", not 6379 of type int'),
        ({"num_cpus": -1}, ValueError, "num_cpus must be a finite number >= 0, not -1"),
        ({"num_cpus": "4"}, TypeError, "num_cpus must be a finite number >= 0, not '4' of type str"),
        ({"num_gpus": 0.5}, ValueError, "num_gpus must be a whole number >= 0, not 0.5"),
        ({"num_gpus": -1}, ValueError, "num_gpus must be a whole number >= 0, not -1"),
        ({"num_gpus": True}, TypeError, "num_gpus must be a whole number >= 0, not True of type bool"),
        ({"resources": {"CPU": 4}}, ValueError, "use the keyword num_cpus= for it"),
        (
            {"object_store_memory": 75 * MIB - 1},
            ValueError,
            "object_store_memory must be a whole number >= 78643200",
        ),
        ({"object_store_memory": 1e9}, TypeError, "object_store_memory must be a whole number"),
        ({"namespace": ""}, ValueError, "namespace must be a string that is not empty, not ''"),
        (
            {"logging_level": "LOUD"},
            ValueError,
            "logging_level must be .* one of NOTSET, DEBUG, .*, not 'LOUD'",
        ),
        ({"log_to_driver": 1}, TypeError, "log_to_driver must be True or False, not 1 of type int"),
        ({"dashboard_port": 65536}, ValueError, "dashboard_port must be a whole number >= 0 and <= 65535"),
        (
            {"runtime_env": {"pip": []}},
            ValueError,
            "runtime_env key 'pip' is known to Ray and not supported yet",
        ),
        (
            {"preload": "json"},
            TypeError,
            "preload must be a list of names of modules, not 'json' of type str",
        ),
        ({"preload": ["not a module"]}, ValueError, "preload must be a list of names of modules"),
        ({"_system_config": {"max_pipelin": 1}}, ValueError, "did you mean 'max_pipeline'"),
        ({"_system_config": {"max_pipeline": "x"}}, TypeError, "max_pipeline must be a whole number >= 1"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_by_name(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        InitOptions.parse(given)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, UnknownKeywordError])
def test_an_unknown_keyword_names_the_nearest(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="unknown keyword of init 'num_cpu'; did you mean 'num_cpus'"):
        InitOptions.parse({"num_cpu": 4})


@pytest.mark.parametrize(
    ("keyword", "reason"),
    [("local_mode", "was dropped by Ray"), ("job_config", "known to Ray and not supported yet")],
)
def test_a_keyword_that_only_ray_has_is_told_apart_from_a_slip(keyword: str, reason: str) -> None:
    with pytest.raises(UnknownKeywordError, match=f"keyword of init '{keyword}' .*{reason}"):
        InitOptions.parse({keyword: None})


def test_include_webui_is_include_dashboard_with_a_warning_at_the_users_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = InitOptions.parse({"include_webui": False})

    assert options.include_dashboard is False
    assert [(item.category, item.filename) for item in caught] == [(DeprecationWarning, __file__)]


def test_both_names_at_once_are_refused() -> None:
    with (
        pytest.warns(DeprecationWarning, match="include_webui"),
        pytest.raises(ValueError, match="give only one of them"),
    ):
        InitOptions.parse({"include_webui": False, "include_dashboard": True})
