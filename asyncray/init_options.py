"""The keywords of `init`: their names, types and defaults, checked where the user gives them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from .config import RULES as CONFIG_RULES
from .exceptions import UnknownKeywordError
from .resources import CUSTOM_RESOURCES
from .runtime_env import NO_RUNTIME_ENV, RuntimeEnv, RuntimeEnvDict
from .validation import (
    Rule,
    Verdict,
    check_all,
    flag,
    number,
    text,
    text_map,
    unknown,
    warn_deprecated,
    whole,
)

#: Bytes below which Ray refuses an object store; kept, so that a program fails in the same place.
MIN_OBJECT_STORE_BYTES = 75 * 1024 * 1024

_LEVELS = {
    "NOTSET": 0,
    "DEBUG": 10,
    "INFO": 20,
    "WARN": 30,
    "WARNING": 30,
    "ERROR": 40,
    "FATAL": 50,
    "CRITICAL": 50,
}


class InitOptionsDict(TypedDict, total=False):
    """The keywords of `init(...)`. None is the default of each; `InitOptions` says what they mean."""

    address: str | None
    num_cpus: float | None
    num_gpus: float | None
    resources: Mapping[str, float] | None
    labels: Mapping[str, str] | None
    object_store_memory: int | None
    object_spilling_directory: str | None
    namespace: str | None
    logging_level: int | str | None
    logging_format: str | None
    log_to_driver: bool | None
    ignore_reinit_error: bool | None
    configure_logging: bool | None
    include_dashboard: bool | None
    #: The old name of include_dashboard.
    include_webui: bool | None
    dashboard_host: str | None
    dashboard_port: int | None
    runtime_env: RuntimeEnvDict | RuntimeEnv | None
    preload: list[str] | None
    _system_config: Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """Checked and resolved keywords of `init`. `InitOptions.parse({})` are the defaults."""

    #: None or "local": a new cluster of one node. There are no others yet.
    address: str | None = None
    #: CPUs of the node; None is the machine's.
    num_cpus: float | None = None
    #: GPUs of the node; None is what the machine has.
    num_gpus: int | None = None
    #: Further resources of the node by name.
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    #: Labels of the node.
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: Bytes of shared memory for objects, at least 75 MiB; None is a share of the machine's.
    object_store_memory: int | None = None
    #: Folder for objects that are put on disk while memory is short; None is that of temporary files.
    object_spilling_directory: str | None = None
    #: Where named actors of this driver live; None is a namespace of its own.
    namespace: str | None = None
    #: Level of this package's logger, as in `logging`.
    logging_level: int = _LEVELS["INFO"]
    #: Format of this package's log lines; None is a default one.
    logging_format: str | None = None
    #: Whether the output of workers is shown by the driver.
    log_to_driver: bool = True
    #: Whether a second `init` is accepted and does nothing.
    ignore_reinit_error: bool = False
    #: Whether this package's logger is set up at all.
    configure_logging: bool = True
    #: Accepted; there is no dashboard yet. None is "when there is one".
    include_dashboard: bool | None = None
    #: Accepted; the dashboard's host.
    dashboard_host: str = "localhost"
    #: Accepted; the dashboard's port. None is 8265 or the next that is free.
    dashboard_port: int | None = None
    #: The environment of all workers of this driver; tasks may ask for more.
    runtime_env: RuntimeEnv = NO_RUNTIME_ENV
    #: Modules imported once, before workers are forked, so that no worker pays for them again.
    preload: tuple[str, ...] = ()
    #: Fields of `Config` by name, for tests and rare needs.
    system_config: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> "InitOptions":
        """Check and resolve the keywords of `init(...)`.

        Raises:
            UnknownKeywordError: when a keyword is unknown, or known to Ray and not supported here.
            TypeError: when a value is of the wrong type.
            ValueError: when a value is impossible.
        """
        for name in given:
            if name not in _RULES and name != "include_webui":
                raise UnknownKeywordError(unknown("keyword of init", name, _RULES, _REFUSED))
        checked = check_all(_renamed(given), _RULES)
        return cls(**{name.lstrip("_"): value for name, value in checked.items() if value is not None})


def _renamed(given: Mapping[str, object]) -> dict[str, object]:
    renamed = dict(given)
    if "include_webui" in renamed:
        warn_deprecated("include_webui is deprecated; use include_dashboard")
        old = renamed.pop("include_webui")
        if renamed.setdefault("include_dashboard", old) is not old:
            raise ValueError(
                f"include_webui={old!r} is the old name of include_dashboard; give only one of them"
            )
    return renamed


def _accept_address(value: object) -> object:
    if not isinstance(value, str):
        return Verdict.WRONG_TYPE
    if value != "local":
        raise ValueError(
            f'address={value!r} cannot be reached: clusters are not there yet; leave it out or say "local"'
        )
    return value


def _accept_folder(value: object) -> object:
    if not isinstance(value, (str, os.PathLike)):
        return Verdict.WRONG_TYPE
    path = os.fspath(value)
    return os.path.abspath(path) if isinstance(path, str) and os.path.isdir(path) else Verdict.IMPOSSIBLE


def _accept_gpus(value: object) -> object:
    count = _QUANTITY.accept(value)
    if isinstance(count, Verdict):
        return count
    return int(count) if count == int(count) else Verdict.IMPOSSIBLE


def _accept_level(value: object) -> object:
    if not isinstance(value, str):
        return _LEVEL_NUMBER.accept(value)
    return _LEVELS.get(value.upper(), Verdict.IMPOSSIBLE)


def _accept_preload(value: object) -> object:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        return Verdict.WRONG_TYPE
    names = all(part.isidentifier() for name in value for part in name.split("."))
    return tuple(value) if names else Verdict.IMPOSSIBLE


def _accept_config(value: object) -> object:
    if not isinstance(value, Mapping):
        return Verdict.WRONG_TYPE
    for name in value:
        if name not in CONFIG_RULES:
            raise ValueError(unknown("configuration field", name, CONFIG_RULES, {}))
    checked: dict[str, Any] = check_all(value, CONFIG_RULES)
    return {name: setting for name, setting in checked.items() if setting is not None}


_QUANTITY = number(at_least=0)
_LEVEL_NUMBER = whole(at_least=0)

_RULES: Mapping[str, Rule] = {
    "address": Rule('None or "local"', _accept_address),
    "num_cpus": _QUANTITY,
    "num_gpus": Rule("a whole number >= 0", _accept_gpus),
    "resources": CUSTOM_RESOURCES,
    "labels": text_map(),
    "object_store_memory": whole(at_least=MIN_OBJECT_STORE_BYTES, note=" (bytes)"),
    "object_spilling_directory": Rule("the path of a folder", _accept_folder),
    "namespace": text(),
    "logging_level": Rule(f"a whole number >= 0 or one of {', '.join(_LEVELS)}", _accept_level),
    "logging_format": text(),
    "log_to_driver": flag(),
    "ignore_reinit_error": flag(),
    "configure_logging": flag(),
    "include_dashboard": flag(),
    "dashboard_host": text(),
    "dashboard_port": whole(at_least=0, at_most=65535),
    "runtime_env": Rule("a dict", RuntimeEnv.parse),
    "preload": Rule("a list of names of modules", _accept_preload),
    "_system_config": Rule("a dict of configuration fields to numbers", _accept_config),
}

_REFUSED = {
    **dict.fromkeys(("local_mode", "storage"), "was dropped by Ray"),
    **dict.fromkeys(
        (
            "job_config",
            "logging_config",
            "enable_resource_isolation",
            "cgroup_path",
            "system_reserved_cpu",
            "system_reserved_memory",
            "proxy_server_url",
            "_enable_object_reconstruction",
            "_plasma_directory",
            "_node_ip_address",
            "_memory",
            "_redis_username",
            "_redis_password",
            "_temp_dir",
            "_metrics_export_port",
            "_tracing_startup_hook",
            "_node_name",
        ),
        "is known to Ray and not supported yet",
    ),
}
