"""Options of tasks: their names, types and defaults, checked once, where the user gives them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypedDict

from .resources import CUSTOM_RESOURCES, Resources
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

#: Items of a stream that may be unread where nobody has said how many.
DEFAULT_MAX_UNREAD: Final = 1024
#: Bytes of large items that may be unread there.
DEFAULT_UNREAD_BYTES: Final = 16 * 1024 * 1024


class TaskOptionsDict(TypedDict, total=False):
    """The keywords of `@remote(...)` and `.options(...)` for a function. None is the default of each.

    A comment here says what the user gives; `TaskOptions` says what becomes of it.
    """

    #: CPUs, 1 unless given; fractions from 0.0001 up.
    num_cpus: float | None
    #: GPUs; fractions below 1.
    num_gpus: float | None
    #: Other resources by name.
    resources: Mapping[str, float] | None
    #: Bytes of heap to reserve. For scheduling only; nothing enforces it.
    memory: int | None
    accelerator_type: str | None
    label_selector: Mapping[str, str] | None
    fallback_strategy: list[Mapping[str, Any]] | None
    max_retries: int | None
    retry_exceptions: bool | list[type[BaseException]] | tuple[type[BaseException], ...] | None
    num_returns: int | Literal["streaming"] | None
    #: The old name of num_returns.
    num_return_vals: int | None
    scheduling_strategy: object
    runtime_env: RuntimeEnvDict | RuntimeEnv | None
    #: Not for `.options()`.
    max_calls: int | None
    name: str | None
    #: Seconds from the call to its end.
    timeout: float | None
    #: -100 to 100; higher goes first.
    priority: int | None
    enable_task_events: bool | None
    _labels: Mapping[str, str] | None
    max_unread: int | None
    #: Ray's private name of max_unread.
    _generator_backpressure_num_objects: int | None
    _num_objects_per_yield: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Checked and resolved options of a task. `TaskOptions.parse({})` are the defaults."""

    #: What the task holds while it runs: CPU, GPU, memory (bytes) and custom ones. One CPU unless given.
    resources: Resources = field(default_factory=lambda: Resources.from_options(num_cpus=1))
    #: A kind of accelerator the node should have, like "H100"; None is any. A node has 1 of it as a resource.
    accelerator_type: str | None = None
    #: Labels the node must have: "v", "!v", "in(a,b)" or "!in(a,b)" by key.
    label_selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: Label selectors to try in turn when no node has `label_selector`.
    fallback_strategy: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    #: Times it runs again when its worker or node dies; -1 is without end.
    max_retries: int = 3
    #: Whether errors of the task's own also use up `max_retries`: all of them, or these classes.
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    #: Refs that `.remote()` returns: 0 gives None, "streaming" a generator of refs. None is 1, or "streaming"
    #: for a generator function.
    num_returns: int | Literal["streaming"] | None = None
    #: "DEFAULT", "SPREAD", or an object of one of Ray's three strategy classes.
    scheduling_strategy: Any = field(default="DEFAULT", hash=False)
    #: The environment its worker must have; empty unless given.
    runtime_env: RuntimeEnv = NO_RUNTIME_ENV
    #: Runs after which its worker process exits; 0 is never. 1 with GPUs: libraries keep their memory.
    max_calls: int = 0
    #: For logs and listings; None is the function's own name.
    name: str | None = None
    #: Seconds that a call may take in all: queueing, running, retries, and what it calls for. None is as long
    #: as it takes. Then the reference raises GetTimeoutError and the work is cancelled.
    timeout: float | None = None
    #: Among tasks that wait for the same resources the higher goes first. A task's waiting counts, too: by
    #: default a minute is worth one level.
    priority: int = 0
    #: Whether its events are reported to observers.
    enable_task_events: bool = True
    #: Labels for listings.
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: Items of a stream that nobody has read yet at which its producer pauses; -1 is never. None is
    #: DEFAULT_MAX_UNREAD, or DEFAULT_UNREAD_BYTES, until somebody asks for the stream's end (`completed`).
    max_unread: int | None = None
    #: Objects that each yield of a streaming task makes.
    num_objects_per_yield: int = 1
    #: What `merge` starts from: the checked values by the names users give them.
    given: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> "TaskOptions":
        """Check and resolve the keywords of `@remote(...)`.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when an option is unknown, or a value impossible.
        """
        return cls._resolve(_checked(given))

    def merge(self, given: Mapping[str, object]) -> "TaskOptions":
        """These options with those of `.options(...)` over them; only those are checked, None resets one.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when an option is unknown or not allowed here, or a value impossible.
        """
        if "max_calls" in given:
            raise ValueError("max_calls cannot be set in .options(); give it to @remote")
        return self._resolve({**self.given, **_checked(given)})

    @classmethod
    def _resolve(cls, given: dict[str, Any]) -> "TaskOptions":
        values = {name.lstrip("_"): value for name, value in given.items() if value is not None}
        quantities = {name: values.pop(name) for name in _QUANTITIES if name in values}
        resources = Resources.from_options(**{"num_cpus": 1, **quantities})
        if "GPU" in resources:
            values.setdefault("max_calls", 1)
        return cls(**values, resources=resources, given=given)


def _checked(given: Mapping[str, object]) -> dict[str, Any]:
    """The given options in resolved form, under their present names."""
    for name in given:
        if name not in _RULES and name != "num_return_vals":
            raise ValueError(unknown("task option", name, _RULES, _REFUSED))
    renamed = dict(given)
    if "num_return_vals" in renamed:
        warn_deprecated("num_return_vals is deprecated; use num_returns")
        old = renamed.pop("num_return_vals")
        if renamed.setdefault("num_returns", old) is not old:
            raise ValueError(f"num_return_vals={old!r} is the old name of num_returns; give only one of them")
    checked = check_all(renamed, _RULES)
    bound = checked.pop("_generator_backpressure_num_objects", None)
    if bound is not None and checked.setdefault("max_unread", bound) != bound:
        raise ValueError(
            f"_generator_backpressure_num_objects={bound} is Ray's name of max_unread, which is "
            f"{checked['max_unread']}; give only one of them"
        )
    return checked


def _accept_retry_exceptions(value: object) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, (list, tuple)):
        return Verdict.WRONG_TYPE
    classes = all(isinstance(item, type) and issubclass(item, BaseException) for item in value)
    return tuple(value) if classes else Verdict.WRONG_TYPE


def _accept_num_returns(value: object) -> object:
    if value == "streaming":
        return value
    if value == "dynamic":
        raise ValueError('num_returns="dynamic" is not supported; use num_returns="streaming"')
    return Verdict.IMPOSSIBLE if isinstance(value, str) else _COUNT.accept(value)


def _accept_bound(value: object) -> object:
    return Verdict.IMPOSSIBLE if value == 0 and value is not False else _AT_LEAST_NEVER.accept(value)


def _accept_strategy(value: object) -> object:
    if isinstance(value, str):
        return value if value in ("DEFAULT", "SPREAD") else Verdict.IMPOSSIBLE
    return value if type(value).__name__ in _STRATEGIES else Verdict.WRONG_TYPE


def _accept_selector(value: object) -> object:
    selector = _LABELS.accept(value)
    if isinstance(selector, Verdict):
        return selector
    fits = all(
        re.fullmatch(_KEY, key) and re.fullmatch(_CONDITION, wanted) for key, wanted in selector.items()
    )
    return selector if fits else Verdict.IMPOSSIBLE


def _accept_fallback(value: object) -> object:
    """Resolve [{"label_selector": {...}}, ...] to the selectors alone."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
        return Verdict.WRONG_TYPE
    if not all(list(item) == ["label_selector"] for item in value):
        return Verdict.IMPOSSIBLE
    return tuple(
        _SELECTOR.check("fallback_strategy: label_selector", item["label_selector"]) for item in value
    )


# The label syntax of Kubernetes: 63 characters a name, and a DNS name before the slash of a key.
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9.-]{{1,253}}/)?{_WORD}"
_CONDITION = rf"!?(?:{_WORD}|in\(\s*{_WORD}(?:\s*,\s*{_WORD})*\s*\))|"

_COUNT = whole(at_least=0)
_AT_LEAST_NEVER = whole(at_least=-1)
_BOUND = Rule("a whole number > 0 (-1 never pauses)", _accept_bound)
_LABELS = text_map()
_SELECTOR = Rule('a dict of label keys to "v", "!v", "in(a,b)" or "!in(a,b)"', _accept_selector)
_STRATEGIES = (
    "PlacementGroupSchedulingStrategy",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
)
#: The highest priority; the lowest is its negative. So much bounds how long anybody can be overtaken.
MOST_PRIORITY = 100
_QUANTITIES = ("num_cpus", "num_gpus", "memory", "resources")

_RULES: Mapping[str, Rule] = {
    "num_cpus": number(at_least=0),
    "num_gpus": number(at_least=0),
    "resources": CUSTOM_RESOURCES,
    "memory": whole(at_least=0, note=" (bytes)"),
    "accelerator_type": text(),
    "label_selector": _SELECTOR,
    "fallback_strategy": Rule("a list of dicts whose only key is label_selector", _accept_fallback),
    "max_retries": whole(at_least=-1, note=" (-1 retries without end)"),
    "retry_exceptions": Rule("True, False or a list of exception classes", _accept_retry_exceptions),
    "num_returns": Rule('a whole number >= 0 or "streaming"', _accept_num_returns),
    "scheduling_strategy": Rule(f'"DEFAULT", "SPREAD" or one of {", ".join(_STRATEGIES)}', _accept_strategy),
    "runtime_env": Rule("a dict", RuntimeEnv.parse),
    "max_calls": whole(at_least=0, note=" (0 is without end)"),
    "name": text(),
    "timeout": number(above=0),
    "priority": whole(at_least=-MOST_PRIORITY, at_most=MOST_PRIORITY),
    "enable_task_events": flag(),
    "_labels": _LABELS,
    "max_unread": _BOUND,
    "_generator_backpressure_num_objects": _BOUND,
    "_num_objects_per_yield": whole(at_least=1),
}

_REFUSED = {
    "object_store_memory": "is not implemented for tasks; Ray does not have it either",
    "_metadata": "was renamed; use _labels",
    **dict.fromkeys(
        ("placement_group", "placement_group_bundle_index", "placement_group_capture_child_tasks"),
        "was dropped; use scheduling_strategy",
    ),
    **dict.fromkeys(
        (
            "max_restarts",
            "max_task_retries",
            "max_pending_calls",
            "max_concurrency",
            "allow_out_of_order_execution",
            "concurrency_groups",
            "namespace",
            "get_if_exists",
            "lifetime",
        ),
        "is an option of actors, not of tasks",
    ),
}
