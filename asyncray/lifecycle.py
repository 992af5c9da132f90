"""Starting and ending the session of this process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from .config import Config
from .exceptions import RaySystemError
from .init_options import InitOptions
from .process import current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .client.bootstrap import Driver
    from .client.interrupts import InterruptGuard
    from .client.session import Session

#: Guards the start and the end of a session, so that two threads that make the first call start one.
_starting = threading.RLock()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Start or end a session while no other thread does.

    Raises:
        RaySystemError: when this thread does already: a destructor has interrupted it.
    """
    if _starting._is_owned():  # type: ignore[attr-defined]
        raise RaySystemError("a destructor that interrupted the start or end of a session cannot use one")
    with _starting:
        yield


def start_or_join(given: dict[str, Any]) -> Session:
    """The session that ``init`` begins; with ignore_reinit_error a task has the one that it runs in.

    Raises:
        RuntimeError: when there is one already and ignore_reinit_error was not given.
        RaySystemError: when the node does not start.
    """
    process = current()
    if process.worker and process.session is not None and InitOptions.parse(given).ignore_reinit_error:
        return process.session
    return start(given).session


def start(given: dict[str, Any]) -> Driver:
    """Start a session for this process; what ``init`` and ``aio.session`` do.

    Raises:
        RuntimeError: when there is one already and ignore_reinit_error was not given.
        RaySystemError: when the node does not start.
    """
    options = InitOptions.parse(given)
    with _alone():
        return _start(options)


def _start(options: InitOptions) -> Driver:
    process = current()
    driver = process.driver
    if process.worker or (driver is not None and driver.session.failure is None):
        if options.ignore_reinit_error and driver is not None:
            return driver
        raise RuntimeError(
            "init was called a second time: shut the session down first, or give ignore_reinit_error=True"
        )
    if driver is not None:
        # The node of the last session has died; what is left of that session goes first.
        _stop(driver)
    _set_up_logging(options)
    process.driver = driver = _launch(options)
    process.session = driver.session
    if not process.hooked:
        process.hooked = True
        atexit.register(_stop_at_exit)
        os.register_at_fork(after_in_child=process.after_fork)
    return driver


def _launch(options: InitOptions) -> Driver:
    config = Config.from_env(None, **options.system_config)
    guard = _take_interrupts()
    try:
        return _start_node(options, config, guard)
    except BaseException:
        guard.uninstall()
        raise


def _take_interrupts() -> InterruptGuard:
    """Handle Ctrl-C before there is anything that it could leave behind half done."""
    process = current()
    if process.guard is None:
        from .client.interrupts import InterruptGuard, Interrupts

        process.guard = InterruptGuard(Interrupts())
    process.guard.install()
    return process.guard


def _start_node(options: InitOptions, config: Config, guard: InterruptGuard) -> Driver:
    # The node starts first; what this process itself needs is imported while it comes up.
    from .client.node_process import NodeProcess, default_loop

    node = NodeProcess(options, config, default_loop(os.environ))
    try:
        from .client.bootstrap import Driver

        driver = Driver(options, config, node, guard)
        driver.start()
    except BaseException:
        node.close(patient=False)
        raise
    return driver


def _set_up_logging(options: InitOptions) -> None:
    if not options.configure_logging:
        return
    logger = logging.getLogger("asyncray")
    logger.setLevel(options.logging_level)
    if options.logging_format and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(options.logging_format))
        logger.addHandler(handler)


def stop() -> None:
    """End this process's session, if it has one; quiet when it has none.

    Raises:
        KeyboardInterrupt: when there was one meanwhile; the session has ended all the same.
    """
    with _alone():
        driver = current().driver
        if driver is not None:
            _stop(driver)


def _stop_at_exit() -> None:
    # Whoever interrupts this wants the program to end, which it does.
    with contextlib.suppress(KeyboardInterrupt):
        stop()


def _stop(driver: Driver) -> None:
    process = current()
    process.driver = None
    process.session = None
    driver.stop()


def session_or_init() -> Session:
    """The session of this process; a driver without one starts it.

    Raises:
        RaySystemError: in a process forked from one with a session, which must not use that; in a destructor
            that interrupted the start or the end of a session.
    """
    session = current().session
    if session is not None:
        return session
    if current().worker:
        raise RaySystemError("this worker has no session: it is ending, or is a child that a task has forked")
    with _alone():
        if current().session is None:
            _start(InitOptions.parse({}))
        return current().session  # type: ignore[return-value]
