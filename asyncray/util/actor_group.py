"""Several actors of one class, called together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self

import asyncray

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..actor import ActorClass, ActorHandle
    from ..refs import ObjectRef


class ActorGroup:
    """Actors of one class: ``group.method.remote(...)`` calls all of them and returns their references.

    As a context manager, of either kind, it kills its actors at the end.

    Args:
        actor_class: The class, with its options.
        count: How many.
        args: Positional arguments of each constructor.
        kwargs: Keyword arguments of each constructor.
    """

    def __init__(
        self,
        actor_class: ActorClass[Any],
        count: int,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        if count < 0:
            raise ValueError(f"a group has 0 actors or more, not {count}")
        self._class = actor_class
        self._args = args
        self._kwargs = kwargs or {}
        self.actors: list[ActorHandle[Any]] = []
        self.add_actors(count)

    def add_actors(self, count: int) -> None:
        """Make so many more."""
        self.actors += [self._class.remote(*self._args, **self._kwargs) for _ in range(count)]

    def remove_actors(self, indices: Iterable[int]) -> None:
        """Kill the actors at these places."""
        gone = set(indices)
        for index in gone:
            asyncray.kill(self.actors[index])
        self.actors = [actor for index, actor in enumerate(self.actors) if index not in gone]

    def shutdown(self) -> None:
        """Kill all of them."""
        self.remove_actors(range(len(self.actors)))

    def __getattr__(self, name: str) -> GroupMethod:
        if name.startswith("__"):
            raise AttributeError(name)
        return GroupMethod(self, name)

    def __len__(self) -> int:
        return len(self.actors)

    def __iter__(self) -> Iterator[ActorHandle[Any]]:
        return iter(self.actors)

    def __getitem__(self, index: int) -> ActorHandle[Any]:
        return self.actors[index]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.shutdown()


class GroupMethod:
    """One method of all actors of a group."""

    def __init__(self, group: ActorGroup, name: str) -> None:
        self._group = group
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> list[ObjectRef[Any]]:
        """Call the method of every actor; returns the references in the order of the actors."""
        return [getattr(actor, self._name).remote(*args, **kwargs) for actor in self._group.actors]

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"a method of a group cannot be called directly: use group.{self._name}.remote()")
