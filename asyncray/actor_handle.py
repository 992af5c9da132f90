"""Handles of actors: the way to call them, and what keeps them alive.

A handle knows its actor's life, or only the address of that: such a handle keeps nothing alive. Its methods
are bound to the session at their first use, and to no other one: sessions share no actors.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, Unpack

from .actor_shape import BUILT_IN, ActorShape, MethodShape
from .exceptions import (
    ActorHandleNotFoundError,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayActorError,
)
from .ids import object_binary
from .lifecycle import session_or_init
from .parameters import signature_of
from .process import current

if TYPE_CHECKING:
    from .actor_options import MethodOptionsDict
    from .client.actor_calls import ActorCalls
    from .client.host_calls import LightMethods
    from .client.session import Session
    from .refs import ObjectRef, RefAddress
    from .state.tasks import Descriptor, Task

T = TypeVar("T")


class ActorHandle(Generic[T]):
    """The way to an actor. ``handle.method.remote(...)`` calls it; the actor lives while handles are held.

    As an asynchronous context manager it ends the actor, when that has done what was called for and has
    cleaned up.
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
            shape = BUILT_IN.get(name)
            if shape is None:
                raise AttributeError(_no_method(self._ray_shape, name))
        return ActorMethod(self, name, shape)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._ray_shape.methods]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # Asked to end, it says so before it cleans up; it answers nothing more until it is dead.
        for step in ("__ray_terminate__", "__ray_ready__"):
            with suppress(RayActorError, OutOfMemoryError):
                await (await self.__getattr__(step).remote_async())

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
        if kwargs or not shape.fewest <= len(args) <= shape.most:
            handle._ray_shape.check_arguments(self._name, shape, len(args), tuple(kwargs))
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

    def options(self, **options: Unpack[MethodOptionsDict]) -> ActorMethod:
        """The same method with some options changed; see :func:`method`.

        Raises:
            TypeError: when an option is of the wrong type.
            ValueError: when an option is unknown or has an impossible value.
        """
        from .actor_options import MethodOptions

        told = self._handle._ray_shape
        shape = told.changed(self._name, self._shape, MethodOptions.parse(options))
        return ActorMethod(self._handle, self._name, shape)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"a method of an actor cannot be called directly: use handle.{self._name}.remote() instead of "
            f"handle.{self._name}()"
        )

    def __repr__(self) -> str:
        return f"<method {self._name} of {self._handle!r}>"


def handle_from(pickled: bytes) -> ActorHandle[Any]:
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
    if shape.title:
        told.update(name=shape.title, function=f"{calls.shape.name}.{name}")
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
    descriptor.name = shape.title or descriptor.name
    if shape.takes is not None:
        descriptor.function = partial(signature_of, shape.takes)
    if streams:
        descriptor.stream = (told["stream"], shape.max_unread is None)
    descriptor.returns = 1 if streams else int(shape.returns)
    descriptor.timeout_s = shape.timeout_s
    retries = shape.max_task_retries
    descriptor.max_retries = calls.shape.max_task_retries if retries is None else retries
    return descriptor


def _no_method(shape: ActorShape, name: str) -> str:
    import difflib

    nearest = difflib.get_close_matches(name, shape.methods, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"the actor {shape.name!r} has no method {name!r}{hint}"
