"""What a handle knows of its actor's class: enough to check and to send calls, and small enough to travel."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .exceptions import ProtocolError
from .parameters import described, misfit, positional_alone, without_self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .actor_options import ActorOptions, MethodOptions

#: Where ``@method`` leaves its options on a function.
METHOD_OPTIONS: Final = "__asyncray_method__"
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
    #: What its calls are called in errors and logs; "" is the class's name and its own.
    title: str = ""
    #: How many positional arguments alone are fine, at least and at most.
    fewest: int = 0
    most: float = float("inf")
    #: What arguments it takes; see parameters. None is not known: its worker will tell.
    takes: str | None = None
    #: Whether it yields: "no", "yes", or "async" for an asynchronous generator; "" is not known.
    yields: str = ""

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
            "title": options.name,
        }
        return self._replace(**{name: value for name, value in given.items() if value is not None})

    def check(self, name: str) -> MethodShape:
        """This method, whose options fit it.

        Args:
            name: What it is called in the error.

        Raises:
            ValueError: when they do not.
        """
        if self.yields == "no":
            if self.returns == "streaming":
                raise ValueError(
                    f'num_returns="streaming" is for generator functions, and {name!r} has no yield'
                )
            if self.max_unread is not None:
                bound = self.max_unread
                raise ValueError(f"max_unread={bound} is for generator functions, and {name!r} has no yield")
        elif self.yields and self.returns == 0:
            raise ValueError(f"{name!r} is a generator function: with num_returns=0 its body would never run")
        elif self.yields == "async" and self.returns != "streaming":
            raise ValueError(f"{name!r} is an asynchronous generator function: it can only stream")
        return self


#: Methods that every actor has.
BUILT_IN: Final = {
    "__ray_ready__": MethodShape(most=0, takes=""),
    "__ray_call__": MethodShape(fewest=1, takes="0function 2args 4kwargs"),
    "__ray_terminate__": MethodShape(most=0, takes=""),
}


@dataclass(frozen=True, slots=True, eq=False)
class ActorShape:
    """One class with its options, as far as callers and the worker must know.

    It travels pickled in one piece, once made: a handle costs a copy of those bytes, and all handles that
    come with the same bytes share one shape.
    """

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
    #: All of it as it travels; empty until it has.
    _packed: bytes = field(default=b"", repr=False)

    @property
    def packed(self) -> bytes:
        """All of it, pickled."""
        if not self._packed:
            object.__setattr__(self, "_packed", self._pickled())
        return self._packed

    def _pickled(self) -> bytes:
        told = [getattr(self, item.name) for item in fields(self)[:-1]]
        if any(type(method.retry_exceptions) is tuple for method in self.methods.values()):
            import cloudpickle  # those classes may be of __main__

            classes_too: bytes = cloudpickle.dumps(told, protocol=5)
            return classes_too
        import pickle

        return pickle.dumps(told, protocol=5)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self.packed,)

    def complete(self) -> ActorShape:
        """The whole shape, where from_wire has made the part that a worker needs."""
        return _unpacked(self._packed) if self._packed else self

    def to_wire(self) -> list[Any]:
        """What the worker must know, as it travels."""
        groups = {name: method.group for name, method in self.methods.items() if method.group}
        return [self.name, groups, self.is_async, self.max_concurrency, dict(self.groups), self.packed]

    @classmethod
    def from_wire(cls, told: Any) -> ActorShape:
        """The shape that to_wire told of, as far as it did.

        Raises:
            ProtocolError: when it is none.
        """
        kinds = (str, dict, bool, int, dict, bytes)
        if type(told) is not list or tuple(map(type, told)) != kinds:
            raise ProtocolError("an actor's class cannot be described like that")
        name, methods, is_async, at_once, groups, packed = told
        names = [*methods, *methods.values(), *groups]
        limits = [at_once, *groups.values()]
        if not all(type(text) is str for text in names) or not all(type(n) is int and n > 0 for n in limits):
            raise ProtocolError("an actor's methods and groups go by names, and each group has some room")
        shapes = {method: MethodShape(group=group) for method, group in methods.items()}
        return cls(name, shapes, is_async, at_once, groups, _packed=packed)

    def changed(self, name: str, method: MethodShape, options: MethodOptions) -> MethodShape:
        """A method with those options that are given changed.

        Raises:
            ValueError: when they do not fit the method, or there is no such concurrency group.
        """
        changed = method.merge(options).check(f"{self.name}.{name}")
        if changed.group and changed.group not in self.groups:
            raise ValueError(
                f"the actor {self.name!r} has no concurrency group {changed.group!r}; its groups are "
                f"{sorted(self.groups)}"
            )
        return changed

    def check_arguments(self, name: str, method: MethodShape, count: int, names: tuple[str, ...]) -> None:
        """Check a call: it has so many positional arguments, and keyword arguments of these names.

        Raises:
            TypeError: when they do not fit the method.
        """
        wrong = "" if method.takes is None else misfit(method.takes, count, names)
        if wrong:
            raise TypeError(f"{self.name}.{name}() cannot be called so: {wrong}")

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


@lru_cache(maxsize=1024)
def _unpacked(packed: bytes) -> ActorShape:
    """What a pickled shape calls."""
    import pickle

    shape = ActorShape(*pickle.loads(packed))
    object.__setattr__(shape, "_packed", packed)
    return shape


def _is_method(name: str, item: Any) -> bool:
    if inspect.isclass(item) or not callable(item):
        return False
    # What every object has is no method of an actor; what the class itself has written is.
    return not name.startswith("__") or (inspect.isfunction(item) and name not in vars(object))


def _is_coroutine(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _method_shape(cls: type[Any], name: str, function: Any) -> MethodShape:
    static = inspect.getattr_static(cls, name)
    bound = isinstance(static, (staticmethod, classmethod)) or not hasattr(type(static), "__get__")
    yields = _yields(function)
    shape = MethodShape("streaming" if yields in ("yes", "async") else 1, yields=yields)
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # something written in C does not tell; the worker will
        pass
    else:
        signature = signature if bound else without_self(signature)
        fewest, most = positional_alone(signature)
        shape = shape._replace(fewest=fewest, most=most, takes=described(signature))
    options: MethodOptions | None = getattr(function, METHOD_OPTIONS, None)
    return shape if options is None else shape.merge(options).check(f"{cls.__qualname__}.{name}")


def _yields(function: Any) -> str:
    if inspect.isasyncgenfunction(function):
        return "async"
    if inspect.isgeneratorfunction(function):
        return "yes"
    # What wraps a function may return what that returns.
    plain = inspect.isroutine(function) and not hasattr(function, "__wrapped__")
    return "no" if plain else ""
