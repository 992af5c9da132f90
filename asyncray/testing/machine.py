"""A simulated machine: its processes, which live on one event loop, each in a context of its own.

What makes a process one: an `asyncray.process.Process`, found through the context variable; the sockets,
threads and asyncio tasks that are its own. At its end its sockets close, as a kernel does it, so that the
others see its last words and then its end; its threads and tasks are ended; and its parent is told.
"""

from __future__ import annotations

import asyncio
import signal
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Self

from ..net.memory import MemoryHub
from ..process import Process, current, enter
from ..store.arena import new_arena
from .threads import TurnParker, Turns, TurnThread
from .trace import Trace

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .clock import VirtualLoop

#: Wait status of a process that ended by itself, of one that gave up, and of one that was killed.
EXITED: Final = 0
FAILED: Final = 1 << 8
KILLED: Final = int(signal.SIGKILL)


class SimulatedProcess:
    """One process. Made by :meth:`SimulatedMachine.new_process`."""

    def __init__(self, machine: SimulatedMachine, pid: int, name: str, *, owns_tasks: bool) -> None:
        self.pid = pid
        self.name = name
        #: Whether the asyncio tasks made in it end with it.
        self.owns_tasks = owns_tasks
        #: What it knows of itself; its session is in there.
        self.process = Process()
        #: Where all its code runs.
        self.context = Context()
        self.context.run(enter, self.process)
        #: How it ended; None while it lives.
        self.status: int | None = None
        #: Called at its end at once, by whoever ends it.
        self.on_end: list[Callable[[], None]] = []
        #: Called on the loop when its end has been heard of, with its wait status; its parent's doing.
        self.on_reaped: Callable[[int], None] = lambda status: None
        self.threads: list[TurnThread] = []
        #: Its unfinished asyncio tasks, in the order in which they began.
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._machine = machine

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.status is None

    def start_thread(self, run: Callable[[], None]) -> TurnThread:
        """Run something that blocks."""
        thread = TurnThread(run, self.context.copy(), f"{self.name} ({self.pid})")
        self.threads.append(thread)
        self._machine.turns.start(thread)
        return thread

    def end(self, status: int) -> None:
        """End it here and now: nothing leaves it any more. From wherever the turn is; twice is as once.

        Code of it that is running goes on to the next place where it waits, and reaches nobody.
        """
        if self.status is not None:
            return
        self.status = status
        for thread in self.threads:
            thread.doomed = True
        for call in self.on_end:
            call()
        self._machine.hub.close_all(self.pid)
        self._machine.trace.note(self.pid, "dies" if status == KILLED else "ends")
        self._machine.loop.call_soon_threadsafe(self._bury, context=self.context)

    def _bury(self) -> None:
        try:
            for thread in list(self.threads):
                self._machine.turns.end(thread)
        finally:
            for task in list(self.tasks):
                task.cancel()
            session = self.process.session
            if session is not None:
                session.close()
            self._machine.later(self._reap)

    def _reap(self) -> None:
        self._machine.forget(self)
        self.on_reaped(self.status or 0)

    def __repr__(self) -> str:
        return f"<simulated process {self.pid} ({self.name}), {'alive' if self.alive else 'ended'}>"


class SimulatedMachine:
    """All processes of a simulation, and what they share.

    Args:
        loop: The loop that they live on.
        rng: Decides everything that is open.
        delay_s: Longest time that news takes, in seconds; how long it takes each time is drawn.
        store_bytes: How much memory its processes share.
    """

    def __init__(self, loop: VirtualLoop, rng: random.Random, delay_s: float, store_bytes: int) -> None:
        self.loop = loop
        #: The memory that its processes share.
        self.arena = new_arena(store_bytes)
        self.rng = rng
        self.trace = Trace(loop.time)
        self.hub = MemoryHub(loop, self._draw_delay)
        self.hub.tap = self.trace.tap
        self.turns = Turns(loop, rng, self._on_thread_end)
        self.parker = TurnParker()
        #: Those that live, and those whose end nobody has heard of yet, by pid.
        self.processes: dict[int, SimulatedProcess] = {}
        #: What went wrong where nobody could be told.
        self.crashes: list[BaseException] = []
        self._delay_s = delay_s
        self._next_pid = 1
        self._empty = asyncio.Event()
        self._previous = loop.get_task_factory(), loop.get_exception_handler()

    def __enter__(self) -> Self:
        self.loop.add_watcher(self.turns)
        self.loop.set_task_factory(self._new_task)
        self.loop.set_exception_handler(self._on_crash)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.loop.remove_watcher(self.turns)
        task_factory, exception_handler = self._previous
        self.loop.set_task_factory(task_factory)
        self.loop.set_exception_handler(exception_handler)

    def new_process(self, name: str, *, owns_tasks: bool = True) -> SimulatedProcess:
        """Start a process; what it does is up to who starts it.

        Args:
            name: What it is called.
            owns_tasks: Whether the asyncio tasks made in it end with it.
        """
        process = SimulatedProcess(self, self._next_pid, name, owns_tasks=owns_tasks)
        self._next_pid += 1
        self.processes[process.pid] = process
        self.trace.note(process.pid, f"starts as {name}")
        return process

    def forget(self, process: SimulatedProcess) -> None:
        """A process has ended, and its end has been heard of."""
        self.processes.pop(process.pid, None)
        if not self.processes:
            self._empty.set()

    async def end(self, patience_s: float) -> None:
        """End every process, and wait until nothing is left of any.

        Args:
            patience_s: Virtual seconds after which what is left counts as a crash.
        """
        processes = list(self.processes.values())
        for process in processes:
            process.end(EXITED if process.name == "driver" else KILLED)
        await self._empty.wait()
        tasks = [task for process in processes for task in process.tasks]
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=patience_s)
            self.crashes += [
                RuntimeError(f"a simulated process has ended, but not its {task}") for task in left
            ]

    def later(self, call: Callable[[], object]) -> None:
        """Run something after a drawn delay. On the loop."""
        self.loop.call_later(self._draw_delay(), call)

    def _draw_delay(self) -> float:
        return self.rng.uniform(0.0, self._delay_s) if self._delay_s else 0.0

    def _on_thread_end(self, thread: TurnThread) -> None:
        whose = next(process for process in self.processes.values() if thread in process.threads)
        whose.threads.remove(thread)
        if thread.failure is not None:
            self.crashes.append(thread.failure)
            whose.end(FAILED)

    def _new_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task, and remember whose it is."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        context: Context | None = options.get("context")
        whose = current() if context is None else context.run(current)
        owner = next((process for process in self.processes.values() if process.process is whose), None)
        if owner is not None and owner.owns_tasks:
            owner.tasks[task] = None
            task.add_done_callback(owner.tasks.pop)
        return task

    def _on_crash(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.crashes.append(error)
        loop.default_exception_handler(context)
