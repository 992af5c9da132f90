"""The part of Ray's API that the rows use: asyncray and Ray both have it, so one row runs on either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Ref: TypeAlias = object
"""A reference as a row sees it: something to hand on. Its type differs between the runtimes."""


class RemoteFunction(Protocol):
    """What ``runtime.remote(function)`` gives."""

    def remote(self, *args: object) -> Ref:
        """Submit one task."""

    def options(self, **options: object) -> RemoteFunction:
        """The same function with other task options."""


class Errors(Protocol):
    """The runtime's ``exceptions`` module."""

    TaskCancelledError: type[Exception]


class Util(Protocol):
    """The runtime's ``util`` package."""

    def as_completed(self, refs: list[Ref]) -> Iterator[object]:
        """The values of ``refs`` as they finish."""


class Runtime(Protocol):
    """A module with Ray's core API."""

    __name__: str
    __version__: str
    exceptions: Errors
    util: Util

    def init(self, **options: object) -> object:
        """Start the runtime."""

    def shutdown(self) -> None:
        """Stop it."""

    def remote(self, function: Callable[..., object], /) -> RemoteFunction:
        """Make ``function`` remote."""

    def get(self, refs: Ref | list[Ref], /) -> object:
        """The value of one ref, or the list of values of a list of refs."""

    def put(self, value: object, /) -> Ref:
        """Store ``value``."""

    def wait(self, refs: list[Ref], /) -> tuple[list[Ref], list[Ref]]:
        """One finished ref, and the others."""

    def cancel(self, ref: Ref, /) -> None:
        """Cancel the task behind ``ref``."""
