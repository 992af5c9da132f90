"""What an actor is made of, kept by its owner for each of its lives, whatever its isolation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ActorDiedError
from ..state.objects import ObjectRecord
from ..state.tasks import Task
from .errors import encode_actor_death

if TYPE_CHECKING:
    from ..refs import RefOwner
    from ..state.tasks import Descriptor
    from .arguments import Arguments, Dependency


class Plan:
    """What an actor is made of, at each of its lives."""

    __slots__ = (
        "arguments", "dependencies", "descriptor", "detached", "extras", "get_if_exists", "max_restarts",
        "name",
    )  # fmt: skip

    def __init__(
        self,
        descriptor: Descriptor,
        arguments: Arguments,
        dependencies: list[Dependency] | None,
        max_restarts: int,
        name: tuple[str, str] | None,
    ) -> None:
        #: The class.
        self.descriptor = descriptor
        self.arguments = arguments
        self.dependencies = dependencies
        #: What the worker must know of the actor.
        self.extras: dict[str, Any] = {}
        self.max_restarts = max_restarts
        #: (namespace, name); None for an actor that has none.
        self.name = name
        #: Whether an actor that has the name already is as good.
        self.get_if_exists = False
        #: Whether it lives without handles.
        self.detached = False

    def constructor(self, references: RefOwner, number: int, actor: Any, extras: dict[str, Any]) -> Task:
        """The task that begins a life.

        Args:
            references: Whose the task and its object are.
            number: That of both.
            actor: Told of its end: its ``notify`` is called with the record.
            extras: What the worker must know of the actor.
        """
        record = ObjectRecord(references, number)
        record.local = 1
        record.waiters = [actor]
        task = Task(number, self.descriptor, self.arguments)
        # Whether there is another life is the actor's to decide.
        task.retries = 0
        task.records = (record,)
        task.dependencies = self.dependencies
        task.extras = extras
        record.task = task
        return task


def not_made(name: str, error: BaseException, payload: Any) -> bytes:
    """What calls of an actor fail with whose constructor has raised *error*, which travels as *payload*."""
    if isinstance(error, ActorDiedError):
        return encode_actor_death(f"the actor {name!r} could not be made: its constructor left it", payload)
    cause = getattr(error, "cause", None)
    shown = repr(cause) if cause is not None else str(error)
    text = f"the actor {name!r} could not be made: its constructor raised {shown}"
    return encode_actor_death(text, payload)
