"""Several actors of one class, called together."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack

import asyncray

from .ending import end, end_async

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ..actor import ActorClass, ActorHandle, ActorMethod
    from ..actor_options import MethodOptionsDict
    from ..refs import ObjectRef

#: Arguments of these types are not worth storing once for all.
_SMALL = (type(None), bool, int, float, asyncray.ObjectRef, asyncray.ActorHandle)


class ActorGroup:
    """Actors of one class: ``group.method.remote(...)`` calls all of them and returns their references.

    As a context manager, of either kind, it ends its actors: those of a block that is left in order do first
    what they were called for, those of one that has failed are killed.

    Args:
        actor_cls: The class; an actor class brings its options.
        num_actors: How many.
        num_cpus_per_actor: CPUs that each holds; None is 1, or what an actor class says.
        num_gpus_per_actor: GPUs that each holds; None is none, or what an actor class says.
        resources_per_actor: What else each holds; None is nothing, or what an actor class says.
        init_args: Positional arguments of each constructor.
        init_kwargs: Keyword arguments of each constructor.

    Raises:
        ValueError: when *num_actors* is not positive, or an amount impossible.
    """

    def __init__(
        self,
        actor_cls: ActorClass[Any] | type[Any],
        num_actors: int = 1,
        num_cpus_per_actor: float | None = None,
        num_gpus_per_actor: float | None = None,
        resources_per_actor: Mapping[str, float] | None = None,
        init_args: tuple[Any, ...] | None = None,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.actors: list[ActorHandle[Any]] = []
        if num_actors <= 0:
            raise ValueError(f"num_actors must be > 0, not {num_actors}")
        self.num_actors = num_actors
        plain = inspect.isclass(actor_cls)
        held: dict[str, Any] = {
            "num_cpus": 1 if plain and num_cpus_per_actor is None else num_cpus_per_actor,
            "num_gpus": num_gpus_per_actor,
            "resources": resources_per_actor,
        }
        given = {name: value for name, value in held.items() if value is not None}
        remote_class: Any = asyncray.remote(actor_cls) if plain else actor_cls
        self._class: ActorClass[Any] = remote_class.options(**given) if given else remote_class
        self._args = init_args or ()
        self._kwargs = init_kwargs or {}
        self.start()

    def start(self) -> None:
        """Make the actors; it is done once already, and needed again after a shutdown.

        Raises:
            RuntimeError: when they are there.
        """
        if self.actors:
            raise RuntimeError("the actors of this group are there; shut it down first")
        self.add_actors(self.num_actors)

    def add_actors(self, num_actors: int) -> None:
        """Make so many more."""
        self.actors += [self._class.remote(*self._args, **self._kwargs) for _ in range(num_actors)]

    def remove_actors(self, actor_indexes: Collection[int]) -> None:
        """Let the actors at these places go: each ends when nobody else holds it."""
        self.actors = [actor for index, actor in enumerate(self.actors) if index not in actor_indexes]

    def shutdown(self, patience_s: float = 5) -> None:
        """End all of them.

        Args:
            patience_s: Seconds in which they may do what they were called for, and clean up; then they are
                killed.

        Raises:
            RuntimeError: in a running event loop, where it must not wait; use ``shutdown_async``.
        """
        end(self.actors, patience_s)
        self.actors = []

    async def shutdown_async(self, patience_s: float = 5) -> None:
        """As shutdown, for coroutines."""
        await end_async(self.actors, patience_s)
        self.actors = []

    def __getattr__(self, name: str) -> GroupMethod:
        if name.startswith("_") or name == "actors":
            raise AttributeError(f"a group has no attribute {name!r}")
        if not self.actors:
            raise RuntimeError("this group has no actors: it was shut down; start() makes new ones")
        return GroupMethod(name, [getattr(actor, name) for actor in self.actors])

    def __len__(self) -> int:
        return len(self.actors)

    def __iter__(self) -> Iterator[ActorHandle[Any]]:
        return iter(self.actors)

    def __getitem__(self, index: int) -> ActorHandle[Any]:
        return self.actors[index]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.shutdown(5 if kind is None else 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self.shutdown_async(5 if kind is None else 0)


class GroupMethod:
    """One method of all actors of a group."""

    def __init__(self, name: str, methods: list[ActorMethod]) -> None:
        self._name = name
        self._methods = methods

    def remote(self, *args: Any, **kwargs: Any) -> list[ObjectRef[Any]]:
        """Call the method of every actor; returns the references in the order of the actors.

        What the arguments hold is pickled, and stored where it is large, once for all of them.
        """
        if len(self._methods) > 1:
            args = tuple(map(_shared, args))
            kwargs = {name: _shared(value) for name, value in kwargs.items()}
        return [method.remote(*args, **kwargs) for method in self._methods]

    def options(self, **options: Unpack[MethodOptionsDict]) -> GroupMethod:
        """The same method with some options changed; see ``asyncray.method``."""
        return GroupMethod(self._name, [method.options(**options) for method in self._methods])

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"use group.{self._name}.remote() instead of group.{self._name}()")


def _shared(value: Any) -> Any:
    """An argument for many calls."""
    small = isinstance(value, _SMALL) or (isinstance(value, (str, bytes)) and len(value) < 1000)
    return value if small else asyncray.put(value)
