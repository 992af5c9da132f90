"""What the programs of this folder share: the API they may use, and how they state what they expect.

A program is a function that is handed `ray`, which is Ray or asyncray, and returns plain data. `expects`
writes down the data that both must return. Programs stand in one file a theme; `run.py` runs them,
`test_compat.py` compares.
"""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

Kinds = type[BaseException] | tuple[type[BaseException], ...]


class Remote(Protocol):
    """A remote function, and also the decorator that makes one with options."""

    remote: Callable[..., Any]
    options: Callable[..., Any]

    def __call__(self, *args: object, **kwargs: object) -> Any: ...


class Ray(Protocol):
    """The names of the module that programs may use."""

    __name__: str
    exceptions: Any
    util: Any
    ObjectRef: Any

    def init(self, **options: object) -> object: ...
    def remote(self, *args: object, **options: object) -> Remote: ...
    def put(self, value: object) -> Any: ...
    def get(self, refs: Any, *, timeout: float | None = None) -> Any: ...
    def wait(self, refs: Any, **options: Any) -> tuple[list[Any], list[Any]]: ...
    def cancel(self, ref: Any, **options: bool) -> None: ...
    def method(self, **options: object) -> Callable[[Any], Any]: ...
    def kill(self, actor: Any, **options: bool) -> None: ...
    def get_actor(self, name: str) -> Any: ...
    def get_runtime_context(self) -> Any: ...
    def get_gpu_ids(self) -> list[Any]: ...
    def is_initialized(self) -> bool: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def cluster_resources(self) -> dict[str, float]: ...
    def available_resources(self) -> dict[str, float]: ...


Program = Callable[[Ray], object]

#: The files of programs, in the order they are run in.
THEMES = (
    "tasks",
    "options",
    "dependencies",
    "get_wait",
    "errors",
    "nested",
    "cancel",
    "put_and_refs",
    "objects",
    "runtime_context",
    "as_completed",
    "streams",
    "actors",
    "actor_lives",
)

_expected: dict[Program, object] = {}


def expects(value: object) -> Callable[[Program], Program]:
    """State what a program returns. Tuples and lists are taken for the same, as in JSON."""

    def register(program: Program) -> Program:
        _expected[program] = value
        return program

    return register


def all_programs() -> dict[str, tuple[Program, object]]:
    """Return every program with its expectation, by `theme.program`, in the order of themes and files."""
    for theme in THEMES:
        importlib.import_module(f"tests.compat.{theme}")
    found = ((program.__module__.rpartition(".")[2], program) for program in _expected)
    return {f"{theme}.{program.__name__}": (program, _expected[program]) for theme, program in found}


def caught(kinds: Kinds, call: Callable[..., object], *args: object, **kwargs: object) -> object:
    """Call *call* and return the names of those of *kinds* that catch what it raises.

    Returns:
        The names, in the order of *kinds*; without any, the type that was raised; "nothing raised" if so.
    """
    try:
        call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - which kind it is, is the question
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        names = [kind.__name__ for kind in kinds if isinstance(error, kind)]
        return names or f"only {type(error).__name__}"
    return "nothing raised"


def pending(ray: Ray) -> Any:
    """Return the ref of a task that is never scheduled: it asks for a resource that no node has."""
    return ray.remote(resources={"unobtainable": 1})(lambda: None).remote()


def finished(ray: Ray, *values: object) -> list[Any]:
    """Return refs of tasks that have returned *values*."""
    refs = [ray.remote(lambda value: value).remote(value) for value in values]
    ray.wait(refs, num_returns=len(refs))
    return refs
