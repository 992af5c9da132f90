"""What a finished task was called with, kept without its references: see state.lineage.

Small values are kept as they are, because nothing would make them again. Of all else it is noted where it
lives and which spec made it.

Rule 1: a recipe holds no ObjectRef: it keeps nobody's object alive.
Rule 2: the owner's lock is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..state.lineage import Spec
from ..state.objects import READY
from ..wire.stored import Stored
from ..wire.values import Encoded, size_bytes
from .recalling import ItemSpec
from .spilling import Spilled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..actor_shape import ActorShape
    from ..refs import ObjectRef, RefAddress
    from ..state.tasks import Descriptor, Task
    from .session import Session

#: In the place of a value that is not kept.
ABSENT: Final = object()
#: About how many bytes a spec takes, and each of its arguments and returns.
_SPEC_BYTES: Final = 500
_SOURCE_BYTES: Final = 250
_RETURN_BYTES: Final = 80
#: How deep small values inside each other are kept.
_DEPTH: Final = 4


class Source:
    """Where an object came from that a task got."""

    __slots__ = ("address", "inside", "payload", "place", "spec")

    def __init__(self, address: RefAddress) -> None:
        self.address = address
        #: A small value without its references, or ABSENT.
        self.payload: Any = ABSENT
        #: What those referred to.
        self.inside: Sequence[Source] = ()
        #: What made it; None where nothing can make it again.
        self.spec: Spec | None = None
        #: Which of what that made.
        self.place = 0


class Method:
    """A method of an actor, without what keeps the actor alive."""

    __slots__ = ("address", "max_retries", "options", "returns", "shape", "timeout_s")

    def __init__(self, descriptor: Descriptor) -> None:
        calls: Any = descriptor.group
        self.address: RefAddress = calls.address
        self.shape: ActorShape = calls.shape
        self.options = descriptor.options
        self.returns = descriptor.returns
        self.max_retries = descriptor.max_retries
        self.timeout_s = descriptor.timeout_s

    def descriptor(self, session: Session) -> Descriptor:
        """What a call of it needs; the owner's lock is held."""
        calls = session.actors.calls_of(self.address, self.shape, None)
        descriptor = session.descriptors.make_method(calls, self.options["method"], self.options, ())
        descriptor.returns = self.returns
        descriptor.max_retries = self.max_retries
        descriptor.timeout_s = self.timeout_s
        return descriptor


class Recipe:
    """All that is needed to call for a task again."""

    __slots__ = ("arguments", "carried", "dependencies", "function", "inside", "light")

    def __init__(self, function: Descriptor | Method) -> None:
        self.function = function
        #: The encoded arguments without their references.
        self.arguments: Any = None
        #: What those referred to.
        self.inside: Sequence[Source] = ()
        #: As of a task, with sources in the place of references; None iff there are none.
        self.dependencies: list[tuple[int | str, Source]] | None = None
        #: Which light actor it is for, as its extras say; None for all others.
        self.light: Any = None
        #: Its carried variables.
        self.carried: dict[str, Any] = {}

    def descriptor(self, session: Session) -> Descriptor:
        """What the task's workers are told of; the owner's lock is held."""
        function = self.function
        return function.descriptor(session) if type(function) is Method else function  # type: ignore[return-value]


def spec_of(session: Session, task: Task) -> Spec:
    """The spec of a task that still has all it was called with."""
    writer = _Writer(session)
    descriptor = task.descriptor
    # A method of light actors is told apart from its actor, which the call names.
    light = None if task.extras is None else task.extras.get("light")
    recipe = Recipe(Method(descriptor) if descriptor.group.actor and light is None else descriptor)
    recipe.light = light
    recipe.arguments, recipe.inside = writer.strip(task.arguments, 0)
    if type(recipe.arguments) is list:
        writer.size_bytes += sum(map(size_bytes, recipe.arguments))
    if task.dependencies is not None:
        recipe.dependencies = [(place, writer.source(ref, 0)) for place, ref in task.dependencies]
    if task.terms is not None:
        recipe.carried = task.terms.values
        writer.size_bytes += task.terms.size_bytes
    returns = [record.number for record in task.records]
    size = _SPEC_BYTES + _RETURN_BYTES * len(returns) + writer.size_bytes
    kind = Spec if task.stream is None else ItemSpec
    return kind(
        descriptor.name,
        returns,
        recipe,
        parents=list(writer.parents),
        size_bytes=size,
        retries=task.retries,
    )


class _Writer:
    """Notes where the objects came from that one task got."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._limit = session.config.inline_limit_bytes
        self._sources: dict[Any, Source] = {}
        self.size_bytes = 0
        self.parents: dict[Spec, None] = {}

    def strip(self, payload: Any, depth: int) -> tuple[Any, Sequence[Source]]:
        """A payload without the references inside it, and what those referred to."""
        if type(payload) is list:
            return payload, ()
        self.size_bytes += size_bytes(payload)
        if type(payload) is not Encoded or not payload.refs:
            return payload, ()
        inside = [self.source(ref, depth + 1) for ref in payload.refs]
        return Encoded(payload.data, payload.buffers), inside

    def source(self, ref: ObjectRef[Any], depth: int) -> Source:
        """Where the object of a reference came from."""
        record: Any = ref._record
        source = self._sources.get(record)
        if source is not None:
            return source
        source = self._sources[record] = Source(self._session.references.address(record))
        self.size_bytes += _SOURCE_BYTES
        value = record.value
        if record.state == READY and type(value) not in (Stored, Spilled) and depth < _DEPTH:
            if size_bytes(value) <= self._limit:
                source.payload, source.inside = self.strip(value, depth)
        elif record.home is None:
            source.spec = self._session.owner.objects.lineage.specs.get(record.number)
            if source.spec is not None:
                self.parents[source.spec] = None
                source.place = source.spec.place(record.number)
        return source
