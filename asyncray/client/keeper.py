"""The owner of detached actors that tasks and other actors have made.

An actor is owned by its maker and dies with it. A detached one that is made in a worker must not: it is made
by the keeper instead, an actor of the driver's that is there as long as the session. The driver makes it when
the node says that somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..actor_options import ActorOptions
from ..actor_shape import shape_of
from ..node.directory import KEEPER
from ..process import current
from ..wire.values import encode_in_band

if TYPE_CHECKING:
    from .session import Session


class Keeper:
    """Makes detached actors, and keeps them."""

    def __init__(self) -> None:
        session = current().session
        assert session is not None
        session.keeps_detached = True

    def make(self, actor_class: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make an actor; returns its handle.

        Raises:
            ActorAlreadyExistsError: when another actor has the name.
        """
        return actor_class.remote(*args, **kwargs)


def make_keeper(session: Session) -> None:
    """Make the keeper of a driver's session. On the loop."""
    namespace, name = KEEPER
    options = ActorOptions.parse({"num_cpus": 0, "max_restarts": -1, "namespace": namespace, "name": name})
    shape = shape_of(Keeper, options)
    descriptor = session.descriptors.make_actor(Keeper, shape, options, session.environment)
    plan = session.actors.plan(descriptor, (), {}, options)
    life = session.actors.reserve()
    address = session.references.address_of(life)
    session.actors.create(plan, shape, life)
    # It is held as long as the session lasts.
    session.kept[:] = [life]
    claim = [namespace, name, address[2], encode_in_band((address, shape))[0]]
    session.questions.ask("claim_name", claim, lambda taken: None)
