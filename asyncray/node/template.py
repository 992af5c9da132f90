"""The template: a warm process without threads that forks each worker in a millisecond.

    node --(fork: worker number, settings + 4 descriptors)--> template --fork--> worker
    node <--(forked / died: pid, wait status)---------------- template

Rule 1: no thread and no event loop ever exists in this process, so that forking is safe.
Rule 2: the template's end is its workers' end. Each worker leads a process group, which is killed with it.
Rule 3: a worker's death is what its wait status says; a closed socket proves nothing, because a child of
        the worker may hold it open.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgpack

FORK: Final = "fork"
FORKED: Final = "forked"
FAILED: Final = "failed"
DIED: Final = "died"
READY: Final = "ready"
_MESSAGE_BYTES: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_DESCRIPTORS: Final = 4

#: Found once: a fork that looks for it again makes a class, and copies the pages for that.
_PRCTL: Final = ctypes.CDLL(None, use_errno=True).prctl

RunWorker = Callable[[int, int, dict[str, Any]], None]


def pack(message: list[Any]) -> bytes:
    """A message between node and template."""
    data: bytes = msgpack.packb(message, use_bin_type=True)
    return data


def unpack(data: bytes) -> list[Any]:
    """Undo `pack`."""
    message: list[Any] = msgpack.unpackb(data, raw=False)
    return message


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; end now if it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def wake_with_parents_end() -> None:
    """Have this process go on when its parent ends, should somebody have stopped it: it has to clean up."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Set the name that tools show for this process; 15 bytes at most."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def _prctl(option: int, argument: Any) -> None:
    _PRCTL(option, argument, 0, 0, 0)


class Template:
    """Forks workers on request and reports their deaths.

    Args:
        sock: The connection to the node.
        prepare: Has ready what all workers need alike; what it returns runs one, in its own process.
    """

    def __init__(self, sock: socket.socket, prepare: Callable[[], RunWorker]) -> None:
        self._sock = sock
        self._prepare = prepare
        self._workers: set[int] = set()

    def run(self, preload: list[str]) -> NoReturn:
        """Import what every worker will need, then serve until the node goes."""
        name_process("asyncray-templ")
        # A preloaded library may have threads, and look after them at a fork. In workers a task may fork: the
        # loop's thread takes no part in the child.
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        failures = [text for text in map(_preload, preload) if text]
        if preload:
            _flush_output()
            gc.collect()
        self._run_worker = self._prepare()
        # What exists now is never collected, so that forked workers do not copy its pages to look at it.
        gc.freeze()
        gc.enable()
        # From here on the node's end shows as a closed socket, and this process ends its workers itself.
        wake_with_parents_end()
        self._send([READY, failures])
        # What a worker had started comes to this process when the worker dies, to be reaped with it.
        adopt_orphans()
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        os.set_blocking(wake_r, False)
        # What workers inherit. A driver that a shell has put in the background ignores SIGINT, and a task may
        # want it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        self._serve(wake_r, [wake_r, wake_w])

    def _serve(self, wake_r: int, own: list[int]) -> NoReturn:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(wake_r, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == wake_r:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_r, 4096)
                    self._reap()
                else:
                    self._on_request(own)

    def _on_request(self, own: list[int]) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _MESSAGE_BYTES, _DESCRIPTORS)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            self._end()
        _, number, settings = unpack(data)
        try:
            self._fork(number, settings, fds, own)
        except OSError as error:
            self._send([FAILED, number, str(error)])
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, number: int, settings: dict[str, Any], fds: list[int], own: list[int]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(parent, settings, fds, own)
        # Both sides do this, whichever comes first: the group must exist before anyone kills it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        self._workers.add(pid)
        self._send([FORKED, number, pid])

    def _become_worker(
        self, parent: int, settings: dict[str, Any], fds: list[int], own: list[int]
    ) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            die_with_parent(parent)
            name_process("asyncray-worker")
            self._sock.close()
            control, out, err, mark = fds
            os.dup2(out, 1)
            os.dup2(err, 2)
            for fd in (*own, out, err):
                os.close(fd)
            be_first_to_be_killed()
            reseed()
            self._run_worker(control, mark, settings)
            status = 0
        except BaseException:  # noqa: BLE001 - the last frame of the process: tell, and end
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while pid := _next_ended():
            if pid not in self._workers:
                os.waitpid(pid, 0)
                continue
            # Before it is reaped: after that, its number may be somebody else's.
            kill_group(pid)
            _, status = os.waitpid(pid, 0)
            self._workers.discard(pid)
            self._send([DIED, pid, status])

    def _send(self, message: list[Any]) -> None:
        try:
            self._sock.send(pack(message))
        except OSError:
            self._end()

    def _end(self) -> NoReturn:
        for pid in self._workers:
            kill_group(pid)
        for pid in self._workers:
            # Killed, so that this does not last; not waited for, they would stay in the process table.
            _reap_group(pid)
        os._exit(0)


def _next_ended() -> int:
    """A child that has ended and is not reaped yet; 0 when there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return 0 if found is None else found.si_pid


def _reap_group(pid: int) -> None:
    """Wait for a killed worker and for everything of its process group, which this process adopts from it."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)


def kill_group(pid: int) -> None:
    """Kill a worker with everything in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def be_first_to_be_killed() -> None:
    """Tell the kernel that this process goes first when memory runs out."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, b"1000")
        finally:
            os.close(fd)
    except OSError:
        # Not allowed in some containers; the node's own watch on memory still works.
        return


def reseed() -> None:
    """Undo the sharing of random state by fork; `random` does this by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _flush_output() -> None:
    """Write what modules have printed; it would be lost, because workers have other streams."""
    # Nobody may read it any more, and a module may have closed its stream, or taken it away.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()


def _preload(module: str) -> str:
    threads = threading.active_count()
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module; workers start without it
        return f"cannot preload {module!r}: {type(error).__name__}: {error}"
    if threading.active_count() > threads:
        return f"the preloaded module {module!r} has started a thread, and no worker will have it"
    return ""
