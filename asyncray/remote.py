"""``@remote`` for functions: what a call looks like to the user and to the type checker."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, Protocol, TypeVar, Unpack, overload

from .lifecycle import session_or_init
from .options import TaskOptions, TaskOptionsDict
from .parameters import positional_alone
from .process import current
from .runtime_env import RuntimeEnv

if TYPE_CHECKING:
    from .actor import ActorClass
    from .actor_options import ActorOptionsDict
    from .client.session import Session
    from .generators import ObjectRefGenerator
    from .refs import ObjectRef
    from .state.tasks import Descriptor
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")
F_co = TypeVar("F_co", bound=Callable[..., Any], covariant=True)


class Once:
    """Marks, for the type checker, the type of a function whose calls give one reference."""


class Streamed:
    """Marks the type of a generator function, whose calls give many."""


class RemoteFunction(Generic[F_co, P, R]):
    """A function whose calls run in workers. Made by :func:`remote`; call it with ``.remote()``."""

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        self._function = function
        self._options = options
        #: The session that the descriptor belongs to, and the descriptor; remade for each session.
        self._bound: tuple[Session, Descriptor] | None = None
        self._arity = _arity(function)
        functools.update_wrapper(self, function)

    # The type of a function with an Any in it may not tell whether that is a generator function. The type
    # checker joins the two answers to RemoteFunction[Any, ..., Any]; that alone fits here.
    @overload
    def remote(
        self: RemoteFunction[Callable[..., Never], P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Any: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[..., Once], P, R], *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRef[R]: ...
    @overload
    def remote(self: RemoteFunction[Callable[[A], Once], P, R], a: A | ObjectRef[A], /) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A, B], Once], P, R], a: A | ObjectRef[A], b: B | ObjectRef[B], /
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A, B, C], Once], P, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A, B, C, D], Once], P, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[..., Streamed], P, R], *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRefGenerator[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A], Streamed], P, R], a: A | ObjectRef[A], /
    ) -> ObjectRefGenerator[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A, B], Streamed], P, R], a: A | ObjectRef[A], b: B | ObjectRef[B], /
    ) -> ObjectRefGenerator[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A, B, C], Streamed], P, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
    ) -> ObjectRefGenerator[R]: ...
    @overload
    def remote(
        self: RemoteFunction[Callable[[A, B, C, D], Streamed], P, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
    ) -> ObjectRefGenerator[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in a worker; returns at once. Starts a session when there is none.

        A reference given directly as an argument is replaced by its value before the function runs; one
        inside a container stays a reference.

        Returns:
            A reference to the result. With ``num_returns=n`` a list of n references; None with 0. A generator
            function gives an ObjectRefGenerator of references.

        Raises:
            TypeError: when an argument cannot be pickled, or the arguments do not fit the function.
            LocalRayletDiedError: when the session's node has died.
        """
        bound = self._bound
        session = current().session
        if bound is None or bound[0] is not session or session.failure is not None:
            bound = self._bind()
            session = bound[0]
        fewest, most = self._arity
        if kwargs or not fewest <= len(args) <= most:
            self._check_arguments(args, kwargs)
        return session.submit(bound[1], args, kwargs)

    def _bind(self) -> tuple[Session, Descriptor]:
        session = session_or_init()
        session.check_alive()
        options = self._options
        merged = RuntimeEnv.merge(session.environment, options.runtime_env)
        name = options.name or self._function.__qualname__
        descriptor = session.descriptors.make(self._function, name, options, merged)
        self._bound = (session, descriptor)
        return self._bound

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            signature = inspect.signature(self._function)
        except ValueError:  # some functions written in C do not tell; the worker will
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._function.__qualname__}() cannot be called so: {error}") from None

    def options(self, **options: Unpack[TaskOptionsDict]) -> RemoteFunction[F_co, P, R]:
        """The same function with some options changed.

        Raises:
            TypeError: when an option is of the wrong type.
            ValueError: when an option is unknown, cannot be changed here, or has an impossible value.
        """
        return RemoteFunction(self._function, _fitting(self._function, self._options.merge(options)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"a remote function cannot be called directly: use {self._function.__name__}.remote() instead of "
            f"{self._function.__name__}()"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)

    def __repr__(self) -> str:
        return f"<remote function {self._function.__module__}.{self._function.__qualname__}>"


class ClassDecorator(Protocol):
    """What ``remote(**options)`` returns where an option is one of actors."""

    def __call__(self, cls: type[T], /) -> ActorClass[T]: ...


class Decorator(Protocol):
    """What ``remote(**options)`` returns."""

    @overload
    def __call__(self, cls: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> RemoteFunction[Callable[P, Once], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Iterator[R] | AsyncIterator[R]], /
    ) -> RemoteFunction[Callable[P, Streamed], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> RemoteFunction[Callable[P, Once], P, R]: ...


@overload
def remote(cls: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[Callable[P, Once], P, R]: ...
@overload
def remote(  # type: ignore[overload-overlap]
    function: Callable[P, Iterator[R] | AsyncIterator[R]], /
) -> RemoteFunction[Callable[P, Streamed], P, R]: ...
@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[Callable[P, Once], P, R]: ...
@overload
def remote(**options: Unpack[TaskOptionsDict]) -> Decorator: ...
@overload
def remote(**options: Unpack[ActorOptionsDict]) -> ClassDecorator: ...
def remote(*args: Any, **options: Any) -> Any:
    """Make a function or a class remote: ``@remote``, with options (``@remote(num_cpus=2)``), or as a call.

    A coroutine function is fine: its calls share a worker, up to a thousand at a time. A generator function,
    plain or asynchronous, streams: its call returns an :class:`ObjectRefGenerator`.

    Args:
        *args: The function or class, for ``@remote`` alone.
        **options: See :class:`asyncray.options.TaskOptionsDict`, for a class
            :class:`asyncray.actor_options.ActorOptionsDict`; ``f.options(...)`` changes them for a call.
            The important ones are num_cpus (1), num_gpus, resources ({name: quantity}), num_returns (1),
            max_retries (3, after the death of a worker), retry_exceptions (False), timeout (seconds for all
            of the call), priority (0; -100 to 100), max_unread (items that a stream may be ahead),
            runtime_env and name.

    Returns:
        A :class:`RemoteFunction`, or for a class an :class:`asyncray.actor.ActorClass`, whose instances are
        actors; with options, a decorator that makes one.

    Raises:
        TypeError: when what is given is neither, or an option is of the wrong type.
        ValueError: when an option is unknown or has an impossible value.
    """
    if args and options:
        raise TypeError("give either a function or options: @remote, or @remote(num_cpus=2)")
    if not args:
        if not options:
            raise TypeError("use @remote without parentheses, or give options: @remote(num_cpus=2)")
        _check_for_either(options)
        return lambda what: _make(what, options)
    if len(args) > 1:
        raise TypeError(f"remote takes one function or class, not {len(args)} arguments")
    return _make(args[0], {})


def _check_for_either(options: dict[str, Any]) -> None:
    """Refuse at once what neither a function nor a class could have.

    Raises:
        TypeError: when an option is of the wrong type.
        ValueError: when an option is unknown or has an impossible value.
    """
    try:
        TaskOptions.parse(options)
    except (TypeError, ValueError):
        from .actor_options import ActorOptions, ActorOptionsDict

        if not any(name in ActorOptionsDict.__annotations__ for name in options):
            raise
        try:
            ActorOptions.parse(options)
        except (TypeError, ValueError):
            if any(name not in TaskOptionsDict.__annotations__ for name in options):
                raise
        else:
            return
        raise


def _arity(function: Callable[..., Any]) -> tuple[int, float]:
    """How many positional arguments alone are fine: fewest and most. None are where keywords are needed."""
    try:
        return positional_alone(inspect.signature(function))
    except ValueError:
        return 0, float("inf")


def _make(what: Any, options: dict[str, Any]) -> Any:
    if isinstance(what, FunctionType):
        return RemoteFunction(what, _fitting(what, TaskOptions.parse(options)))
    from .actor import ActorClass

    if inspect.isclass(what):
        from .actor_options import ActorOptions

        return ActorClass(what, ActorOptions.parse(options))
    if isinstance(what, (RemoteFunction, ActorClass)):
        raise TypeError(f"{what!r} is remote already")
    if not callable(what) or not hasattr(what, "__qualname__"):
        raise TypeError(f"remote needs a function or a class, not {what!r} of type {type(what).__name__}")
    return RemoteFunction(what, _fitting(what, TaskOptions.parse(options)))


def _fitting(function: Any, options: TaskOptions) -> TaskOptions:
    """Options that fit the function: one that is a generator function streams.

    Raises:
        ValueError: when they do not.
    """
    name = function.__qualname__
    asynchronous = inspect.isasyncgenfunction(function)
    if not asynchronous and not inspect.isgeneratorfunction(function):
        if options.num_returns == "streaming":
            raise ValueError(f'num_returns="streaming" is for generator functions, and {name!r} has no yield')
        if options.max_unread is not None:
            bound = options.max_unread
            raise ValueError(f"max_unread={bound} is for generator functions, and {name!r} has no yield")
        return options
    if options.num_returns is None:
        return replace(options, num_returns="streaming")
    if options.num_returns == 0:
        raise ValueError(f"{name!r} is a generator function: with num_returns=0 its body would never run")
    if asynchronous and options.num_returns != "streaming":
        raise ValueError(f"{name!r} is an asynchronous generator function: it can only stream")
    return options
