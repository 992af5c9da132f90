"""How a worker joins its node: the setup hook, and the news that it can be lent."""

from __future__ import annotations

import importlib
import pickle
import traceback
from typing import TYPE_CHECKING

from ..wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.session import Session
    from ..runtime_env import RuntimeEnv


def register(session: Session, number: int, retire: Callable[[], bool], failure: str) -> None:
    """Tell the node that this worker can be lent, or why it never can. On the loop.

    Args:
        session: The worker's session.
        number: The node's number for the worker.
        retire: Called when the node has no use for the worker; False when something here is still needed.
        failure: What is wrong with the worker; empty when nothing is.
    """

    def asked_to_retire() -> None:
        if not retire():
            session.control.send([m.KEEP])

    session.on_node_message[m.RETIRE] = asked_to_retire
    if failure:
        session.control.send([m.BROKEN, failure])
    else:
        identity = session.identity
        session.control.send([m.REGISTER, number, identity.address, identity.process_id])


def run_hook(environment: RuntimeEnv) -> str:
    """Run a runtime environment's setup hook, if it has one; returns what went wrong, or nothing."""
    hook = environment.worker_process_setup_hook
    if hook is None:
        return ""
    try:
        if isinstance(hook, str):
            module, _, name = hook.rpartition(".")
            hook = getattr(importlib.import_module(module), name)
        elif isinstance(hook, bytes):
            hook = pickle.loads(hook)
        hook()
    except Exception:  # noqa: BLE001 - a user's hook; whoever asked for it hears what it raised
        return "the worker_process_setup_hook failed:\n" + traceback.format_exc()
    return ""
