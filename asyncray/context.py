"""What a program may ask about its session, and a task about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from .ids import object_binary
from .lifecycle import session_or_init

if TYPE_CHECKING:
    from .actor import ActorHandle
    from .client.session import Session
    from .runtime_env import Hook


class Context(Mapping[str, Any]):
    """What ``init`` returns: facts about the session; as a context manager it ends the session."""

    def __init__(self, session: Session, end: Callable[[], None]) -> None:
        self._end = end
        self.address_info: dict[str, Any] = {
            "address": "local",
            "node_id": session.session_name(),
            "node_pid": session.facts.get("pid"),
            "namespace": session.namespace,
            "session_name": session.session_name(),
        }
        self.dashboard_url: str = ""

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def disconnect(self) -> None:
        """End the session."""
        self._end()

    def __repr__(self) -> str:
        facts = self.address_info
        return f"<asyncray session {facts['session_name']}, node pid {facts['node_pid']}>"


class RuntimeContext:
    """What the running code may know of itself. Ids are hexadecimal strings."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._call = session.scope.running()

    def get_job_id(self) -> str:
        """The session's id."""
        return self._session.session_name()

    def get_node_id(self) -> str:
        """The node's id."""
        return self._session.session_name()

    def get_worker_id(self) -> str:
        """This process's id."""
        return self._session.identity.process_id.hex()

    def get_task_id(self) -> str | None:
        """The running task's id; None in a driver."""
        if self._call is None:
            return None
        return object_binary(self._call.owner, self._call.number).hex()

    def get_task_name(self) -> str | None:
        """The running task's name; None in a driver."""
        return None if self._call is None else self._call.name

    def get_task_function_name(self) -> str | None:
        """The running task's function; None in a driver."""
        return None if self._call is None else self._call.function_name

    def get_actor_id(self) -> str | None:
        """The id of the actor whose method is running; None outside of actors."""
        hosting = self._session.hosting
        if hosting is None or hosting.address is None:
            return None
        return object_binary(hosting.address[0], hosting.address[2]).hex()

    def get_actor_name(self) -> str | None:
        """The name that the running actor was given; "" when it has none, None outside of actors."""
        hosting = self._session.hosting
        if hosting is None or hosting.shape is None:
            return None
        return str(hosting.name[1]) if hosting.name is not None else ""

    @property
    def current_actor(self) -> ActorHandle[Any]:
        """The handle of the running actor; it does not keep the actor alive.

        Raises:
            RuntimeError: outside of actors.
        """
        from .actor import this_actor

        return this_actor(self._session)

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task holds, by resource name; nothing in a driver."""
        return {} if self._call is None else dict(self._call.resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs that the running task may use, as strings, under "GPU"."""
        return {"GPU": list(self._session.facts.get("gpus", ()))}

    def get_node_labels(self) -> dict[str, str]:
        """The labels of the node that this runs on."""
        return {"ray.io/node-id": self.get_node_id(), **self._session.facts.get("labels", {})}

    def get_placement_group_id(self) -> None:
        """There are no placement groups."""
        return

    def get_runtime_env_string(self) -> str:
        """The runtime environment as JSON."""
        import json

        return json.dumps(self.runtime_env)

    def get_session_name(self) -> str:
        """The session's name."""
        return self._session.session_name()

    @property
    def namespace(self) -> str:
        """Where named actors of this session live."""
        return self._session.namespace

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime environment that calls made here inherit."""
        environment = self._session.environment
        wire = environment.to_wire(lambda hook: b"")
        if environment.worker_process_setup_hook is not None:
            wire["worker_process_setup_hook"] = _described(environment.worker_process_setup_hook)
        return wire

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the running actor has had an earlier life."""
        hosting = self._session.hosting
        return hosting is not None and hosting.restarts > 0

    def get_remaining_time(self) -> float | None:
        """Seconds that are left of the running task's timeout, or of its callers'; None when it has none."""
        from .client.terms import inherited

        around = inherited.get()
        if around is None or around.deadline is None:
            return None
        return max(0.0, around.deadline - self._session.clock())

    def is_canceled(self) -> bool:
        """Whether the running task was asked to stop.

        Raises:
            RuntimeError: in a driver; in an actor with coroutines.
        """
        if self._call is None:
            raise RuntimeError("is_canceled asks about the running task, and a driver runs none")
        hosting = self._session.hosting
        if hosting is not None and hosting.shape is not None and hosting.shape.is_async:
            raise RuntimeError("is_canceled is not for coroutines: they get a CancelledError")
        return bool(self._call.cancelled)


def _described(hook: Hook) -> str:
    """A setup hook's name, as far as this process knows it."""
    if isinstance(hook, str):
        return hook
    if isinstance(hook, bytes):
        return "a function"
    return str(getattr(hook, "__qualname__", hook))


def get_runtime_context() -> RuntimeContext:
    """What the running code may know of itself; starts a session when there is none.

    Raises:
        RaySystemError: in a worker that is ending.
    """
    return RuntimeContext(session_or_init())
