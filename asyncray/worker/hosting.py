"""The actor that a worker is, from its constructor on.

A worker becomes an actor by a call: the constructor, which comes as any task does. From then on it serves
any number of callers, and its calls are methods. It ends when the actor does.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

from ..actor_shape import STOP_HOOKS, ActorShape
from ..exceptions import ActorDiedError, ProtocolError
from ..wire.values import check_addresses
from .functions import Function, _option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..refs import RefAddress
    from .calls import Call


class ActorExit(BaseException):
    """Raised by exit_actor, to leave the running method."""


class Hosting:
    """What a worker knows of the actor in it; nothing while it is an ordinary worker."""

    __slots__ = (
        "address", "instance", "leaving", "name", "owner", "patient", "resources", "restarts", "shape",
    )  # fmt: skip

    #: Environment and index of this process as a host; None unless the actor is a light one.
    host: tuple[bytes, int] | None = None

    def __init__(self) -> None:
        #: None before the constructor has returned.
        self.instance: Any = None
        #: None iff this worker is no actor.
        self.shape: ActorShape | None = None
        #: Where the actor's life is.
        self.address: RefAddress | None = None
        #: Its name and namespace; None when it has none.
        self.name: tuple[str, str] | None = None
        #: What it holds, by resource name.
        self.resources: dict[str, float] = {}
        #: Earlier lives.
        self.restarts = 0
        #: Process id of the actor's owner.
        self.owner = b""
        #: Why the actor ends by its own wish; empty while it does not.
        self.leaving = ""
        #: Whether it does what has been called for before it ends.
        self.patient = False

    def function(self, function_id: bytes, blob: bytes, options: dict[str, Any]) -> Function:
        """What an owner has described: a function, a class, or a method of this actor.

        Raises:
            ProtocolError: when an option is of the wrong type.
        """
        if "method" in options:
            return Method(self, options)
        if options.get("constructs"):
            return Constructor(function_id, blob, options)
        return Function(function_id, blob, options)

    def begin(self, call: Call) -> None:
        """A constructor is about to run: this worker is an actor from now on.

        Raises:
            ProtocolError: when it is one already, or the call does not say what it is to be.
        """
        self.check(call)
        told = call.extras["actor"]
        name = told["name"]
        self.shape, self.restarts = ActorShape.from_wire(told["shape"]), told["life"]
        (self.address,) = check_addresses([told["where"]])
        self.name = None if name is None else (name[0], name[1])
        self.owner = call.owner
        self.resources.update(call.function.resources)

    def check(self, call: Call) -> None:
        """Check a constructor that has come.

        Raises:
            ProtocolError: when this worker is an actor, or the call does not say what it is to be.
        """
        told = call.extras.get("actor")
        if self.shape is not None or type(told) is not dict:
            raise ProtocolError("this worker cannot become an actor by such a call")
        name = told.get("name")
        named = isinstance(name, (list, tuple)) and [type(part) for part in name] == [str, str]
        if type(told.get("life")) is not int or not (name is None or named) or "name" not in told:
            raise ProtocolError("an actor cannot be made like that")
        check_addresses([told.get("where")])
        ActorShape.from_wire(told.get("shape"))

    def is_threaded(self, call: Call) -> bool:
        """Whether a call of an actor that runs several at a time is for a thread, and not for the loop."""
        shape = self.shape
        if shape is None and call.function.constructs:
            shape = ActorShape.from_wire(call.extras["actor"]["shape"])
        return shape is not None and not shape.is_async

    def made(self, instance: Any) -> None:
        """The constructor has returned."""
        self.instance = instance

    def not_made(self, call: Call) -> None:
        """The constructor has raised: nothing more runs here. One of another process does nothing to us."""
        if self.owner in (b"", call.owner):
            self.leaving = "its constructor raised"

    def leave(self, reason: str, *, patient: bool = False) -> None:
        """The actor ends by its own wish, after the calls that run."""
        if not self.leaving:
            self.leaving = reason
            self.patient = patient

    def farewell(self) -> ActorDiedError:
        """What a call raises whose method has left the actor."""
        name = self.shape.name if self.shape is not None else "unknown"
        return ActorDiedError(f"the actor {name!r} is dead: {self.leaving}")

    def run_stop_hook(self) -> Any:
        """Call what the class has for an orderly end; returns what that did. An error in it is shown."""
        for name in STOP_HOOKS:
            hook = getattr(self.instance, name, None)
            if callable(hook):
                try:
                    return hook()
                except Exception:  # noqa: BLE001 - a user's hook; the actor ends all the same
                    traceback.print_exc()
                    return None
        return None

    async def awaited(self, hook: Awaitable[Any]) -> None:
        """Await what run_stop_hook returned. An error in it is shown."""
        try:
            await hook
        except Exception:  # noqa: BLE001 - as above
            traceback.print_exc()


class Constructor(Function):
    """A class, as a worker knows it: calling it makes the actor."""

    __slots__ = ()

    constructs = True


class Method(Function):
    """A method, as a worker knows it: it has no code of its own."""

    __slots__ = ("_hosting", "group", "method")

    of_actor = True

    def __init__(self, hosting: Hosting, options: dict[str, Any]) -> None:
        super().__init__(b"", b"", options)
        self._hosting = hosting
        self.method = _option(options, "method", str, "")
        self.group = _option(options, "group", str, "")
        self.resources = hosting.resources

    def load(self) -> Callable[..., Any]:
        function = self._function
        if function is None:
            function = self._function = self._bound()
        return function

    def _bound(self) -> Callable[..., Any]:
        hosting = self._hosting
        instance = hosting.instance
        if instance is None:
            raise ActorDiedError("this actor has not been made")
        if self.method in BUILT_IN_METHODS:
            return BUILT_IN_METHODS[self.method](hosting)
        return getattr(instance, self.method)  # type: ignore[no-any-return]


def _ready(hosting: Hosting) -> Callable[..., Any]:
    def __ray_ready__() -> bool:  # noqa: N807 - Ray's name
        return True

    return __ray_ready__


def _call(hosting: Hosting) -> Callable[..., Any]:
    def __ray_call__(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        return function(hosting.instance, *args, **kwargs)

    return __ray_call__


def _terminate(hosting: Hosting) -> Callable[..., Any]:
    def __ray_terminate__() -> None:  # noqa: N807
        hosting.leave("it was asked to end", patient=True)
        raise ActorExit

    return __ray_terminate__


#: What makes each method that every actor has.
BUILT_IN_METHODS: Final[dict[str, Callable[[Hosting], Callable[..., Any]]]] = {
    "__ray_ready__": _ready,
    "__ray_call__": _call,
    "__ray_terminate__": _terminate,
}
