"""Interrupts each line of the framework, one at a time: `python -m tests.cluster.at_each_line scene [every]`.

For every line of asyncray that an operation runs in the main thread, the operation is run again with a SIGINT
at that line. It must end in one KeyboardInterrupt, at once or a moment later, and leave the session whole.
What is found is printed as JSON: how many lines there were, and what went wrong at which.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray.exceptions import GetTimeoutError, TaskCancelledError
from asyncray.process import current
from tests.cluster.processes import children, descendants, left_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from asyncray.client.session import Session

PACKAGE = str(Path(ray.__file__).parent) + os.sep
#: Seconds that an interrupt which was put off may take to come.
PATIENCE_S = 20.0

Place = tuple[str, int]
Operation = Callable[[], object]


class Tracer:
    """Calls a function at each line of the framework that the main thread runs."""

    def __init__(self, at_line: Callable[[Place], None]) -> None:
        self._at_line = at_line

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self._at_line((frame.f_code.co_filename, frame.f_lineno))
        return self._trace


def lines_of(operation: Operation) -> list[Place]:
    """Run an operation, and return the lines of the framework that this takes, in order, each once."""
    lines: dict[Place, None] = {}
    with Tracer(lines.setdefault):
        operation()
    return list(lines)


def interrupt_at(place: Place, operation: Operation) -> bool:
    """Run an operation with a SIGINT at the first pass of a line.

    Returns:
        Whether it came there at all.

    Raises:
        AssertionError: when no KeyboardInterrupt follows.
    """
    passed = False

    def at_line(line: Place) -> None:
        nonlocal passed
        if line == place and not passed:
            passed = True
            signal.raise_signal(signal.SIGINT)

    try:
        with Tracer(at_line):
            operation()
        if passed:
            threading.Event().wait(PATIENCE_S)  # one that was put off comes here
    except KeyboardInterrupt:
        return True
    assert not passed, "the interrupt was lost"
    return False


def try_every_line(operation: Operation, check: Operation, every: int) -> dict[str, Any]:
    """Interrupt an operation at every *every*-th of its lines, and check each time."""
    operation()
    check()
    lines = lines_of(operation)
    check()
    failures = []
    passed = 0
    for place in lines[::every]:
        try:
            passed += interrupt_at(place, operation)
            check()
        except BaseException:  # noqa: BLE001 - a second KeyboardInterrupt, too
            failures.append(f"{place[0]}:{place[1]}\n{traceback.format_exc()}")
    return {"lines": len(lines), "passed": passed, "failures": failures}


# ---- the scenes of one session ----


@ray.remote
def echo(value: Any = None, *others: Any, **keywords: Any) -> Any:
    """Return the first argument."""
    return value


@ray.remote(num_returns=2)
def two() -> tuple[int, int]:
    """Return two values."""
    return 1, 2


@ray.remote
def fail() -> None:
    """Raise."""
    raise ValueError("on purpose")


@ray.remote
async def echo_soon(value: Any) -> Any:
    """Return the argument."""
    return value


@ray.remote(num_cpus=0)
def wait_for_ever() -> None:
    """Wait until this is cancelled."""
    threading.Event().wait()


def submit() -> None:
    """Calls of every kind: ready at once, with references as arguments, with references inside them."""
    first = echo.remote(1)
    echo.remote(first)
    echo.remote([first], key=first)
    echo.remote(bytearray(200_000))
    two.remote()
    echo_soon.remote(2)


def submit_new_function() -> None:
    """The first call of a function, which is pickled for it; it has a reference in its closure."""
    ref = ray.put(1)
    ray.remote(lambda: ref).options(num_cpus=0.5).remote()


def put() -> None:
    """Values of every form."""
    inner = ray.put(1)
    ray.put("text")
    ray.put([inner, bytearray(200_000)])


def get() -> None:
    """One, many, none in time, a failure, some that are there and some that are not."""
    ray.get(echo.remote(1))
    ray.get([echo.remote(1), ray.put(2), echo_soon.remote(3)])
    ray.get(ray.put([ray.put(1)]))
    with suppress(ValueError):
        ray.get([echo.remote(1), fail.remote()])
    with suppress(GetTimeoutError):
        ray.get(wait_for_ever.remote(), timeout=0.001)


def wait() -> None:
    """A few of many, all, none in time, in the order in which they come."""
    refs = [echo.remote(i) for i in range(3)]
    ready, rest = ray.wait(refs)
    ray.wait(rest, num_returns=2, timeout=10)
    ray.wait([wait_for_ever.remote(), *ready], timeout=0.001, num_returns=2)
    for _ in ray.util.as_completed([echo.remote(i) for i in range(3)]):
        pass
    for _ in ray.util.map_unordered(echo, range(3)):
        pass


def cancel() -> None:
    """What waits, what may run, what is done."""
    running, done = wait_for_ever.remote(), echo.remote(1)
    waiting = echo.remote(running)
    ray.wait([done])
    ray.cancel(waiting, done)
    ray.cancel(running, force=False)
    with suppress(TaskCancelledError):
        ray.get(running)


@ray.remote
def items(count: int) -> Iterator[int]:
    """So many items."""
    yield from range(count)


def stream() -> None:
    """To the end, until a failure, in `wait`, closed early, forgotten while it waits to be read."""
    for ref in items.remote(3):
        ray.get(ref)
    one = items.options(max_unread=1).remote(9)
    either: list[Any] = [one, wait_for_ever.remote()]
    ray.wait(either, timeout=PATIENCE_S)
    next(one)
    one.close()
    with items.remote(10**9) as two:
        next(two)
        two.completed()
    next(items.options(max_unread=1).remote(9))


def map_all() -> None:
    """To the end, left early, with a failure."""
    assert list(ray.util.map(echo, range(3), limit=2)) == [0, 1, 2]
    with ray.util.map(echo, [1, 2, 3], limit=2, ordered=False) as results:
        next(results)
    with suppress(ValueError):
        list(ray.util.map(fail_with, [1, 2], limit=2))


@ray.remote
def fail_with(value: int) -> None:
    """Raise."""
    raise ValueError(value)


def explain() -> None:
    """Why something is not done, and who waits for whom."""
    ray.util.explain(wait_for_ever.remote())
    ray.util.explain(echo.remote(1))
    ray.util.wait_graph()


def ask() -> None:
    """Questions, callbacks, and what refs can do besides."""
    ray.available_resources()
    ref = echo.remote(1)
    ref.add_done_callback(lambda done: None)
    ref.future().result(PATIENCE_S)
    ref.remove_done_callback(print)
    assert ref.done()
    assert not ref.cancelled()
    assert ref.exception() is None
    str(ref)


SCENES: dict[str, Operation] = {
    function.__name__: function
    for function in (submit, submit_new_function, put, get, wait, cancel, stream, map_all, explain, ask)
}


def in_one_session(name: str, every: int) -> dict[str, Any]:
    """Try the lines of a scene, all in the same session."""
    with ray.init(num_cpus=4):
        session = current().session
        assert session is not None
        return try_every_line(SCENES[name], lambda: check_session(session), every)


def check_session(session: Session) -> None:
    """A session works: batches of tasks give the right results, and nothing is left in its tables."""
    refs = [echo.remote(i) for i in range(20)]
    assert ray.get(refs, timeout=PATIENCE_S) == list(range(20))
    del refs
    gc.collect()
    cancel_all(session)
    for _ in range(int(PATIENCE_S * 1000)):
        left = what_is_left(session)
        if not left:
            return
        select.poll().poll(1)
    raise AssertionError(left)


def cancel_all(session: Session) -> None:
    """End what the scenes leave running."""
    with session.owner.lock:
        records = [record for record in session.owner.objects.owned.values() if record.task is not None]
    for record in records:
        session.cancel_record(record, force=False, recursive=False)


def what_is_left(session: Session) -> str:
    """What is in the tables of a session that should have nothing to do."""
    session.owner.drain_dropped()
    owner, leases = session.owner, session.leases
    with owner.lock:
        owner.objects.validate()
        found = {
            "objects": len(owner.objects.owned) + len(owner.objects.borrowed),
            "put off": len(owner._put_off),
            "watchers": len(owner.watchers),
            "enclosures": len(owner.enclosures),
            "streams": len(session.streams.abandoned),
            "notices": len(session.notices),
            "queued": sum(group.demand() for group in leases._by_number),
            "in flight": sum(len(lease.in_flight) for lease in leases._leases.values()),
        }
    return ", ".join(f"{count} {name}" for name, count in found.items() if count)


# ---- the scenes of a session's start and end ----


def start_and_end(name: str, every: int) -> dict[str, Any]:
    """Try the lines of `init`, or of `shutdown`: each time a session is started and ended."""

    def start() -> None:
        ray.init(num_cpus=1)

    def end() -> None:
        ray.shutdown()

    start()
    end()
    before = descriptors()  # the loop's library keeps some for the life of the process

    def check_end() -> None:
        pids = descendants(os.getpid())
        ray.shutdown()
        assert not ray.is_initialized()
        assert left_of(pids, PATIENCE_S) == []
        assert children(os.getpid()) == []
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        for thread in threading.enumerate():
            if thread is not threading.main_thread():
                thread.join(PATIENCE_S)
        assert threading.active_count() == 1, threading.enumerate()
        gc.collect()
        assert descriptors() == before, descriptors() - before

    def check_and_start() -> None:
        check_end()
        start()

    if name == "init":
        return try_every_line(start, check_end, every)
    start()
    result = try_every_line(end, check_and_start, every)
    check_end()
    return result


def descriptors() -> set[tuple[str, str]]:
    """What this process has open."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a descriptor is not a path
        with suppress(FileNotFoundError):
            found.add((entry, os.readlink(f"/proc/self/fd/{entry}")))  # noqa: PTH115 - likewise
    return found


def main(name: str, every: int = 1) -> None:
    """Try a scene, and print what was found."""
    found = start_and_end(name, every) if name in ("init", "shutdown") else in_one_session(name, every)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
