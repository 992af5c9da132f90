"""Options of actors and of their methods: names, types and defaults, checked once, where they are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from .options import _QUANTITIES, _RULES, _accept_num_returns, _accept_retry_exceptions
from .resources import Resources
from .runtime_env import NO_RUNTIME_ENV, RuntimeEnv, RuntimeEnvDict
from .validation import Rule, Verdict, check_all, flag, text, unknown, whole


class ActorOptionsDict(TypedDict, total=False):
    """The keywords of `@remote(...)` and `.options(...)` for a class. None is the default of each."""

    #: CPUs held for life. None: 1 to be placed, none afterwards; 1 when any other resource is given.
    num_cpus: float | None
    num_gpus: float | None
    resources: Mapping[str, float] | None
    #: Bytes of heap to reserve. For scheduling only; nothing enforces it.
    memory: int | None
    accelerator_type: str | None
    label_selector: Mapping[str, str] | None
    fallback_strategy: list[Mapping[str, Any]] | None
    scheduling_strategy: object
    runtime_env: RuntimeEnvDict | RuntimeEnv | None
    max_restarts: int | None
    max_task_retries: int | None
    max_pending_calls: int | None
    max_concurrency: int | None
    allow_out_of_order_execution: bool | None
    #: Not for `.options()`.
    concurrency_groups: Mapping[str, int] | None
    name: str | None
    namespace: str | None
    get_if_exists: bool | None
    lifetime: Literal["detached", "non_detached"] | None
    isolation: Literal["process", "shared"] | None
    enable_task_events: bool | None
    _labels: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions:
    """Checked and resolved options of an actor. `ActorOptions.parse({})` are the defaults."""

    #: What the actor holds while it lives.
    resources: Resources = field(default_factory=lambda: Resources({}))
    #: What must be free where it is placed.
    placement: Resources = field(default_factory=lambda: Resources.from_options(num_cpus=1))
    accelerator_type: str | None = None
    label_selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    fallback_strategy: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    scheduling_strategy: Any = field(default="DEFAULT", hash=False)
    runtime_env: RuntimeEnv = NO_RUNTIME_ENV
    #: Times it is made anew when its process dies; -1 is without end.
    max_restarts: int = 0
    #: Times a call that was under way then is made again; -1 is without end.
    max_task_retries: int = 0
    #: Calls of one process that may be under way; -1 and 0 are without end.
    max_pending_calls: int = -1
    #: Calls that run at the same time: coroutines or threads. None is 1000 for an actor with coroutine
    #: methods and 1 for others.
    max_concurrency: int | None = None
    #: Whether calls need not start in the order made. None is True where several run at a time.
    allow_out_of_order_execution: bool | None = None
    #: Groups of methods, with how many calls of each may run at a time.
    concurrency_groups: Mapping[str, int] = field(default_factory=dict, hash=False)
    name: str | None = None
    #: Where the name is unique; None is the session's own.
    namespace: str | None = None
    #: Whether an actor that has the name already is taken instead.
    get_if_exists: bool = False
    #: "detached" outlives its creator.
    lifetime: str = "non_detached"
    isolation: str = "process"
    enable_task_events: bool = True
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: What `merge` starts from: the checked values by the names users give them.
    given: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> "ActorOptions":
        """Check and resolve the keywords of `@remote(...)` for a class.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when an option is unknown, or a value impossible.
        """
        return cls._resolve(_checked(given))

    def merge(self, given: Mapping[str, object]) -> "ActorOptions":
        """These options with those of `.options(...)` over them; None resets one.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when an option is unknown or not allowed here, or a value impossible.
        """
        if "concurrency_groups" in given:
            raise ValueError("concurrency_groups cannot be set in .options(); give it to @remote")
        return self._resolve({**self.given, **_checked(given)})

    @classmethod
    def _resolve(cls, given: dict[str, Any]) -> "ActorOptions":
        values = {name.lstrip("_"): value for name, value in given.items() if value is not None}
        quantities = {name: values.pop(name) for name in _QUANTITIES if name in values}
        if quantities:
            held = placed = Resources.from_options(**{"num_cpus": 1, **quantities})
        else:
            held, placed = Resources({}), Resources.from_options(num_cpus=1)
        if values.get("isolation") == "shared":
            held = placed = Resources({})
            _check_shared(values, quantities)
        if values.get("get_if_exists") and "name" not in values:
            raise ValueError("get_if_exists=True needs a name")
        return cls(**values, resources=held, placement=placed, given=given)


class MethodOptionsDict(TypedDict, total=False):
    """The keywords of `@method(...)` and of a method's `.options(...)`. None is what the actor says."""

    num_returns: int | Literal["streaming"] | None
    concurrency_group: str | None
    max_task_retries: int | None
    retry_exceptions: bool | list[type[BaseException]] | tuple[type[BaseException], ...] | None
    timeout: float | None
    name: str | None
    enable_task_events: bool | None
    max_unread: int | None
    _generator_backpressure_num_objects: int | None
    _num_objects_per_yield: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOptions:
    """Checked options of a method, from `@method(...)` or `.options(...)`. None is "as the actor says"."""

    num_returns: int | Literal["streaming"] | None = None
    concurrency_group: str | None = None
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[BaseException], ...] | None = None
    #: Seconds for the call, from its making to its end; see TaskOptions.timeout.
    timeout: float | None = None
    #: For logs and listings.
    name: str | None = None
    enable_task_events: bool | None = None
    #: Items of a stream that may be unread; see TaskOptions.max_unread.
    max_unread: int | None = None
    num_objects_per_yield: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> "MethodOptions":
        """Check the keywords of `@method(...)`.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when an option is unknown, or a value impossible.
        """
        for name in given:
            if name not in _METHOD_RULES:
                raise ValueError(unknown("method option", name, _METHOD_RULES, _REFUSED_METHOD))
        checked = check_all(given, _METHOD_RULES)
        if "_generator_backpressure_num_objects" in checked:  # Ray's name of it
            checked.setdefault("max_unread", checked.pop("_generator_backpressure_num_objects"))
        return cls(**{name.lstrip("_"): value for name, value in checked.items()})


def _checked(given: Mapping[str, object]) -> dict[str, Any]:
    for name in given:
        if name not in _ACTOR_RULES:
            raise ValueError(unknown("actor option", name, _ACTOR_RULES, _REFUSED_ACTOR))
    return check_all(given, _ACTOR_RULES)


def _check_shared(values: Mapping[str, Any], quantities: Mapping[str, Any]) -> None:
    """Refuse what only an actor with a process of its own can have.

    Raises:
        ValueError: when there is such an option.
    """
    held = {name: value for name, value in quantities.items() if value}
    placed = {name: values[name] for name in _FOR_PLACES if values.get(name)}
    for name, value in {**held, **placed}.items():
        raise ValueError(
            f'{name}={value!r} cannot be had with isolation="shared": a light actor has no process of its '
            "own, so it holds no resources and is not placed. Leave it out (num_cpus=0 is allowed), or use "
            'isolation="process"'
        )


def _accept_groups(value: object) -> object:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return Verdict.WRONG_TYPE
    return {name: _AT_ONCE.check(f"concurrency_groups: {name}", count) for name, count in value.items()}


def _one_of(*allowed: str) -> Rule:
    told = " or ".join(f'"{word}"' for word in allowed)
    return text(told, lambda value: value in allowed)


_COUNTED = whole(at_least=-1, note=" (-1 is without end)")
_AT_ONCE = whole(at_least=1)
_TASK_OPTIONS = (
    *_QUANTITIES,
    "accelerator_type",
    "label_selector",
    "fallback_strategy",
    "scheduling_strategy",
    "runtime_env",
    "enable_task_events",
    "_labels",
)
#: What says where an actor's process is to be.
_FOR_PLACES = ("accelerator_type", "label_selector", "fallback_strategy")
_ACTOR_RULES: Mapping[str, Rule] = {
    **{name: _RULES[name] for name in _TASK_OPTIONS},
    "max_restarts": _COUNTED,
    "max_task_retries": _COUNTED,
    "max_pending_calls": _COUNTED,
    "max_concurrency": _AT_ONCE,
    "allow_out_of_order_execution": flag(),
    "concurrency_groups": Rule("a dict of names to whole numbers >= 1", _accept_groups),
    "name": text(),
    "namespace": text(),
    "get_if_exists": flag(),
    "lifetime": _one_of("detached", "non_detached"),
    "isolation": _one_of("process", "shared"),
}
_METHOD_RULES: Mapping[str, Rule] = {
    "num_returns": Rule('a whole number >= 0 or "streaming"', _accept_num_returns),
    "concurrency_group": text(),
    "max_task_retries": _COUNTED,
    "retry_exceptions": Rule("True, False or a list of exception classes", _accept_retry_exceptions),
    "timeout": _RULES["timeout"],
    "name": text(),
    "enable_task_events": flag(),
    "max_unread": _RULES["max_unread"],
    "_generator_backpressure_num_objects": _RULES["max_unread"],
    "_num_objects_per_yield": _RULES["_num_objects_per_yield"],
}
_REFUSED_ACTOR = {
    **dict.fromkeys(
        ("num_returns", "max_calls", "max_retries", "retry_exceptions", "num_return_vals"),
        "is an option of tasks, not of actors",
    ),
    "object_store_memory": "is not implemented; Ray deprecates it",
    "_actor_generator_backpressure_num_objects": (
        "is not there: each stream has a bound of its own; give max_unread to the methods, or to their calls"
    ),
    **dict.fromkeys(
        ("placement_group", "placement_group_bundle_index", "placement_group_capture_child_tasks"),
        "was dropped; use scheduling_strategy",
    ),
}
_REFUSED_METHOD = {
    "tensor_transport": "is not there: there are no device tensors",
    "max_retries": "is an option of tasks; a method has max_task_retries",
}
