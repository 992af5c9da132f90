"""One place holds every tunable and reads the environment."""

import ast
import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncray import config as config_module
from asyncray.config import RULES, Config

PACKAGE = Path(inspect.getfile(config_module)).parent
VALUE_MODULES = [
    "exceptions",
    "ids",
    "validation",
    "resources",
    "config",
    "runtime_env",
    "options",
    "init_options",
]
HEAVY = {"asyncio", "socket", "ssl", "selectors", "threading", "subprocess", "logging", "pathlib", "difflib"}
HEAVY |= {"cloudpickle", "numpy", "anyio", "msgpack", "uvloop", "random", "multiprocessing", "concurrent"}


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Config.from_env({}) == Config()


def test_a_variable_sets_its_field() -> None:
    config = Config.from_env({"ASYNCRAY_INLINE_LIMIT_BYTES": "0", "ASYNCRAY_LEASE_KEEP_S": "1"})

    assert (config.inline_limit_bytes, config.lease_keep_s) == (0, 1.0)
    assert isinstance(config.lease_keep_s, float)


def test_a_variable_of_another_name_is_ignored() -> None:
    assert Config.from_env({"ASYNCRAY_NO_SUCH_THING": "x", "INLINE_LIMIT_BYTES": "1"}) == Config()


def test_an_override_goes_before_the_environment() -> None:
    assert Config.from_env({"ASYNCRAY_MAX_PIPELINE": "7"}, max_pipeline=9).max_pipeline == 9


def test_without_a_mapping_this_process_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCRAY_MAX_PIPELINE", "3")

    assert Config.from_env().max_pipeline == 3


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ASYNCRAY_MAX_PIPELINE", "many", "ASYNCRAY_MAX_PIPELINE must be a whole number >= 1, not 'many'"),
        ("ASYNCRAY_MAX_PIPELINE", "0", "ASYNCRAY_MAX_PIPELINE must be a whole number >= 1, not 0"),
        ("ASYNCRAY_MAX_PIPELINE", "1.5", "ASYNCRAY_MAX_PIPELINE must be a whole number >= 1, not '1.5'"),
        ("ASYNCRAY_LEASE_KEEP_S", "nan", "ASYNCRAY_LEASE_KEEP_S must be a finite number >= 0, not nan"),
        ("ASYNCRAY_MEMORY_THRESHOLD", "2", "must be a finite number > 0 and <= 1, not 2"),
        ("ASYNCRAY_START_TIMEOUT_S", "", "ASYNCRAY_START_TIMEOUT_S must be a finite number > 0, not ''"),
    ],
)
def test_a_bad_variable_is_an_error_that_names_it(variable: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_env({variable: value})


def test_an_unknown_override_names_the_nearest_field() -> None:
    with pytest.raises(
        ValueError, match="unknown configuration field 'max_pipelin'; did you mean 'max_pipeline'"
    ):
        Config.from_env({}, max_pipelin=1)


def test_an_override_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="max_pipeline must be a whole number >= 1, not '7' of type str"):
        Config.from_env({}, max_pipeline="7")


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="function_warn_bytes must be <= function_max_bytes"):
        Config(function_max_bytes=5)


def test_a_config_is_the_same_after_the_wire() -> None:
    config = Config(memory_limit_bytes=123, recall_after_s=0.5)

    assert Config.from_wire(config.to_wire()) == config
    assert all(type(value) in (int, float) for value in config.to_wire().values())


def test_a_damaged_wire_form_is_refused() -> None:
    wire: dict[str, Any] = {**Config().to_wire(), "max_pipeline": -1}

    with pytest.raises(ValueError, match="max_pipeline must be a whole number >= 1, not -1"):
        Config.from_wire(wire)


def test_every_field_has_a_rule_a_unit_and_a_reason() -> None:
    fields = [field.name for field in dataclasses.fields(Config)]
    lines = inspect.getsource(Config).splitlines()
    declared = [index for index, line in enumerate(lines) if any(f"    {name}: " in line for name in fields)]

    assert list(RULES) == fields
    assert len(declared) == len(fields)
    assert all(lines[index - 1].lstrip().startswith("#:") for index in declared)


def test_nobody_else_reads_the_environment_in_the_floor_of_values() -> None:
    readers = []
    for name in VALUE_MODULES:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        readers += [name] if names & {"environ", "getenv"} else []

    assert readers == ["config"]


def test_the_values_load_nothing_heavy_and_cost_less_than_asyncio_does(tmp_path: Path) -> None:
    """Beyond `typing` and `dataclasses`, which every part of the package needs; the best of five."""
    code = f"""
import sys, types, typing, dataclasses, time
package = types.ModuleType("asyncray")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["asyncray"] = package
started = time.process_time()
import {", ".join("asyncray." + name for name in VALUE_MODULES)}
print(*{{name.partition(".")[0] for name in sys.modules}})
between = time.process_time()
import asyncio
print((between - started) / (time.process_time() - between))
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONPYCACHEPREFIX"] = str(tmp_path)  # the first run compiles, as installing does
    command = [sys.executable, "-c", code]
    costs = []
    for _ in range(5):
        said = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
        loaded, cost = said.splitlines()
        costs.append(float(cost))
        assert not HEAVY & set(loaded.split())
    assert min(costs) < 1
