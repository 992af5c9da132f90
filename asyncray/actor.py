"""Actors: classes whose instances live in a process of their own and are called through handles.

    @ray.remote
    class Counter:
        def __init__(self, start=0):
            self.value = start

        def add(self, amount=1):
            self.value += amount
            return self.value

    counter = Counter.remote(10)
    print(ray.get(counter.add.remote()))       # 11

A handle can be passed to tasks and other actors, returned and stored; the actor lives as long as somebody
holds one, or until it is killed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, Unpack, overload

from .actor_bindings import Bindings
from .actor_handle import ActorHandle, ActorMethod, handle_from
from .actor_shape import METHOD_OPTIONS, ActorShape, shape_of
from .exceptions import (
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
)
from .lifecycle import session_or_init
from .parameters import positional_alone
from .process import current

if TYPE_CHECKING:
    from .actor_options import ActorOptions, ActorOptionsDict, MethodOptionsDict
    from .client.host_calls import HostCalls
    from .client.plans import Plan
    from .client.session import Session

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor", "kill", "method", "this_actor"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


_AWAIT_REMOTE = "`await actor_class.remote_async(...)`"


class ActorClass(Generic[T]):
    """A class whose instances are actors. Made by ``remote``; call it with ``.remote()``."""

    def __init__(
        self,
        cls: type[T],
        options: ActorOptions,
        bindings: Bindings | None = None,
        shape: ActorShape | None = None,
    ) -> None:
        self._cls = cls
        self._options = options
        # An unpickled one brings its shape: a class that names itself is unpickled before it has its methods.
        self._shape = shape_of(cls, options) if shape is None else shape
        self._bindings = Bindings() if bindings is None else bindings
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Make an actor; returns its handle at once. Starts a session when there is none.

        What the constructor raises, every call of the actor raises as ActorDiedError.

        Raises:
            ActorAlreadyExistsError: when another actor has the name.
            RuntimeError: when a name is given on a running event loop, which must not wait for the node; use
                ``await actor_class.remote_async(...)``.
            TypeError: when an argument cannot be pickled, or the arguments do not fit the constructor.
            ValueError: when the options ask for what is not there.
        """
        session = self._check(args, kwargs)
        if self._needs_keeper(session):
            keeper = handle_from(session.questions.blocking("keeper", None, _AWAIT_REMOTE))
            return keeper.make.remote(self, args, kwargs).result()  # type: ignore[no-any-return]
        making = self._making(session, args, kwargs)
        if making.name is None:
            return making.make()
        with making.or_never():
            taken = session.questions.blocking("claim_name", making.claim(), _AWAIT_REMOTE)
        return making.claimed(taken)

    async def remote_async(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """As ``remote``, for coroutines that give their actors names.

        Raises:
            ActorAlreadyExistsError: when another actor has the name.
            TypeError: when an argument cannot be pickled, or the arguments do not fit the constructor.
            ValueError: when the options ask for what is not there.
        """
        session = self._check(args, kwargs)
        if self._needs_keeper(session):
            keeper = handle_from(await session.questions.awaited("keeper"))
            return await keeper.make.remote(self, args, kwargs)  # type: ignore[no-any-return]
        making = self._making(session, args, kwargs)
        if making.name is None:
            return making.make()
        with making.or_never():
            taken = await session.questions.awaited("claim_name", making.claim())
        return making.claimed(taken)

    def options(self, **options: Unpack[ActorOptionsDict]) -> ActorClass[T]:
        """The same class with some options changed.

        Raises:
            TypeError: when an option is of the wrong type.
            ValueError: when an option is unknown, cannot be changed here, or has an impossible value.
        """
        return ActorClass(self._cls, self._options.merge(options), self._bindings)

    @cached_property
    def _signature(self) -> inspect.Signature | None:
        return _signature(self._cls)

    @cached_property
    def _counts(self) -> tuple[int, float]:
        """How many arguments without keywords fit for sure: a look at that costs less than to bind them."""
        return (1, 0) if self._signature is None else positional_alone(self._signature)

    def _needs_keeper(self, session: Session) -> bool:
        """Whether the actor is to outlive this process, which does not last as long as the session."""
        return self._options.lifetime == "detached" and current().worker and not session.keeps_detached

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Session:
        signature = self._signature
        fewest, most = self._counts
        if signature is not None and (kwargs or not fewest <= len(args) <= most):
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._cls.__qualname__}() cannot be made so: {error}") from None
        session = session_or_init()
        session.check_alive()
        return session

    def _making(self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Making[T]:
        host = None
        if self._options.isolation == "shared":
            host = session.lights.filling.host_for(self._options.runtime_env)
            descriptor = self._bindings.light(session, self._cls, self._shape, host)
        else:
            descriptor = self._bindings.descriptor(session, self._cls, self._shape, self._options)
        plan = session.actors.plan(descriptor, args, kwargs, self._options)
        return _Making(session, plan, self._shape, host)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"an actor class cannot be called directly: use {self._cls.__name__}.remote() instead of "
            f"{self._cls.__name__}()"
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type[Any], ...]:
        return (self._cls,)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._cls, self._options, None, self._shape)

    def __repr__(self) -> str:
        return f"<actor class {self._cls.__module__}.{self._cls.__qualname__}>"


class _Making(Generic[T]):
    """One actor that is about to be made."""

    def __init__(self, session: Session, plan: Plan, shape: ActorShape, host: HostCalls | None) -> None:
        self._session = session
        self._host = host
        self._shape = shape
        self._plan = plan
        self.name = plan.name
        self._life = session.actors.reserve()

    def make(self) -> ActorHandle[T]:
        """Make it; returns its handle."""
        host = self._host
        if host is None:
            self._session.actors.create(self._plan, self._shape, self._life)
            return ActorHandle(self._life, None, self._shape)
        self._session.lights.create(self._plan, self._shape, self._life, host)
        return ActorHandle(self._life, None, self._shape, host.key)

    def claim(self) -> list[Any]:
        """What to claim its name with."""
        from .wire.values import encode_in_band

        address = self._session.references.address_of(self._life)
        host = () if self._host is None else (self._host.key,)
        return [*(self.name or ()), address[2], encode_in_band((address, self._shape, *host))[0]]

    @contextmanager
    def or_never(self) -> Iterator[None]:
        """Whoever does not wait for the node's answer makes no actor, and does not keep its name."""
        try:
            yield
        except BaseException:
            self._session.actors.discard(self._life, self.name)
            raise

    def claimed(self, taken: bytes | None) -> ActorHandle[T]:
        """The node has answered: make it, unless another one has the name."""
        if taken is None:
            return self.make()
        self._session.actors.discard(self._life)
        if self._plan.get_if_exists:
            return handle_from(taken)
        namespace, name = self.name or ("", "")
        raise ActorAlreadyExistsError(
            f"the name {name!r} is taken by another actor in the namespace {namespace!r}; choose another, or "
            "give get_if_exists=True"
        )


@overload
def method(function: F, /) -> F: ...
@overload
def method(**options: Unpack[MethodOptionsDict]) -> Callable[[F], F]: ...
def method(*args: Any, **options: Any) -> Any:
    """Set options of a method: ``@method(num_returns=2)`` in the body of an actor's class.

    Args:
        *args: The method, where the decorator is used without parentheses.
        **options: num_returns (1), concurrency_group, max_task_retries and retry_exceptions (the actor's),
            timeout (seconds for a call, with all that it calls for; None).

    Raises:
        TypeError: when an option is of the wrong type.
        ValueError: when an option is unknown or has an impossible value.
    """
    from .actor_options import MethodOptions

    parsed = MethodOptions.parse(options)

    def mark(function: F) -> F:
        if not callable(function):
            raise TypeError(f"method takes a function, not {function!r}")
        setattr(function, METHOD_OPTIONS, parsed)
        return function

    return mark(args[0]) if args else mark


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor here and now: nothing of it runs any more, no hook either.

    Args:
        actor: Its handle.
        no_restart: False lets it start again, as after a crash, if max_restarts has any left.

    Raises:
        ActorHandleNotFoundError: when the handle is one of an earlier session.
        ValueError: when it is no handle of an actor.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(  # noqa: TRY004 - Ray's type
            f"kill takes the handle of an actor, not {actor!r} of type {type(actor).__name__}; tasks are "
            "ended by cancel"
        )
    session = actor._ray_session
    if current().session is not session:
        raise ActorHandleNotFoundError(f"{actor!r} is a handle of another session, and has ended with it")
    calls = actor._ray_calls
    light = calls is not None and calls.light
    session.actors.kill(actor._ray_address, no_restart=no_restart, light=light)


def exit_actor() -> NoReturn:
    """Leave the actor whose method is running: the calls that run are finished, and the actor ends.

    Raises:
        TypeError: outside of an actor.
    """
    session = current().session
    hosting = None if session is None else session.hosting
    if hosting is None or hosting.shape is None:
        raise TypeError("exit_actor is for methods of actors")
    from .worker.hosting import ActorExit

    hosting.leave("it left by exit_actor()")
    raise ActorExit


def this_actor(session: Session) -> ActorHandle[Any]:
    """The handle of the actor that this worker is; it does not keep the actor alive.

    Raises:
        RuntimeError: when it is none.
    """
    hosting = session.hosting
    if hosting is None or hosting.address is None or hosting.shape is None:
        raise RuntimeError("current_actor asks about the actor that runs, and this is none")
    return ActorHandle(None, hosting.address, hosting.shape.complete(), hosting.host)


def _signature(cls: type[Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(cls)
    except ValueError:  # some classes written in C do not tell; the worker will
        return None
