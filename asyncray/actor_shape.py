"""What a handle knows of its actor's class: enough to check and to send calls, and small enough to travel."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .actor_options import ActorOptions, MethodOptions

#: Where ``@method`` leaves its options on a function.
METHOD_OPTIONS: Final = "__asyncray_method__"
#: Methods that every actor has.
BUILT_IN: Final = ("__ray_ready__", "__ray_call__", "__ray_terminate__")
#: Called at every orderly end of an actor, the first that its class has.
STOP_HOOKS: Final = ("on_stop", "__ray_shutdown__")
#: Coroutines that run at the same time in an actor that has any.
_COROUTINES: Final = 1000


class MethodShape(NamedTuple):
    """One method."""

    #: How many references a call returns; "streaming" is a stream of them.
    returns: int | str = 1
    group: str = ""
    #: None is what the actor says.
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    #: Seconds for a call; None is without end.
    timeout_s: float | None = None
    #: Items of a stream that may be unread; None is the default.
    max_unread: int | None = None
    per_yield: int = 1
    #: How many arguments a call has, at least and at most.
    fewest: int = 0
    most: float = float("inf")

    def stream_options(self) -> dict[str, Any]:
        """What a worker must know of the streams of its calls; see worker.functions."""
        from .options import DEFAULT_MAX_UNREAD, DEFAULT_UNREAD_BYTES

        told = {"stream": DEFAULT_MAX_UNREAD if self.max_unread is None else max(self.max_unread, 0)}
        if self.max_unread is None:
            told["stream_bytes"] = DEFAULT_UNREAD_BYTES
        if self.per_yield != 1:
            told["per_yield"] = self.per_yield
        return told

    def merge(self, options: MethodOptions) -> MethodShape:
        """This method with those options that are given changed."""
        given: dict[str, Any] = {
            "returns": options.num_returns,
            "group": options.concurrency_group,
            "max_task_retries": options.max_task_retries,
            "retry_exceptions": options.retry_exceptions,
            "timeout_s": options.timeout,
            "max_unread": options.max_unread,
            "per_yield": options.num_objects_per_yield,
        }
        return self._replace(**{name: value for name, value in given.items() if value is not None})


class ActorShape(NamedTuple):
    """One class with its options, as far as callers and the worker must know."""

    name: str
    methods: Mapping[str, MethodShape]
    #: Whether it has coroutine methods.
    is_async: bool
    #: Calls that run at the same time, outside of groups.
    max_concurrency: int
    groups: Mapping[str, int]
    #: Whether the calls of one process start in the order made.
    ordered: bool = False
    max_task_retries: int = 0
    max_pending_calls: int = -1
    #: Whether it has something to do at an orderly end.
    stops: bool = False

    def to_wire(self) -> list[Any]:
        """What the worker must know, as it travels."""
        groups = {name: method.group for name, method in self.methods.items() if method.group}
        return [self.name, groups, self.is_async, self.max_concurrency, dict(self.groups)]

    @classmethod
    def from_wire(cls, told: Any) -> ActorShape:
        """The shape that to_wire told of, as far as it did.

        Raises:
            ProtocolError: when it is none.
        """
        kinds = (str, dict, bool, int, dict)
        if type(told) is not list or tuple(map(type, told)) != kinds:
            raise ProtocolError("an actor's class cannot be described like that")
        name, methods, is_async, at_once, groups = told
        shapes = {method: MethodShape(group=group) for method, group in methods.items()}
        return cls(name, shapes, is_async, at_once, groups)

    @property
    def mode(self) -> str:
        """How its worker runs calls: one after the other, or many on a loop."""
        return "sync" if not self.is_async and self.max_concurrency == 1 and not self.groups else "async"


def shape_of(cls: type[Any], options: ActorOptions) -> ActorShape:
    """The shape of a class.

    Raises:
        ValueError: when the options do not fit the class.
    """
    functions = {name: item for name, item in inspect.getmembers(cls, callable) if _is_method(name, item)}
    is_async = any(map(_is_coroutine, functions.values()))
    groups = options.concurrency_groups
    methods = {name: _method_shape(cls, name, item) for name, item in functions.items()}
    for name, method in methods.items():
        if method.group and method.group not in groups:
            raise ValueError(
                f"the method {name!r} of {cls.__qualname__!r} is of the concurrency group {method.group!r}, "
                f"and the groups are {sorted(groups)}"
            )
    if options.isolation == "shared" and not is_async:
        raise ValueError(
            f'isolation="shared" is for classes with coroutine methods, and {cls.__qualname__!r} has none: '
            "while one of its methods ran, no other actor of its process could. Write at least one as "
            '`async def`, or use isolation="process"'
        )
    at_once = options.max_concurrency or (_COROUTINES if is_async else 1)
    one_by_one = not is_async and at_once == 1 and not groups
    if options.allow_out_of_order_execution is False and not one_by_one:
        raise ValueError(
            "allow_out_of_order_execution=False is only for actors that run one call at a time: "
            f"{cls.__qualname__!r} runs several"
        )
    ordered = one_by_one and not options.allow_out_of_order_execution
    return ActorShape(
        cls.__qualname__,
        methods,
        is_async,
        at_once,
        dict(groups),
        ordered,
        options.max_task_retries,
        options.max_pending_calls,
        any(hasattr(cls, hook) for hook in STOP_HOOKS),
    )


def _is_method(name: str, item: Any) -> bool:
    return (not name.startswith("__") or name == "__call__") and callable(item) and not inspect.isclass(item)


def _is_coroutine(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _method_shape(cls: type[Any], name: str, function: Any) -> MethodShape:
    streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    bound = isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod))
    fewest, most = _arity(function, bound=bound)
    shape = MethodShape("streaming" if streams else 1, fewest=fewest, most=most)
    options: MethodOptions | None = getattr(function, METHOD_OPTIONS, None)
    return shape if options is None else shape.merge(options)


def _arity(function: Any, *, bound: bool) -> tuple[int, float]:
    """How many arguments are fine, at least and at most, without self."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # something written in C does not tell; the worker will
        return 0, float("inf")
    if not bound and parameters and parameters[0].kind is not parameters[0].VAR_POSITIONAL:
        parameters = parameters[1:]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [parameter for parameter in parameters if parameter.kind not in variable]
    fewest = sum(parameter.default is parameter.empty for parameter in named)
    return fewest, len(named) if len(named) == len(parameters) else float("inf")
