"""Actor classes as a session knows them: pickled once, whatever is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .runtime_env import RuntimeEnv

if TYPE_CHECKING:
    from .actor_options import ActorOptions
    from .actor_shape import ActorShape
    from .client.host_calls import HostCalls
    from .client.session import Session
    from .refs import ObjectRef
    from .state.tasks import Descriptor


class Bindings:
    """A class as a session knows it, pickled once for all options that a worker need not know."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._descriptors: dict[Any, Descriptor] = {}
        #: The class as it travels to hosts of light actors, and what it refers to.
        self._pickled: tuple[bytes, tuple[ObjectRef[Any], ...]] | None = None

    def descriptor(
        self, session: Session, cls: type[Any], shape: ActorShape, options: ActorOptions
    ) -> Descriptor:
        """The class for workers."""
        self._enter(session)
        selector = tuple(sorted(options.label_selector.items()))
        kind = options.accelerator_type
        key = (options.placement, options.resources, options.runtime_env, shape.mode, selector, kind)
        found = self._descriptors.get(key)
        if found is None:
            environment = RuntimeEnv.merge(session.environment, options.runtime_env)
            found = session.descriptors.make_actor(cls, shape, options, environment)
            self._descriptors[key] = found
        return found

    def light(self, session: Session, cls: type[Any], shape: ActorShape, host: HostCalls) -> Descriptor:
        """The class for a host of light actors."""
        self._enter(session)
        key = (host, shape.max_concurrency)
        found = self._descriptors.get(key)
        if found is None:
            if self._pickled is None:
                self._pickled = session.descriptors.pickled(cls)
            found = self._descriptors[key] = session.descriptors.make_light(cls, shape, self._pickled, host)
        return found

    def _enter(self, session: Session) -> None:
        if self._session is not session:
            self._session, self._descriptors, self._pickled = session, {}, None
