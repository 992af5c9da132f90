"""A runtime environment is checked where it is given, and is a value."""

import json
import math
import types
from pathlib import Path
from typing import Any

import pytest

from asyncray.runtime_env import RuntimeEnv


def hook() -> None:
    """What a user would run in each worker."""


def test_nothing_is_an_empty_environment() -> None:
    assert RuntimeEnv.parse(None) == RuntimeEnv.parse({}) == RuntimeEnv()
    assert not RuntimeEnv.parse({"env_vars": {}, "working_dir": None})
    assert RuntimeEnv.parse({"env_vars": {"A": "1"}})


def test_equal_environments_share_a_key_in_any_order() -> None:
    one = RuntimeEnv.parse({"env_vars": {"A": "1", "B": "2"}, "worker_process_setup_hook": hook})
    other = RuntimeEnv.parse({"worker_process_setup_hook": hook, "env_vars": {"B": "2", "A": "1"}})

    assert {one: "worker"}[other] == "worker"
    assert RuntimeEnv.parse(one) is one


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "one.py").touch()
    monkeypatch.chdir(tmp_path)

    env = RuntimeEnv.parse({"working_dir": "code", "py_modules": ["one.py", tmp_path / "code"]})

    assert env.working_dir == str(tmp_path / "code")
    assert env.py_modules == (str(tmp_path / "one.py"), str(tmp_path / "code"))


def test_a_module_stands_for_the_place_it_was_loaded_from() -> None:
    env = RuntimeEnv.parse({"py_modules": [json, types]})

    assert env.py_modules == (str(Path(json.__file__).parent), str(Path(types.__file__)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("env", TypeError, "runtime_env must be a dict, not 'env' of type str"),
        ({"env_var": {}}, ValueError, "unknown runtime_env key 'env_var'; did you mean 'env_vars'"),
        ({"pip": ["numpy"]}, ValueError, "runtime_env key 'pip' is known to Ray and not supported yet"),
        ({"image_uri": "x"}, ValueError, "runtime_env key 'image_uri' is known to Ray and not supported yet"),
        (
            {"env_vars": {"A": 1}},
            TypeError,
            r"runtime_env\['env_vars'\] must be a dict of .* strings, not {'A': 1}",
        ),
        ({"env_vars": ["A=1"]}, TypeError, r"runtime_env\['env_vars'\] must be a dict"),
        ({"env_vars": {"A=B": "1"}}, ValueError, "names without '='"),
        ({"env_vars": {"": "1"}}, ValueError, r"runtime_env\['env_vars'\]"),
        ({"env_vars": {"A": "\0"}}, ValueError, r"runtime_env\['env_vars'\]"),
        ({"working_dir": "/no/such/place"}, ValueError, "existing directory .*, not '/no/such/place'"),
        ({"working_dir": "s3://bucket/x.zip"}, ValueError, "URIs are not supported yet"),
        ({"working_dir": ""}, ValueError, "existing directory"),
        ({"working_dir": 3}, TypeError, "existing directory .*, not 3 of type int"),
        ({"py_modules": "json"}, TypeError, r"runtime_env\['py_modules'\] must be a list of modules"),
        ({"py_modules": [3]}, TypeError, r"runtime_env\['py_modules'\]"),
        ({"py_modules": ["/no/such/place"]}, ValueError, r"runtime_env\['py_modules'\]"),
        ({"py_modules": [types.ModuleType("made_up")]}, ValueError, r"runtime_env\['py_modules'\]"),
        ({"worker_process_setup_hook": 3}, TypeError, "a function without arguments, or its name"),
        ({"worker_process_setup_hook": "hook"}, ValueError, "'module.function', not 'hook'"),
        ({"worker_process_setup_hook": "a..b"}, ValueError, "'module.function', not 'a..b'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_key_the_value_and_what_is_allowed(
    given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RuntimeEnv.parse(given)


def test_a_child_joins_the_variables_and_replaces_the_rest(tmp_path: Path) -> None:
    parent = RuntimeEnv.parse({"env_vars": {"A": "1", "B": "1"}, "working_dir": "/", "py_modules": [json]})
    child = RuntimeEnv.parse({"env_vars": {"B": "2"}, "working_dir": tmp_path})

    merged = RuntimeEnv.merge(parent, child)

    assert merged == RuntimeEnv.parse(
        {"env_vars": {"A": "1", "B": "2"}, "working_dir": tmp_path, "py_modules": [json]}
    )
    assert RuntimeEnv.merge(parent, RuntimeEnv()) == parent
    assert RuntimeEnv.merge(RuntimeEnv(), child) == child


def test_a_variable_may_refer_to_what_the_worker_has() -> None:
    env = RuntimeEnv.parse({"env_vars": {"PATH": "/mine:${PATH}", "NEW": "${NO_SUCH}!", "PLAIN": "$PATH"}})

    assert env.environment({"PATH": "/bin", "HOME": "/root"}) == {
        "PATH": "/mine:/bin",
        "HOME": "/root",
        "NEW": "!",
        "PLAIN": "$PATH",
    }


def test_an_environment_is_the_same_after_the_wire() -> None:
    env = RuntimeEnv.parse(
        {
            "env_vars": {"A": "1"},
            "working_dir": "/",
            "py_modules": [json],
            "worker_process_setup_hook": "math.floor",
        }
    )

    assert RuntimeEnv.from_wire(json.loads(json.dumps(env.to_wire()))) == env
    assert RuntimeEnv().to_wire() == {}
    assert RuntimeEnv.from_wire({}) == RuntimeEnv()


def test_a_hook_that_is_a_function_travels_as_the_bytes_a_pickler_makes_of_it() -> None:
    env = RuntimeEnv.parse({"worker_process_setup_hook": math.floor})

    assert RuntimeEnv.from_wire(env.to_wire(lambda _: b"pickled")).worker_process_setup_hook == b"pickled"
    with pytest.raises(TypeError, match="is a function and needs a pickler to travel"):
        env.to_wire()
