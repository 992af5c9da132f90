"""A light actor in the process that hosts it, and the functions that its calls name.

Rule: an idle actor has neither a task nor a queue: a mailbox is there while calls wait, or run in groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..actor_shape import ActorShape
from ..exceptions import ProtocolError
from .functions import Function, _option
from .hosting import BUILT_IN_METHODS, Hosting
from .mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..refs import RefAddress
    from .async_mode import AsyncOwner
    from .calls import Call

    #: A call and the connection that it came by.
    Item = tuple[AsyncOwner, Call]

#: What an actor holds, by resource name: nothing. Never changed.
_NOTHING: dict[str, float] = {}


class Hosted(Hosting):
    """One light actor.

    Args:
        creator: The connection of its owner; its end is the actor's.
        call: Its constructor.
        number: Of its life, at its owner.
        function: Its class.
    """

    __slots__ = ("creator", "host", "late", "mailbox", "number", "running")

    def __init__(self, creator: AsyncOwner, call: Call, number: int, function: LightConstructor) -> None:
        # Not the base's: what that sets, a hundred thousand would have of their own.
        self.creator = creator
        self.number = number
        self.shape = function.shape
        self.host = function.host
        self.instance = None
        self.owner = call.owner
        self.resources = _NOTHING
        self.leaving = ""
        self.patient = False
        #: Calls that run.
        self.running = 0
        #: What waits; None while nothing does.
        self.mailbox: Mailbox[Item] | None = None
        #: What has come after its wish to end; None iff nothing has.
        self.late: list[Item] | None = None
        name, life = call.extras.get("name"), call.extras.get("life", 0)
        if type(life) is not int or not (name is None or (type(name) is list and len(name) == 2)):
            raise ProtocolError("a light actor cannot be made like that")
        self.restarts = life
        self.name = None if name is None else (str(name[0]), str(name[1]))

    @property
    def address(self) -> RefAddress:  # type: ignore[override]
        """Where its life is."""
        return (self.owner, self.creator.connection.peer.address, self.number)

    def admit(self, item: Item, group: str) -> bool:
        """Whether a call that has come may start now; else it waits."""
        box = self.mailbox
        if box is None:
            shape = self.shape
            assert shape is not None
            made = self.instance is not None
            if made and not shape.groups and self.running < shape.max_concurrency:
                self.running += 1
                return True
            box = self.mailbox = Mailbox()
            if made:
                box.open({"": shape.max_concurrency, **shape.groups}, self.running)
        if box.admit(item, group):
            self.running += 1
            return True
        return False

    def opened(self) -> list[Item]:
        """The constructor has ended: what has come by now, to be admitted."""
        return self.emptied()

    def ended(self, group: str) -> Item | None:
        """A call has ended: returns the one that starts in its place, if one waits."""
        box = self.mailbox
        following = None if box is None else box.ended(group)
        if following is None:
            self.running -= 1
            if not self.running and box is not None and not len(box):
                self.mailbox = None
        return following

    def is_busy(self) -> bool:
        """Whether a call runs, or waits."""
        return bool(self.running) or (self.mailbox is not None and len(self.mailbox) > 0)

    def emptied(self) -> list[Item]:
        """Take out all that waits."""
        box, late = self.mailbox, self.late or []
        self.late = None
        if box is None:
            return late
        waiting = box.take(lambda item: True)
        if not self.running:
            self.mailbox = None
        return waiting + late

    def group_of(self, call: Call) -> str:
        """The concurrency group of a call."""
        asked = call.function.group
        if asked or self.shape is None:
            return asked
        method = self.shape.methods.get(call.function.method)
        return "" if method is None else method.group


class LightConstructor(Function):
    """The class of light actors, as their host knows it."""

    __slots__ = ("host", "shape")

    constructs = True
    light = True

    def __init__(self, function_id: bytes, blob: bytes, options: dict[str, Any]) -> None:
        super().__init__(function_id, blob, options)
        self.shape = ActorShape.from_wire(options["light"])
        #: What this process goes by as a host: environment and index.
        self.host: tuple[bytes, int] = (
            _option(options, "environment", bytes, b""),
            _option(options, "host", int, 0),
        )


class LightMethod(Function):
    """A method of light actors: which one it is bound to, each call says."""

    __slots__ = ("_own_name", "group", "method")

    of_actor = True
    light = True

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(b"", b"", options)
        self.method = _option(options, "method", str, "")
        self.group = _option(options, "group", str, "")
        self._own_name = _option(options, "function", str, self.name)

    def own_name(self) -> str:
        return str(self._own_name)

    def bound(self, hosting: Hosting) -> Callable[..., Any]:
        if self.method in BUILT_IN_METHODS:
            return BUILT_IN_METHODS[self.method](hosting)
        return getattr(hosting.instance, self.method)  # type: ignore[no-any-return]
