"""The environment a task asks its worker to have."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypedDict

from .validation import Rule, Verdict, check_all, text_map, unknown

#: A setup hook: a function, its name as "module.function", or a function that a peer has pickled.
Hook = str | bytes | Callable[[], object]


class RuntimeEnvDict(TypedDict, total=False):
    """What users write as `runtime_env=`."""

    env_vars: Mapping[str, str]
    working_dir: str | os.PathLike[str]
    py_modules: list[str | os.PathLike[str] | ModuleType]
    worker_process_setup_hook: str | Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEnv:
    """A resolved `runtime_env`; false when empty. Hashable: tasks with equal ones share workers."""

    #: Environment variables, sorted by name. A value may say ${NAME} for what the worker has already.
    env_vars: tuple[tuple[str, str], ...] = ()
    #: Absolute path of the worker's current directory, also on its `sys.path`; None is the driver's.
    working_dir: str | None = None
    #: Absolute paths of package directories and modules; what they lie in goes on the worker's `sys.path`.
    py_modules: tuple[str, ...] = ()
    #: Called once in each worker before its first task; None is nothing.
    worker_process_setup_hook: Hook | None = None

    @classmethod
    def parse(cls, given: object) -> "RuntimeEnv":
        """Check and resolve what a user gave: a dict, a RuntimeEnv, or None for an empty one.

        Raises:
            TypeError: when it is not a dict, or a value in it is of the wrong type.
            ValueError: when a key is unknown or not supported yet, or a value is impossible.
        """
        if isinstance(given, RuntimeEnv):
            return given
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise TypeError(f"runtime_env must be a dict, not {given!r} of type {type(given).__name__}")
        for name in given:
            if name not in _RULES:
                raise ValueError(unknown("runtime_env key", name, _RULES, _NOT_YET))
        checked = check_all(
            {f"runtime_env[{name!r}]": value for name, value in given.items()}, _RULES_BY_LABEL
        )
        values = dict(zip(given, checked.values(), strict=True))
        return cls(**{name: value for name, value in values.items() if value is not None})

    @staticmethod
    def merge(parent: "RuntimeEnv", child: "RuntimeEnv") -> "RuntimeEnv":
        """What a child gets that asks for `child` under `parent`: its fields win, variables are joined."""
        return RuntimeEnv(
            env_vars=tuple(sorted((dict(parent.env_vars) | dict(child.env_vars)).items())),
            working_dir=child.working_dir or parent.working_dir,
            py_modules=child.py_modules or parent.py_modules,
            worker_process_setup_hook=child.worker_process_setup_hook or parent.worker_process_setup_hook,
        )

    def environment(self, current: Mapping[str, str]) -> dict[str, str]:
        """`current` with `env_vars` set; ${NAME} in a value stands for the current one, or for nothing."""
        return {
            **current,
            **{
                name: _REFERENCE.sub(lambda found: current.get(found[1], ""), value)
                for name, value in self.env_vars
            },
        }

    def to_wire(self, dump: Callable[[object], bytes] | None = None) -> dict[str, object]:
        """Plain values by field name, without what is not set.

        Args:
            dump: Pickles a hook that is a function; needed for such a one only.

        Raises:
            TypeError: when the hook is a function and there is no `dump`.
        """
        wire: dict[str, object] = {
            "env_vars": dict(self.env_vars),
            "working_dir": self.working_dir,
            "py_modules": list(self.py_modules),
            "worker_process_setup_hook": self._plain_hook(dump),
        }
        return {name: value for name, value in wire.items() if value}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "RuntimeEnv":
        """Undo `to_wire`, but for a pickled hook: that stays bytes, since only a worker may unpickle it."""
        return cls(
            env_vars=tuple(sorted(wire.get("env_vars", {}).items())),
            working_dir=wire.get("working_dir"),
            py_modules=tuple(wire.get("py_modules", ())),
            worker_process_setup_hook=wire.get("worker_process_setup_hook"),
        )

    def _plain_hook(self, dump: Callable[[object], bytes] | None) -> str | bytes | None:
        hook = self.worker_process_setup_hook
        if hook is None or isinstance(hook, (str, bytes)):
            return hook
        if dump is None:
            raise TypeError(f"the setup hook {hook!r} is a function and needs a pickler to travel")
        return dump(hook)

    def __bool__(self) -> bool:
        return self != NO_RUNTIME_ENV


#: The environment that asks for nothing.
NO_RUNTIME_ENV = RuntimeEnv()
_REFERENCE = re.compile(r"\$\{(\w+)\}")


def _accept_env_vars(value: object) -> object:
    variables = _STRINGS.accept(value)
    if isinstance(variables, Verdict):
        return variables
    legal = all(name and "=" not in name and "\0" not in name + variables[name] for name in variables)
    return tuple(sorted(variables.items())) if legal else Verdict.IMPOSSIBLE


def _accept_directory(value: object) -> object:
    path = _absolute(value)
    if path is None:
        return Verdict.WRONG_TYPE
    return path if os.path.isdir(path) else Verdict.IMPOSSIBLE


def _accept_modules(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return Verdict.WRONG_TYPE
    paths = [_module_path(item) for item in value]
    if None in paths:
        return Verdict.WRONG_TYPE
    possible = all(
        path and (os.path.isdir(path) or (path.endswith(".py") and os.path.isfile(path))) for path in paths
    )
    return tuple(paths) if possible else Verdict.IMPOSSIBLE


def _accept_hook(value: object) -> object:
    if not isinstance(value, str):
        return value if callable(value) else Verdict.WRONG_TYPE
    parts = value.split(".")
    return value if len(parts) > 1 and all(part.isidentifier() for part in parts) else Verdict.IMPOSSIBLE


def _module_path(item: object) -> str | None:
    """Where a module lies: its package directory or its file. Empty for one that is on no disk."""
    if not isinstance(item, ModuleType):
        return _absolute(item)
    places = list(getattr(item, "__path__", ())) or [getattr(item, "__file__", None) or ""]
    return os.path.abspath(places[0]) if places[0] else ""


def _absolute(path: object) -> str | None:
    if not isinstance(path, (str, os.PathLike)):
        return None
    plain = os.fspath(path)
    return os.path.abspath(plain) if isinstance(plain, str) and plain else ""


_STRINGS = text_map()

_RULES: Mapping[str, Rule] = {
    "env_vars": Rule("a dict of names without '=' to strings", _accept_env_vars),
    "working_dir": Rule(
        "the path of an existing directory (archives and URIs are not supported yet)", _accept_directory
    ),
    "py_modules": Rule(
        "a list of modules, or of paths of existing package directories and .py files "
        "(wheels, archives and URIs are not supported yet)",
        _accept_modules,
    ),
    "worker_process_setup_hook": Rule(
        "a function without arguments, or its name as 'module.function'", _accept_hook
    ),
}
_RULES_BY_LABEL = {f"runtime_env[{name!r}]": rule for name, rule in _RULES.items()}

_NOT_YET = dict.fromkeys(
    (
        "pip",
        "uv",
        "conda",
        "container",
        "image_uri",
        "excludes",
        "py_executable",
        "config",
        "nsight",
        "rocprof_sys",
        "mpi",
        "java_jars",
    ),
    "is known to Ray and not supported yet",
)
