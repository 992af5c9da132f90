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
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, Unpack, overload

from .actor_bindings import Bindings
from .actor_shape import BUILT_IN, METHOD_OPTIONS, ActorShape, MethodShape, shape_of
from .exceptions import (
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayActorError,
)
from .ids import object_binary
from .lifecycle import session_or_init
from .process import current

if TYPE_CHECKING:
    from .actor_options import ActorOptions, ActorOptionsDict
    from .client.actor_calls import ActorCalls
    from .client.host_calls import HostCalls, LightMethods
    from .client.plans import Plan
    from .client.session import Session
    from .refs import ObjectRef, RefAddress
    from .state.tasks import Descriptor, Task

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
            keeper = _handle_from(session.questions.blocking("keeper", None, _AWAIT_REMOTE))
            return keeper.make.remote(self, args, kwargs).result()  # type: ignore[no-any-return]
        making = self._making(session, args, kwargs)
        if making.name is None:
            return making.make()
        return making.claimed(session.questions.blocking("claim_name", making.claim(), _AWAIT_REMOTE))

    async def remote_async(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """As ``remote``, for coroutines that give their actors names.

        Raises:
            ActorAlreadyExistsError: when another actor has the name.
            TypeError: when an argument cannot be pickled, or the arguments do not fit the constructor.
            ValueError: when the options ask for what is not there.
        """
        session = self._check(args, kwargs)
        if self._needs_keeper(session):
            keeper = _handle_from(await session.questions.awaited("keeper"))
            return await keeper.make.remote(self, args, kwargs)  # type: ignore[no-any-return]
        making = self._making(session, args, kwargs)
        if making.name is None:
            return making.make()
        return making.claimed(await session.questions.awaited("claim_name", making.claim()))

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

    def _needs_keeper(self, session: Session) -> bool:
        """Whether the actor is to outlive this process, which does not last as long as the session."""
        return self._options.lifetime == "detached" and current().worker and not session.keeps_detached

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Session:
        signature = self._signature
        if signature is not None:
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

    def claimed(self, taken: bytes | None) -> ActorHandle[T]:
        """The node has answered: make it, unless another one has the name."""
        if taken is None:
            return self.make()
        self._session.actors.discard(self._life)
        if self._plan.get_if_exists:
            return _handle_from(taken)
        namespace, name = self.name or ("", "")
        raise ActorAlreadyExistsError(
            f"the name {name!r} is taken by another actor in the namespace {namespace!r}; choose another, or "
            "give get_if_exists=True"
        )


class ActorHandle(Generic[T]):
    """The way to an actor. ``handle.method.remote(...)`` calls it; the actor lives while handles are held.

    As an asynchronous context manager it ends the actor, when that has done what was called for.
    """

    # Names that a user's class is not likely to have: everything else is a method of the actor.
    __slots__ = (
        "__weakref__", "_ray_address", "_ray_calls", "_ray_life", "_ray_methods", "_ray_session",
        "_ray_shape",
    )  # fmt: skip

    def __init__(
        self, life: ObjectRef[Any] | None, address: RefAddress | None, shape: ActorShape, host: Any = None
    ) -> None:
        session = session_or_init()
        self._ray_session = session
        #: What keeps the actor alive; None for a handle that does not.
        self._ray_life = life
        if life is not None:
            address = session.references.address(life._record)
        self._ray_address: RefAddress = address  # type: ignore[assignment]
        self._ray_shape = shape
        self._ray_calls: ActorCalls | LightMethods | None = None
        if host is None:
            self._ray_methods: dict[object, Descriptor] = {}
            return
        calls = self._ray_calls = session.lights.methods(host, shape)
        self._ray_shape, self._ray_methods = calls.shape, calls.bound

    @property
    def _actor_id(self) -> bytes:
        """The actor's id, 28 bytes."""
        return object_binary(self._ray_address[0], self._ray_address[2])

    def __getattr__(self, name: str) -> ActorMethod:
        shape = self._ray_shape.methods.get(name)
        if shape is None:
            if name not in BUILT_IN:
                raise AttributeError(_no_method(self._ray_shape, name))
            shape = MethodShape()
        return ActorMethod(self, name, shape)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._ray_shape.methods]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self.__getattr__("__ray_terminate__").remote()
        except (RayActorError, OutOfMemoryError):  # what it answers with, at last
            return

    def __reduce__(self) -> tuple[Any, ...]:
        calls = self._ray_calls
        host = (calls.group.key,) if calls is not None and calls.light else ()
        if self._ray_life is not None:
            return _restore, (self._ray_life, None, self._ray_shape, *host)
        return _restore, (None, self._ray_address, self._ray_shape, *host)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorHandle):
            return NotImplemented
        return self._actor_id == other._actor_id

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __repr__(self) -> str:
        return f"ActorHandle({self._ray_shape.name}, {self._actor_id.hex()})"

    def _ray_begin(self, task: Task) -> None:
        """A call of a light actor says which it is for, and keeps it alive."""
        self._ray_session.lights.begin(task, self._ray_address, self._ray_shape)
        task.holds = self._ray_life

    def _ray_bind(self, name: str, shape: MethodShape) -> Descriptor:
        """A method as this process's session knows it."""
        session = self._ray_session
        if current().session is not session:
            raise ActorHandleNotFoundError(
                f"{self!r} is a handle of another session, and has ended with that: they share no actors"
            )
        session.check_alive()
        calls = self._ray_calls
        if calls is None:
            calls = self._ray_calls = session.actors.calls_of(
                self._ray_address, self._ray_shape, self._ray_life
            )
        # Calls of light actors keep their actors alive themselves.
        life = None if calls.light else self._ray_life
        key = (name, shape, life is None)
        descriptor = calls.descriptors.get(key)
        if descriptor is None:
            descriptor = _describe(session, calls, name, shape, life)
            calls.descriptors[key] = descriptor
        self._ray_methods[name, shape] = descriptor
        return descriptor


class ActorMethod:
    """One method of one actor; call it with ``.remote()``."""

    __slots__ = ("_handle", "_name", "_shape")

    def __init__(self, handle: ActorHandle[Any], name: str, shape: MethodShape) -> None:
        self._handle = handle
        self._name = name
        self._shape = shape

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; returns at once. The calls of one process start in the order made.

        Returns:
            A reference to the result. With ``num_returns=n`` a list of n references; None with 0.

        Raises:
            ActorHandleNotFoundError: when the handle is one of an earlier session.
            PendingCallsLimitExceeded: when as many calls as max_pending_calls are under way.
            TypeError: when an argument cannot be pickled, or the arguments do not fit the method.
        """
        handle, shape = self._handle, self._shape
        session, descriptor = self._bound()
        if not shape.fewest <= len(args) + len(kwargs) <= shape.most:
            raise TypeError(_wrong_count(handle, self._name, shape, len(args) + len(kwargs)))
        most, calls = handle._ray_shape.max_pending_calls, handle._ray_calls
        assert calls is not None
        if most > 0 and calls.of(handle._ray_address).pending() >= most:
            raise PendingCallsLimitExceeded(
                f"{most} calls of the actor {handle._ray_shape.name!r} are under way, and max_pending_calls "
                f"is {most}; wait for some, or use `await handle.{self._name}.remote_async(...)`"
            )
        return session.submit(descriptor, args, kwargs, handle if calls.light else None)

    async def remote_async(self, *args: Any, **kwargs: Any) -> Any:
        """As ``remote``, but where that would raise PendingCallsLimitExceeded, this waits for room."""
        most = self._handle._ray_shape.max_pending_calls
        if most > 0:
            session, _ = self._bound()
            calls = self._handle._ray_calls
            assert calls is not None
            await session.actors.room(calls.of(self._handle._ray_address), most)
        return self.remote(*args, **kwargs)

    def _bound(self) -> tuple[Session, Descriptor]:
        handle = self._handle
        descriptor = handle._ray_methods.get((self._name, self._shape))
        session = current().session
        if descriptor is None or session is not handle._ray_session:
            return handle._ray_session, handle._ray_bind(self._name, self._shape)
        return session, descriptor

    def options(self, **options: Any) -> ActorMethod:
        """The same method with some options changed; see :func:`method`.

        Raises:
            TypeError: when an option is of the wrong type.
            ValueError: when an option is unknown or has an impossible value.
        """
        from .actor_options import MethodOptions

        return ActorMethod(self._handle, self._name, self._shape.merge(MethodOptions.parse(options)))

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"a method of an actor cannot be called directly: use handle.{self._name}.remote() instead of "
            f"handle.{self._name}()"
        )

    def __repr__(self) -> str:
        return f"<method {self._name} of {self._handle!r}>"


@overload
def method(function: F, /) -> F: ...
@overload
def method(**options: Any) -> Callable[[F], F]: ...
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


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """The handle of a named actor. It does not keep the actor alive.

    Args:
        name: Its name.
        namespace: Where the name is unique; None is this session's own.

    Raises:
        RuntimeError: on a running event loop; use ``await asyncray.aio.get_actor(...)``.
        ValueError: when no actor has the name.
    """
    session, asked = _looked_for(name, namespace)
    found = session.questions.blocking("find_name", asked, "`await asyncray.aio.get_actor(...)`")
    return _found(asked, found)


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
    session.actors.kill(actor._ray_address, no_restart=no_restart)


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


def list_named_actors(all_namespaces: bool = False) -> list[Any]:  # noqa: FBT002 - as in Ray
    """The names of this session's living actors.

    Args:
        all_namespaces: Whether those of other namespaces are wanted, too.

    Returns:
        Names; with *all_namespaces* dicts of "name" and "namespace".

    Raises:
        RuntimeError: on a running event loop; use ``await asyncray.aio.list_named_actors()``.
    """
    session = session_or_init()
    return _listed(session, session.questions.blocking("list_names"), all_namespaces=all_namespaces)


async def get_actor_async(name: str, namespace: str | None) -> ActorHandle[Any]:
    """As get_actor, for coroutines."""
    session, asked = _looked_for(name, namespace)
    return _found(asked, await session.questions.awaited("find_name", asked))


async def list_named_actors_async(*, all_namespaces: bool) -> list[Any]:
    """As list_named_actors, for coroutines."""
    session = session_or_init()
    return _listed(session, await session.questions.awaited("list_names"), all_namespaces=all_namespaces)


def this_actor(session: Session) -> ActorHandle[Any]:
    """The handle of the actor that this worker is; it does not keep the actor alive.

    Raises:
        RuntimeError: when it is none.
    """
    hosting = session.hosting
    if hosting is None or hosting.address is None:
        raise RuntimeError("current_actor asks about the actor that runs, and this is none")
    return ActorHandle(None, hosting.address, hosting.shape, hosting.host)


def _listed(session: Session, names: list[list[str]], *, all_namespaces: bool) -> list[Any]:
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in names]
    return [name for namespace, name in names if namespace == session.namespace]


def _looked_for(name: str, namespace: str | None) -> tuple[Session, list[str]]:
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of an actor is a string that is not empty, not {name!r}")
    session = session_or_init()
    return session, [session.namespace if namespace is None else namespace, name]


def _found(asked: list[str], handle: bytes | None) -> ActorHandle[Any]:
    if handle is None:
        raise ValueError(f"no actor in the namespace {asked[0]!r} is called {asked[1]!r}")
    return _handle_from(handle)


def _handle_from(pickled: bytes) -> ActorHandle[Any]:
    """The handle behind a name: where the actor's life is, and its shape."""
    import pickle

    return ActorHandle(None, *pickle.loads(pickled))


def _restore(
    life: ObjectRef[Any] | None, address: RefAddress | None, shape: ActorShape, host: Any = None
) -> ActorHandle[Any]:
    """What a pickled handle calls."""
    return ActorHandle(life, address, shape, host)


def _describe(
    session: Session,
    calls: ActorCalls | LightMethods,
    name: str,
    shape: MethodShape,
    life: ObjectRef[Any] | None,
) -> Descriptor:
    told = dict(calls.told)
    streams = shape.returns == "streaming"
    if streams:
        told.update(shape.stream_options())
    elif shape.returns != 1:
        told["returns"] = shape.returns
    if shape.group:
        told["group"] = shape.group
    if shape.retry_exceptions:
        wanted = shape.retry_exceptions
        told["retry"] = wanted if isinstance(wanted, bool) else session.descriptors.pickled_classes(wanted)
    descriptor = session.descriptors.make_method(calls, name, told, () if life is None else (life,))
    if streams:
        descriptor.stream = (told["stream"], shape.max_unread is None)
    descriptor.returns = 1 if streams else int(shape.returns)
    descriptor.timeout_s = shape.timeout_s
    retries = shape.max_task_retries
    descriptor.max_retries = calls.shape.max_task_retries if retries is None else retries
    return descriptor


def _signature(cls: type[Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(cls)
    except ValueError:  # some classes written in C do not tell; the worker will
        return None


def _no_method(shape: ActorShape, name: str) -> str:
    import difflib

    nearest = difflib.get_close_matches(name, shape.methods, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"the actor {shape.name!r} has no method {name!r}{hint}"


def _wrong_count(handle: ActorHandle[Any], name: str, shape: MethodShape, count: int) -> str:
    most = "any number of" if shape.most == float("inf") else f"{shape.most:g}"
    allowed = most if shape.fewest == shape.most else f"{shape.fewest} to {most}"
    arguments = "argument" if allowed == "1" else "arguments"
    return f"{handle._ray_shape.name}.{name}() takes {allowed} {arguments}, not {count}"
