"""Drivers that end in all kinds of ways: `python -m tests.cluster.drivers <name> <door> <yard> <how>`.

Each says at the door the name of its session when it is at the place that its name tells, and ends as it is
told when it is let in; or it is killed there. Its tasks stand in the yard.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncray as ray
from asyncray.process import current

from .doors import say_at, wait_at

if TYPE_CHECKING:
    from collections.abc import Callable

_CHILD = "import os, sys; os.read(os.open(sys.argv[1], os.O_RDWR), 1)"


def session_name() -> str:
    session = current().session
    assert session is not None
    return session.session_name()


def with_children(yard: str) -> int:
    """A task with children of its own in its process group, and one that it forked."""
    subprocess.Popen([sys.executable, "-c", _CHILD, f"{yard}.passes"])
    if os.fork() == 0:
        wait_at(yard)
        os._exit(0)
    say_at(yard, str(os.getpid()))
    wait_at(yard)
    return os.getpid()


def leave(how: str) -> None:
    """End the program, or let it come to its end."""
    if how == "exit":
        sys.exit(3)
    elif how == "raise":
        raise ValueError("nobody catches this")
    elif how == "_exit":
        os._exit(3)
    elif how == "abort":
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)
    elif how == "shutdown":
        ray.shutdown()
    elif how != "return":
        raise AssertionError(how)


# --- the programs ------------------------------------------------------------------------------------------


def idle(door: str, yard: str, how: str) -> None:
    ray.init(num_cpus=2)
    say_at(door, session_name())
    wait_at(door)
    leave(how)


def working(door: str, yard: str, how: str) -> None:
    """Tasks run, one of them waits for the other, and both have children."""
    ray.init(num_cpus=2)
    task = ray.remote(with_children)
    refs = [task.remote(yard), task.remote(yard)]
    dependent = ray.remote(lambda pid: pid).remote(refs[0])
    say_at(door, session_name())
    wait_at(door)
    leave(how)
    assert dependent


def blocked(door: str, yard: str, how: str) -> None:
    """The main thread waits for a task that waits for another."""
    ray.init(num_cpus=2)
    task = ray.remote(with_children)

    @ray.remote
    def outer() -> Any:
        return ray.get(task.remote(yard))

    ref = outer.remote()
    say_at(door, session_name())
    ray.get(ref)


def threads(door: str, yard: str, how: str) -> None:
    """Daemon threads wait when the main thread ends."""
    ray.init(num_cpus=2)
    ref = ray.remote(with_children).remote(yard)

    def wait() -> None:
        try:
            ray.get(ref)
        except ray.exceptions.RayError:
            return  # told that the session is over, at the interpreter's end

    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    say_at(door, session_name())
    wait_at(door)
    leave(how)


def starting(door: str, yard: str, stage: str) -> None:
    """Stop in the middle of init."""
    from asyncray.client import node_process
    from asyncray.client.bootstrap import Driver

    def stop(*_: Any) -> Any:
        say_at(door, stage)
        wait_at(door)
        sys.exit(3)

    places: dict[str, tuple[Any, str, Any]] = {
        "the node knows nothing yet": (node_process, "_LENGTH", SimpleNamespace(pack=stop)),
        "nobody has connected to the node": (Driver, "start", stop),
        "the node is not ready yet": (Driver, "_await_node", stop),
    }
    setattr(*places[stage])
    ray.init(num_cpus=2)


def preloading(door: str, yard: str, how: str) -> None:
    """The template imports something that takes long."""
    ray.init(num_cpus=2, preload=["tests.cluster.slow_import"])
    say_at(door, session_name())
    wait_at(door)
    leave(how)


def outlived(door: str, yard: str, how: str) -> None:
    """A child holds every descriptor of the driver open."""
    ray.init(num_cpus=2)
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}"):  # noqa: PTH110
            os.set_inheritable(fd, True)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, f"{yard}.passes"], close_fds=False)
    say_at(door, f"{session_name()} {child.pid}")
    wait_at(door)
    leave(how)


def forking(door: str, yard: str, how: str) -> None:
    """Fork while a task runs; the child ends in some way, and the session goes on."""
    ray.init(num_cpus=2)
    double = ray.remote(lambda x: 2 * x)
    done, pending = double.remote(1), ray.remote(wait_at).remote(yard)
    assert ray.get(done) == 2
    atexit.register(lambda: None)
    child = os.fork()
    if child == 0:
        _CHILDREN[how](done, pending)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    say_at(door, "the child has ended")
    assert status == (5 if how == "sys.exit" else 0), status
    assert ray.get([double.remote(i) for i in range(10)]) == [2 * i for i in range(10)]
    assert ray.get(pending) is None
    say_at(door, "the parent is well")


def _asks(done: Any, pending: Any) -> None:
    assert ray.get(done) == 2, "its value came over"
    assert not ray.is_initialized()
    try:
        ray.get(pending)
    except ray.exceptions.RaySystemError as error:
        assert "forked" in str(error)  # noqa: PT017
    else:
        raise AssertionError("it cannot have come here")
    assert ray.wait([pending]) == ([pending], [])


def _inits(done: Any, pending: Any) -> None:
    ray.init(num_cpus=1)
    triple = ray.remote(lambda x: 3 * x)
    assert ray.get(triple.remote(2)) == 6
    ray.shutdown()


def _inits_and_returns(done: Any, pending: Any) -> None:
    ray.init(num_cpus=1)
    assert ray.get(ray.remote(lambda x: 3 * x).remote(2)) == 6


def _calls(done: Any, pending: Any) -> None:
    """A call without init starts a session, as it does in any driver."""
    assert ray.get(ray.remote(lambda x: 3 * x).remote(2)) == 6


_CHILDREN: dict[str, Callable[[Any, Any], None]] = {
    "return": lambda done, pending: None,
    "sys.exit": lambda done, pending: sys.exit(5),
    "os._exit": lambda done, pending: os._exit(0),
    "shutdown": lambda done, pending: ray.shutdown(),
    "ask": _asks,
    "init": _inits,
    "init without shutdown": _inits_and_returns,
    "call": _calls,
}


def rounds(door: str, yard: str, how: str) -> None:
    """Start and end sessions, in every order."""
    double = ray.remote(lambda x: 2 * x)
    ray.shutdown()
    for _ in range(2):
        ray.init(num_cpus=1)
        ray.get(double.remote(1))
        ray.shutdown()
        ray.shutdown()
    ray.get(double.remote(1))  # starts one
    ray.shutdown()
    with ray.init(num_cpus=1):
        kept = double.remote(1)
    globals()["kept"] = kept
    ray.init(num_cpus=1)
    globals()["pending"] = ray.remote(wait_at).remote(yard)
    say_at(door, session_name())


def last_breath(door: str, yard: str, how: str) -> None:
    """Destructors that use the session run while the interpreter is taken apart."""

    class Talks:
        def __init__(self) -> None:
            self.ref = ray.put([1] * 1000)

        def __del__(self) -> None:
            self.ref.done()
            del self.ref

    ray.init(num_cpus=1)
    globals()["talks"] = [Talks() for _ in range(100)]
    globals()["cycle"] = cycle = [Talks()]
    cycle.append(cycle)  # type: ignore[arg-type]
    say_at(door, session_name())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
