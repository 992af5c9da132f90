"""The blocking verbs: one thin layer over a session.

On a running event loop what need not wait works (``put``, ``cancel``, ``timeout=0``, finished references);
what would block the loop raises at once and names the coroutine of ``asyncray.aio`` to await instead.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from . import lifecycle
from .context import Context
from .generators import ObjectRefGenerator
from .process import current
from .readiness import W, Watch, checked_refs
from .refs import ObjectRef, RemadeError, value_of
from .resources import UNITS
from .validation import check_timeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .client.session import Session
    from .init_options import InitOptionsDict

T = TypeVar("T")


def init(address: str | None = None, **options: Unpack[InitOptionsDict]) -> Context:  # type: ignore[misc]
    """Start a session: a node process with workers on this machine. Calls without one start it too.

    Args:
        address: None or "local": a new node. There are no clusters to join yet.
        **options: See :class:`asyncray.init_options.InitOptionsDict`; the important ones are num_cpus
            (default: this process's), num_gpus, resources ({name: quantity}), runtime_env (env_vars,
            working_dir, py_modules, worker_process_setup_hook), log_to_driver (True), preload (modules
            that workers find imported), ignore_reinit_error (False).

    Returns:
        A description of the session; ``with init():`` shuts it down at the end of the block.

    Raises:
        RuntimeError: when there is a session already, unless ignore_reinit_error; when an option is unknown.
        TypeError: when an option is of the wrong type.
        ValueError: when an option has an impossible value.
        RaySystemError: when the node does not start.
    """
    return Context(lifecycle.start_or_join({"address": address, **options}), shutdown)


def shutdown(*, wait_for_processes: bool = False) -> None:
    """End the session, with every process, socket and byte of memory that it had. Quiet without one.

    Args:
        wait_for_processes: Accepted for Ray's sake; all processes have ended when this returns.
    """
    lifecycle.stop()


def is_initialized() -> bool:
    """Whether this process has an open session."""
    session = current().session
    return session is not None and session.failure is None


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: ObjectRefGenerator[T], *, timeout: float | None = None) -> ObjectRefGenerator[T]: ...
@overload
def get(refs: list[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
@overload
def get(refs: list[ObjectRef[Any]], *, timeout: float | None = None) -> list[Any]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the list of values of a list of them, in its order.

    Args:
        refs: A reference or a list of references. A generator is returned unchanged, as in Ray.
        timeout: Seconds to wait; None is as long as it takes, 0 only looks.

    Raises:
        GetTimeoutError: when the time is over; the work goes on.
        RayTaskError: when a task raised; it is an instance of what the task raised, too. The first failure
            is raised without waiting for the rest.
        RuntimeError: when this would block a running event loop.
        TypeError: when the list holds something else, or *timeout* is no number.
        ValueError: when *refs* is neither a reference nor a list.
    """
    if type(refs) is ObjectRef:
        record = refs._record
        if timeout is not None:
            check_timeout(timeout)
        return value_of(record, timeout)
    if type(refs) is ObjectRefGenerator:
        return refs
    lifecycle.session_or_init()
    check_timeout(timeout)
    checked = list_of_refs(refs)
    if not checked:
        return []
    session: Session = checked[0]._record.owner.session
    records: list[Any] = [ref._record for ref in checked]
    until, left = session.clock() + timeout if timeout else None, timeout
    while True:
        session.waits.wait_all(records, left, "`await asyncray.aio.get(refs)`")
        try:
            return values_of(checked)
        except RemadeError:
            left = timeout if until is None else max(0.0, until - session.clock())


def values_of(refs: Sequence[ObjectRef[Any]]) -> list[Any]:
    """The values of references that are done; raises the first failure among them.

    Raises:
        RemadeError: when one was lost, and must be waited for once more.
    """
    records = [ref._record for ref in refs]
    for record in records:
        if record.state == _FAILED:
            record.owner.load(record)
    try:
        return records[0].owner.load_all(records) if records else []
    except RemadeError:
        # What else is lost is found now, and made at the same time.
        for record in records:
            with suppress(RemadeError):
                record.owner.load(record)
        raise


#: state.objects.FAILED; the import of that module would load the type checker's half of the runtime.
_FAILED = 2


def put(value: T) -> ObjectRef[T]:
    """Store a value and return a reference to it. Later changes of the value do not show.

    Raises:
        TypeError: when the value is a reference, or cannot be pickled (the message says what in it).
    """
    return lifecycle.session_or_init().put(value)


def wait(
    refs: list[W],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[W], list[W]]:
    """Wait until some references are done; a generator is when its next item, or its end, is there.

    Args:
        refs: Different references and generators.
        num_returns: How many to wait for.
        timeout: Seconds after which fewer are returned; None is as long as it takes, 0 only looks.
        fetch_local: Whether values that live in other processes are fetched on the way.

    Returns:
        At most *num_returns* that are done, and all the others, both in the order given.

    Raises:
        RuntimeError: when this would block a running event loop.
        TypeError: when *refs* is no list of references.
        ValueError: when a reference stands there twice, or *num_returns* does not fit the list.
    """
    session = lifecycle.session_or_init()
    checked_refs(refs, num_returns)
    check_timeout(timeout)
    if not refs:
        return [], []
    deadline = None if timeout is None else session.clock() + timeout
    tally = session.waits.new_tally()
    with Watch(session, refs, num_returns, tally) as watch:
        while not watch.enough():
            left = None if deadline is None else deadline - session.clock()
            if left is not None and left <= 0:
                watch.ask(fetch_local=fetch_local)
                break
            session.waits.check_may_block("`await asyncray.aio.wait(refs)`")
            if watch.must_wait(fetch_local=fetch_local):
                session.waits.park(tally.gate, left, watch.awaited)
        return watch.split()


def cancel(
    *refs: ObjectRef[Any] | ObjectRefGenerator[Any], force: bool = False, recursive: bool = True
) -> None:
    """Cancel the tasks that make *refs*. The references raise TaskCancelledError at once.

    A task that waits never runs. In one that runs, KeyboardInterrupt is raised (a synchronous one, in its
    main thread) or CancelledError (a coroutine). One that has ended is left alone.

    Args:
        *refs: References to results of tasks, or generators of them.
        force: Kill the worker instead; other tasks in it are run again.
        recursive: Cancel what the tasks have called for, too.

    Raises:
        SessionClosedError: when a reference is one of an earlier session.
        TypeError: when something is no reference.
        ValueError: when a call of an actor is to be cancelled by force.
    """
    made: list[Any] = [ref._ref if type(ref) is ObjectRefGenerator else ref for ref in refs]
    for ref in only_refs(made, "cancel"):
        session: Session = ref._record.owner.session
        session.references.check_open()
        if force:
            from .client.stopping import refuse_force

            refuse_force(ref._record)
        session.cancel_record(ref._record, force=force, recursive=recursive)  # type: ignore[arg-type]


def nodes() -> list[dict[str, Any]]:
    """The nodes of the session: one, with its id, resources, labels and whether it is alive."""
    session = lifecycle.session_or_init()
    return [
        {
            "NodeID": session.session_name(),
            "Alive": session.failure is None,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": "localhost",
            "Resources": cluster_resources(),
            "Labels": dict(session.facts.get("labels", {})),
        }
    ]


def cluster_resources() -> dict[str, float]:
    """What the session's nodes have, by resource name; memory in bytes."""
    return as_floats(lifecycle.session_or_init().facts["resources"])


def available_resources() -> dict[str, float]:
    """What of the nodes' resources is free now, by name. Those with nothing free are left out, as in Ray.

    Raises:
        RuntimeError: on a running event loop; use ``await asyncray.aio.available_resources()``.
    """
    return as_floats(lifecycle.session_or_init().questions.blocking("available_resources"))


def get_gpu_ids() -> list[int | str]:
    """The GPUs that the running task may use: indices, or UUIDs where CUDA_VISIBLE_DEVICES names those.

    None in a driver.
    """
    from .context import get_runtime_context

    names = get_runtime_context().get_accelerator_ids()["GPU"]
    return [int(name) if name.isdigit() else name for name in names]


def only_refs(refs: Iterable[ObjectRef[T]], verb: str) -> list[ObjectRef[T]]:
    """The references as a list.

    Raises:
        TypeError: when something is no reference.
    """
    listed = list(refs)
    for ref in listed:
        if type(ref) is not ObjectRef:
            raise TypeError(f"{verb} takes references, not {ref!r} of type {type(ref).__name__}")
    return listed


def as_floats(units: dict[str, int]) -> dict[str, float]:
    """Units as quantities, without what is not there."""
    return {name: amount / UNITS for name, amount in units.items() if amount > 0}


def list_of_refs(refs: Any) -> list[ObjectRef[Any]]:
    """What get was given, when it is a list of references.

    Raises:
        SessionClosedError: when a reference is one of an earlier session.
        TypeError: when the list holds something else.
        ValueError: when it is no list.
    """
    if not isinstance(refs, list):
        raise ValueError(  # noqa: TRY004 - Ray's type
            f"get takes an ObjectRef or a list of them, not {refs!r} of type {type(refs).__name__}"
        )
    for ref in refs:
        if type(ref) is not ObjectRef:
            raise TypeError(f"get takes references; the list holds {ref!r} of type {type(ref).__name__}")
    for owner in {ref._record.owner for ref in refs}:
        owner.check_open()
    return refs
