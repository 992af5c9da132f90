"""Descriptors: remote functions as a session knows them, pickled once."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import logging
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import cloudpickle

from ..exceptions import SessionClosedError
from ..labels import any_matches
from ..options import DEFAULT_MAX_UNREAD, DEFAULT_UNREAD_BYTES
from ..resources import UNITS, Resources
from ..state.tasks import Descriptor
from ..wire.values import encode_in_band
from .environments import pack_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..actor_options import ActorOptions
    from ..actor_shape import ActorShape
    from ..options import TaskOptions
    from ..refs import ObjectRef
    from ..runtime_env import RuntimeEnv
    from .actor_calls import ActorCalls
    from .host_calls import HostCalls, LightMethods
    from .session import Session

_log = logging.getLogger("asyncray")

#: How a worker runs calls: one after the other in its main thread, or as coroutines on its loop.
SYNC = "sync"
ASYNC = "async"


class Descriptors:
    """Makes and numbers the descriptors of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers = itertools.count(1)
        #: By number, so that it shows when nobody can use one any more.
        self._alive: dict[int, weakref.ref[Descriptor]] = {}
        #: Numbers of those that nobody can use any more, and of which no worker has been told.
        self.ended: deque[int] = deque()

    def make(
        self, function: Callable[..., Any], name: str, options: TaskOptions, environment: RuntimeEnv
    ) -> Descriptor:
        """Pickle *function* and settle what all calls with these options share.

        Raises:
            TypeError: when the function cannot be pickled.
            ValueError: when it is too large.
        """
        blob, refs = self._pickle(function, name)
        descriptor = self._numbered(name, blob)
        descriptor.function = _loosely(function)
        descriptor.holds = tuple(refs)
        descriptor.returns = returns_of(options)
        if options.num_returns == "streaming":
            descriptor.stream = bound_of(options)
        descriptor.max_retries = options.max_retries
        descriptor.timeout_s = options.timeout
        descriptor.priority = options.priority
        descriptor.options = _worker_options(name, options)
        if refs:
            descriptor.options["refs"] = [self._session.references.address_of(ref) for ref in refs]
        is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        mode = ASYNC if is_async else SYNC
        descriptor.group = self._group(mode, options, environment)
        return descriptor

    def make_actor(
        self, cls: type[Any], shape: ActorShape, options: ActorOptions, environment: RuntimeEnv
    ) -> Descriptor:
        """Pickle a class and settle what all actors of it with these options share.

        Raises:
            TypeError: when the class cannot be pickled.
            ValueError: when it is too large.
        """
        blob, refs = self._pickle(cls, shape.name)
        descriptor = self._numbered(f"{shape.name}.__init__", blob)
        descriptor.function = weakref.ref(cls)
        descriptor.holds = tuple(refs)
        descriptor.max_retries = 0
        descriptor.options = {
            "name": descriptor.name,
            "constructs": True,
            "resources": options.resources.to_floats(),
        }
        if refs:
            descriptor.options["refs"] = [self._session.references.address_of(ref) for ref in refs]
        session, packed = self._session, pack_environment(environment)
        labels = session.facts.get("labels", {})
        placement = _demand(options, labels, options.placement)
        held = _demand(options, labels, options.resources)
        key = ("actor", shape.mode, placement, held, packed)
        description = [shape.mode, placement.to_wire(), packed, options.max_restarts != 0, held.to_wire()]
        with session.owner.lock:
            descriptor.group = session.leases.creations(key, description, session.actors.placed)
        return descriptor

    def pickled(self, cls: type[Any]) -> tuple[bytes, tuple[ObjectRef[Any], ...]]:
        """A class as it travels, and what it refers to.

        Raises:
            TypeError: when it cannot be pickled.
            ValueError: when it is too large.
        """
        blob, refs = self._pickle(cls, cls.__qualname__)
        return blob, tuple(refs)

    def make_light(
        self,
        cls: type[Any],
        shape: ActorShape,
        pickled: tuple[bytes, tuple[ObjectRef[Any], ...]],
        calls: HostCalls,
    ) -> Descriptor:
        """What all light actors of a class with the same shape in one host share."""
        blob, refs = pickled
        descriptor = self._numbered(f"{shape.name}.__init__", blob)
        descriptor.function = weakref.ref(cls)
        descriptor.holds = refs
        descriptor.max_retries = 0
        descriptor.options = {
            "name": descriptor.name,
            "light": shape.to_wire(),
            "environment": calls.environment,
            "host": calls.index,
        }
        if refs:
            descriptor.options["refs"] = [self._session.references.address_of(ref) for ref in refs]
        descriptor.group = calls
        return descriptor

    def make_method(
        self,
        calls: ActorCalls | LightMethods,
        method: str,
        told: dict[str, Any],
        holds: tuple[ObjectRef[Any], ...],
    ) -> Descriptor:
        """A method of an actor, as its calls name it.

        Args:
            calls: This process's calls of the actor.
            method: The method's name.
            told: What the worker must know besides; see worker.functions.
            holds: What keeps the actor alive while the method can be called, or runs.
        """
        descriptor = self._numbered(f"{calls.shape.name}.{method}", b"")
        descriptor.holds = holds
        descriptor.max_retries = 0
        descriptor.options = {"name": descriptor.name, "method": method, **told}
        descriptor.group = calls.group
        return descriptor

    def pickled_classes(self, classes: tuple[type[BaseException], ...]) -> bytes:
        """Exceptions that a call may be made again for."""
        pickled: bytes = cloudpickle.dumps(classes, protocol=5)
        return pickled

    def _numbered(self, name: str, blob: bytes) -> Descriptor:
        number = next(self._numbers)
        descriptor = Descriptor(number, name, hashlib.sha256(blob).digest()[:16] if blob else b"", blob)
        self._alive[number] = weakref.ref(descriptor, functools.partial(self._on_end, number))
        return descriptor

    def __len__(self) -> int:
        return len(self._alive)

    def _on_end(self, number: int, weak: object) -> None:
        # Runs where destructors do: it appends, and wakes, and nothing else.
        self._alive.pop(number, None)
        self.ended.append(number)
        if not self._session.references.drain_due:
            self._session.references.on_dropped()

    def take_ended(self) -> list[int]:
        """Numbers that will never be used again; each is returned once."""
        taken = []
        while self.ended:
            taken.append(self.ended.popleft())
        return taken

    def _pickle(self, function: Callable[..., Any], name: str) -> tuple[bytes, Any]:
        try:
            blob, refs = encode_in_band(function)
        except SessionClosedError:
            raise
        except Exception as error:
            from .diagnosis import explain

            raise TypeError(
                f"the {_kind(function)} {name!r} cannot be pickled: {explain(function, error)}"
            ) from error
        config = self._session.config
        if len(blob) > config.function_max_bytes:
            raise ValueError(
                f"the {_kind(function)} {name!r} is {len(blob)} bytes when pickled; at most "
                f"{config.function_max_bytes} are allowed. It probably captures a large object: put that"
            )
        if len(blob) > config.function_warn_bytes:
            _log.warning(
                "the %s %r is %d bytes when pickled; it probably captures a large object",
                _kind(function),
                name,
                len(blob),
            )
        return blob, refs

    def _group(self, mode: str, options: TaskOptions, environment: RuntimeEnv) -> Any:
        config = self._session.config
        retriable = options.max_retries != 0
        packed = pack_environment(environment)
        resources = _demand(options, self._session.facts.get("labels", {}), options.resources)
        key = (mode, resources, packed, options.max_calls > 0, retriable)
        depth = config.max_coroutines_per_worker if mode == ASYNC else config.max_pipeline
        if options.max_calls:
            # A worker that must end after so many runs cannot have others queued behind them.
            depth = 1
        description = [mode, resources.to_wire(), packed, retriable]
        with self._session.owner.lock:
            return self._session.leases.group(key, description, concurrent=mode == ASYNC, depth=depth)


def _kind(function: Callable[..., Any]) -> str:
    return "actor class" if isinstance(function, type) else "remote function"


def _loosely(function: Callable[..., Any]) -> Callable[[], Any]:
    """What gives a function as long as somebody else holds it."""
    try:
        return weakref.ref(function)
    except TypeError:  # an object of a class with slots
        return lambda: None


def _demand(options: TaskOptions | ActorOptions, labels: dict[str, str], wanted: Resources) -> Resources:
    """What a task asks of a node; what only some nodes have is a resource that the others lack."""
    units = wanted.to_wire()
    if options.accelerator_type:
        # As in Ray: a node with the accelerator has 1 of this, and each task takes a thousandth.
        units[f"accelerator_type:{options.accelerator_type}"] = UNITS // 1000
    if not any_matches(options.label_selector, options.fallback_strategy, labels):
        units[f"label_selector:{dict(options.label_selector)}"] = UNITS
    return Resources(units)


def returns_of(options: TaskOptions) -> int:
    """How many records a call has; that of a stream is its producer's end."""
    return options.num_returns if isinstance(options.num_returns, int) else 1


def bound_of(options: TaskOptions) -> tuple[int, bool]:
    """How many items of a stream may be unread (0: any number), and whether nobody has said so."""
    if options.max_unread is None:
        return DEFAULT_MAX_UNREAD, True
    return max(options.max_unread, 0), False


def _worker_options(name: str, options: TaskOptions) -> dict[str, Any]:
    """What a worker must know of a descriptor. Absent keys have the usual value."""
    told: dict[str, Any] = {"name": name}
    returns = returns_of(options)
    if returns != 1:
        told["returns"] = returns
    if options.num_returns == "streaming":
        told["stream"], soft = bound_of(options)
        if soft:
            told["stream_bytes"] = DEFAULT_UNREAD_BYTES
        if options.num_objects_per_yield != 1:
            told["per_yield"] = options.num_objects_per_yield
    if options.retry_exceptions:
        wanted = options.retry_exceptions
        told["retry"] = True if wanted is True else cloudpickle.dumps(wanted, protocol=5)
    if options.max_calls:
        told["max_calls"] = options.max_calls
    if options.max_retries == 0:
        # It may not run twice, so what ran before it must be known before it starts.
        told["report_first"] = True
    told["resources"] = Resources(options.resources).to_floats()
    return told
