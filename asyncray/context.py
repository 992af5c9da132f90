"""What a program may ask about its session, and a task about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from .ids import object_binary
from .lifecycle import session_or_init

if TYPE_CHECKING:
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
        """None: there are no actors yet."""
        return None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task holds, by resource name; nothing in a driver."""
        return {} if self._call is None else dict(self._call.resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs that the running task may use, as strings, under "GPU"."""
        return {"GPU": list(self._session.facts.get("gpus", ()))}

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
        """False: there are no actors yet."""
        return False

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
            RuntimeError: in a driver.
        """
        if self._call is None:
            raise RuntimeError("is_canceled asks about the running task, and a driver runs none")
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
