"""What every process of a session holds, asked from outside: no task has to run for it.

    @remote                                # runs in workers that tell
    def same(x): return x
    ...
    Tables().settle()                      # nothing is held any more, anywhere

A thread in each of these workers listens on a socket of its own, so that busy ones answer too.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

import asyncray as ray
from asyncray.client.statistics import Statistics
from asyncray.process import current
from asyncray.state.objects import REGISTERED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncray import ObjectRef
    from asyncray.client.session import Session
    from asyncray.remote import Decorator

#: What tasks keep beyond their end, in their worker.
attic: dict[Any, Any] = {}
_LOOK_AGAIN_MS = 2
_MESSAGE_BYTES = 1 << 20
_PATIENCE_S = 20.0


def keep(key: Any, value: Any) -> int:
    """Keep something in this process beyond the task's end; returns the process id."""
    attic[key] = value
    return os.getpid()


def kept(key: Any) -> Any:
    """What is kept here under *key*; None when nothing is."""
    return attic.get(key)


def session() -> Session:
    """The session of this process."""
    found = current().session
    assert found is not None
    return found


def tell_tables() -> None:
    """Answer questions about this worker, from now on; a worker's setup hook."""
    asked = socket.socket(socket.AF_UNIX)
    # An earlier process may have had the same pid.
    Path(_place(os.getpid())).unlink(missing_ok=True)
    asked.bind(_place(os.getpid()))
    asked.listen()
    here = session()
    threading.Thread(target=_answer, args=(asked, here), daemon=True).start()


class HeldBack:
    """Calls of one method of this process's session that wait until they are let go."""

    def __init__(self, owner: Any, name: str, wanted: Callable[..., bool] = lambda *args: True) -> None:
        self._owner, self._name, self._wanted = owner, name, wanted
        self._real = getattr(owner, name)
        self.calls: list[tuple[Any, ...]] = []
        setattr(owner, name, self._hold)

    def _hold(self, *args: Any) -> Any:
        if not self._wanted(*args):
            return self._real(*args)
        self.calls.append(args)
        return True

    def wait_for(self, count: int) -> None:
        """Wait until so many calls are held back."""
        settled(lambda: len(self.calls) >= count)

    def let_go(self) -> None:
        """Make the calls now, in their order, and hold none back any more."""
        delattr(self._owner, self._name)
        session().call_soon(self._replay)

    def _replay(self) -> None:
        while self.calls:
            self._real(*self.calls.pop(0))


def held_messages(*numbers: int) -> HeldBack:
    """Hold back what this process says to its peers, of some kinds."""
    return HeldBack(session().peers, "send_to", lambda peer, message, *rest: message[0] in numbers)


def _place(pid: int) -> str:
    """Where a worker listens: the tests' temporary directory is the workers' too."""
    return str(Path(tempfile.gettempdir(), f"tables of {pid}"))


#: Makes a function remote; it runs in workers that tell what they hold.
remote = ray.remote(runtime_env={"worker_process_setup_hook": tell_tables})


def remote_with(**options: Any) -> Decorator:
    """As remote, with further options."""
    decorator: Decorator = ray.remote(runtime_env={"worker_process_setup_hook": tell_tables}, **options)
    return decorator


def _answer(asked: socket.socket, here: Session) -> None:
    while True:
        connection, _ = asked.accept()
        with connection:
            question, *arguments = msgpack.unpackb(connection.recv(_MESSAGE_BYTES))
            try:
                answer = [True, _ANSWERS[question](here, *arguments)]
            except Exception as error:  # noqa: BLE001 - the test hears of it
                answer = [False, repr(error)]
            connection.sendall(msgpack.packb(answer))


def _clear(here: Session) -> None:
    attic.clear()
    gc.collect()


def _fetch(here: Session, key: str, *path: int) -> Any:
    value = attic[key]
    for index in path:
        value = fetched(value)[index]
    return fetched(value)


def fetched(value: Any) -> Any:
    """What a reference refers to; other values as they are."""
    return ray.get(value, timeout=_PATIENCE_S) if isinstance(value, ray.ObjectRef) else value


def _hold(here: Session, number: int) -> None:
    keep("held back", held_messages(number))


def worth(value: Any) -> Any:
    """What references lead to, however deep: numbers, and lists of what those in lists lead to."""
    value = fetched(value)
    if isinstance(value, list):
        return [worth(part) for part in value if not isinstance(part, bytes)]
    return value


_ANSWERS: dict[str, Callable[..., Any]] = {
    "tell": lambda here: [*here.statistics()],
    "clear": _clear,
    "fetch": _fetch,
    "worth": lambda here, key, index: worth(fetched(attic[key])[index]),
    "hold": _hold,
    "count held": lambda here: len(kept("held back").calls),
    "let go": lambda here: attic.pop("held back").let_go(),
    "has": lambda here, key: key in attic,
    "forget": lambda here, key: attic.pop(key, None) and None,
}


class Tables:
    """Asks the processes of the open session what they hold; a worker that cannot tell is left out."""

    def pids(self) -> list[int]:
        """The workers that are there now."""
        return [pid for pid, _, _ in session().questions.blocking("workers")]

    def await_idle(self, pid: int) -> None:
        """Wait until a worker is nobody's: a process that dies takes those whom it has leased with it."""
        settled(
            lambda: any(worker[:2] == [pid, "idle"] for worker in session().questions.blocking("workers"))
        )

    def of_workers(self) -> dict[int, Statistics]:
        """What each worker holds."""
        told = {pid: self._ask(pid, "tell") for pid in self.pids()}
        return {pid: Statistics(*counts) for pid, counts in told.items() if counts is not None}

    def of_workers_that(self, hold: Callable[[Statistics], bool]) -> list[int]:
        """The workers of whose counts something is true."""
        return [pid for pid, told in self.of_workers().items() if hold(told)]

    def get_in(self, pid: int, key: str, *path: int) -> Any:
        """What a worker reads from its attic: a reference is got, then indexed, along the path."""
        return self._ask(pid, "fetch", key, *path)

    def has_kept(self, pid: int, key: str) -> bool:
        """Whether a worker has something in its attic."""
        return bool(self._ask(pid, "has", key))

    def worth_in(self, pid: int, key: str, index: int) -> Any:
        """What a reference in a worker's attic leads to, however deep."""
        return self._ask(pid, "worth", key, index)

    def forget_in(self, pid: int, key: str) -> None:
        """Drop one thing from a worker's attic."""
        self._ask(pid, "forget", key)

    def hold_in(self, pid: int, number: int) -> None:
        """Hold back one kind of message that a worker says to its peers."""
        self._ask(pid, "hold", number)

    def wait_for_held_in(self, pid: int, count: int) -> None:
        """Wait until a worker has held back so many."""
        settled(lambda: self._ask(pid, "count held") >= count)

    def let_go_in(self, pid: int) -> None:
        """Let it say what was held back."""
        self._ask(pid, "let go")

    def clear_attics(self) -> None:
        """Drop what tasks have kept in their workers."""
        for pid in self.pids():
            self._ask(pid, "clear")

    def _ask(self, pid: int, *question: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_PATIENCE_S)
            try:
                asking.connect(_place(pid))
                asking.sendall(msgpack.packb(question))
                answer = asking.recv(_MESSAGE_BYTES)
            except (FileNotFoundError, ConnectionError):  # it has not begun yet, or has ended
                return None
        if not answer:
            return None
        well, told = msgpack.unpackb(answer)
        assert well, told
        return told

    def held(self) -> dict[str, Statistics]:
        """What processes hold of objects, calls and references; those that hold nothing are left out."""
        told = {f"worker {pid}": answer for pid, answer in self.of_workers().items()}
        told["driver"] = session().statistics()
        empty = Statistics(*[0] * len(Statistics._fields))
        without = {name: answer._replace(functions=0) for name, answer in told.items()}
        return {name: answer for name, answer in without.items() if answer != empty}

    def settle(self, within_s: float = 5.0) -> None:
        """Wait until nothing is held anywhere."""
        settled(lambda: not self.held(), within_s, lambda: f"still held: {self.held()}")


def settled_on(look: Callable[[], Any]) -> Any:
    """Wait until there is something to see, and return it."""
    seen: list[Any] = []

    def found() -> bool:
        seen[:] = [look()]
        return bool(seen[0])

    settled(found)
    return seen[0]


def settled(
    condition: Callable[[], bool], within_s: float = 5.0, story: Callable[[], str] = lambda: "it never came"
) -> float:
    """Wait until something that other processes bring about is so; return the seconds that took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < within_s, story()
        select.poll().poll(_LOOK_AGAIN_MS)
    return time.monotonic() - begin


@contextmanager
def counted(num_cpus: int = 2, **options: Any) -> Iterator[Tables]:
    """A session of one's own, in which nothing is held at the end."""
    ray.init(num_cpus=num_cpus, **options)
    try:
        tables = Tables()
        yield tables
        tables.clear_attics()
        tables.settle()
    finally:
        ray.shutdown()


# ---- what tests have workers do ----


@remote
def same(value: Any) -> Any:
    return value


@remote
async def same_async(value: Any) -> Any:
    return value


@remote
def own(value: Any) -> Any:
    """A reference that its worker owns."""
    return [ray.put(value)]


@remote
async def own_async(value: Any) -> Any:
    return [ray.put(value)]


@remote
def stash(key: str, value: Any) -> int:
    """Keep something in the worker, beyond the task's end."""
    return keep(key, value)


@remote
async def stash_async(key: str, value: Any) -> int:
    return keep(key, value)


@remote
def unwrapped(value: Any) -> Any:
    """What is inside lists and references, however deep."""
    while isinstance(value, list | ray.ObjectRef):
        value = value[0] if isinstance(value, list) else ray.get(value)
    return value


@remote
def recall(key: str) -> Any:
    return kept(key)


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=_PATIENCE_S)


def await_registration(ref: ObjectRef[Any]) -> None:
    """Wait until the owner of a borrowed reference knows that this process holds it."""
    record: Any = ref._record
    settled(lambda: record.borrowing == REGISTERED)


class BearerError(Exception):
    """An error that carries references."""

    def __init__(self, refs: list[Any]) -> None:
        super().__init__("see my references")
        self.refs = refs
