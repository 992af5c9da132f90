"""The public names are in order, and importing them is quick and has no side effects."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

import asyncray

from .layers import PRIVATE
from .source import ROOT

#: Seconds that `import asyncray` may take in a fresh process.
IMPORT_BUDGET_S = 0.060

#: Packages that take longer to import than all of asyncray; they come when the first session starts.
HEAVY = {"anyio", "asyncio", "cloudpickle", "msgpack", "numpy", "uvloop"}

#: Imports the package in a fresh process and tells what that did.
PROBE = """
import json, os, signal, sys, time

def state():
    logging = sys.modules.get("logging")
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "hooks": [str(hook) for hook in (sys.excepthook, sys.unraisablehook, sys.displayhook)],
        "log handlers": len(logging.root.handlers) if logging else 0,
    }

before = state()
started = time.process_time()
import asyncray
took = time.process_time() - started
after = state()
changed = [key for key in before if before[key] != after[key]]
print(json.dumps({"took": took, "changed": changed, "modules": list(sys.modules)}))
"""


def probe() -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def order(name: str) -> tuple[int, list[str | int]]:
    """Sort constants first, then classes, then the rest, numbers in names by value, as ruff's RUF022 does."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return kind, [int(part) if part.isdigit() else part for part in parts]


def exported(kind: Any) -> list[str]:
    return [name for name in asyncray.__all__ if kind(getattr(asyncray, name))]


def test_the_public_names_are_sorted_and_stand_once() -> None:
    assert list(asyncray.__all__) == sorted(set(asyncray.__all__), key=order)


@pytest.mark.parametrize("name", asyncray.__all__)
def test_each_public_name_can_be_imported(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from asyncray import {name}", namespace)
    assert namespace[name] is getattr(asyncray, name)


@pytest.mark.parametrize("name", exported(lambda value: inspect.isclass(value) or inspect.isfunction(value)))
def test_each_public_class_and_function_says_that_it_comes_from_a_public_module(name: str) -> None:
    value = getattr(asyncray, name)
    home = value.__module__.split(".")
    assert home[0] == "asyncray"
    assert PRIVATE.isdisjoint(home), f"asyncray.{name} says that it lives in {value.__module__}"
    assert getattr(importlib.import_module(value.__module__), value.__name__) is value


def test_every_name_in_the_package_is_public_or_a_module_or_has_an_underscore() -> None:
    names = {name for name, value in vars(asyncray).items() if not inspect.ismodule(value)}
    assert {name for name in names if not name.startswith("_")} - set(asyncray.__all__) == set()


def test_the_version_stands_in_one_place() -> None:
    files = [ROOT / "pyproject.toml", *(ROOT / "asyncray").rglob("*.py")]
    quoted = {f'"{asyncray.__version__}"', f"'{asyncray.__version__}'"}
    found = [path for path in files if any(text in path.read_text() for text in quoted)]
    assert found == [ROOT / "asyncray" / "__init__.py"]


def test_importing_takes_no_time() -> None:
    # On the CPU: other programs may keep it busy. The best, because they also empty its caches.
    times = [probe()["took"] for _ in range(5)]
    assert min(times) < IMPORT_BUDGET_S, times


def test_importing_loads_nothing_heavy() -> None:
    assert HEAVY.intersection(probe()["modules"]) == set()


def test_importing_changes_nothing_in_the_process() -> None:
    """No thread, no descriptor, no signal handler, no hook, nothing in the environment."""
    assert probe()["changed"] == []
