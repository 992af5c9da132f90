"""Ctrl-C raises in user code and at marked waits; in the middle of our own code it waits."""

from __future__ import annotations

import asyncio
import itertools
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray.client.interrupts as interrupts_module
from asyncray.client.interrupts import InterruptGuard, Interrupts, interruptible, may_interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = Path(interrupts_module.__file__).parent.parent
COUNT = itertools.count()
Threads = list[Callable[[], None]]


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """Begin with Python's own handler, and end with those that were there."""
    numbers = [signal.SIGINT, *range(signal.SIGRTMIN + 1, signal.SIGRTMAX)]
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def of_the_package() -> Callable[[Callable[[], Any]], Any]:
    """A function that looks as if it stood in the package, and calls what it is given."""
    names: dict[str, Any] = {}
    name = f"call_{next(COUNT)}"  # equal code would be marked together
    code = compile(f"def {name}(inner):\n    return inner()", str(PACKAGE / "made_up.py"), "exec")
    exec(code, names)
    function: Callable[[Callable[[], Any]], Any] = names[name]
    return function


def inside(*calls: Callable[[Callable[[], Any]], Any]) -> bool:
    """Whether an interrupt may be raised inside these calls, the last one innermost."""
    innermost: Callable[[], Any] = lambda: may_interrupt(sys._getframe(1))  # noqa: E731 - seen from its caller
    for call in reversed(calls):
        innermost = _bind(call, innermost)
    result: bool = innermost()
    return result


def _bind(call: Callable[[Callable[[], Any]], Any], inner: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: call(inner)


def user(inner: Callable[[], Any]) -> Any:
    return inner()


def on_another_thread(call: Callable[[], None]) -> None:
    """Call it there, and wait here to be interrupted.

    A lock would not do to wait at: a signal that comes just before is seen when the wait is over.
    """
    go, called = threading.Event(), threading.Event()
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    before = signal.set_wakeup_fd(waking.fileno())

    def run() -> None:
        go.wait()
        call()
        called.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        go.set()
        select.select([woken], [], [], 30)
    finally:
        called.wait()
        thread.join()
        signal.set_wakeup_fd(before)
        woken.close()
        waking.close()


# ---- where it may be raised ----


def test_user_code_may_be_interrupted() -> None:
    assert may_interrupt(sys._getframe())
    assert may_interrupt(None)


def test_our_code_may_not() -> None:
    ours = of_the_package()
    assert not may_interrupt(ours(_frame_of_caller))


def _frame_of_caller() -> FrameType:
    return sys._getframe(1)


def test_a_marked_function_of_ours_may() -> None:
    marked = interruptible(of_the_package())
    assert may_interrupt(marked(_frame_of_caller))


def test_marking_changes_nothing_else() -> None:
    function = of_the_package()
    assert interruptible(function) is function


def test_a_library_called_by_our_code_may_not() -> None:
    assert not inside(of_the_package(), user)
    assert inside(user, user)


def test_the_innermost_of_our_functions_decides() -> None:
    marked = interruptible(of_the_package())
    unmarked = of_the_package()
    assert inside(unmarked, marked)
    assert inside(unmarked, marked, user)
    assert not inside(marked, unmarked)
    assert not inside(marked, unmarked, user)


def test_a_folder_whose_name_begins_like_ours_is_not_ours() -> None:
    names: dict[str, Any] = {}
    exec(compile("def call(inner):\n    return inner()", f"{PACKAGE}_extras/x.py", "exec"), names)
    assert may_interrupt(names["call"](_frame_of_caller))


# ---- the handler ----


def interrupts(threads: Threads, wanted: Callable[[], bool] = lambda: True) -> Interrupts:
    """Interrupts whose threads run when the test lets them."""
    made = Interrupts(wanted, threads.append)
    made.install()
    return made


def guard(threads: Threads, wanted: Callable[[], bool] = lambda: True) -> InterruptGuard:
    made = InterruptGuard(Interrupts(wanted, threads.append))
    made.install()
    return made


def test_a_signal_in_user_code_raises() -> None:
    threads: Threads = []
    installed = guard(threads)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert threads == []
    installed.uninstall()


def test_a_signal_in_our_code_comes_back_later_and_then_raises_once() -> None:
    threads: Threads = []
    installed = guard(threads)
    of_the_package()(lambda: signal.raise_signal(signal.SIGINT))
    [insist] = threads
    with pytest.raises(KeyboardInterrupt):
        on_another_thread(insist)
    insist()  # nothing is due any more: it sends nothing, and ends
    installed.uninstall()


def test_one_that_is_put_off_is_sent_again_until_it_finds_a_place() -> None:
    threads: Threads = []
    looks = itertools.count(1)
    enough = threading.Event()

    def wanted() -> bool:
        if next(looks) == 5:
            enough.set()
        return True

    made = interrupts(threads, wanted)

    def stay_in_our_code() -> None:
        made.ask()
        threading.Thread(target=threads[0]).start()
        enough.wait(30)

    def wait_after_that() -> None:
        of_the_package()(stay_in_our_code)
        threading.Event().wait(30)

    with pytest.raises(KeyboardInterrupt):
        wait_after_that()
    assert enough.is_set()
    assert not made._due


def test_an_interrupt_that_another_thread_asks_for_is_raised_once() -> None:
    threads: Threads = []
    made = interrupts(threads)
    with pytest.raises(KeyboardInterrupt):
        on_another_thread(made.ask)
    threads[0]()
    assert not made._due


def test_one_that_is_not_meant_for_what_runs_is_dropped() -> None:
    threads: Threads = []
    installed = guard(threads, wanted=lambda: False)
    signal.raise_signal(signal.SIGINT)
    of_the_package()(lambda: signal.raise_signal(signal.SIGINT))
    assert threads == []
    installed.uninstall()


def test_one_that_was_put_off_is_dropped_when_what_it_was_meant_for_has_ended() -> None:
    threads: Threads = []
    meant = [True]
    made = interrupts(threads, wanted=lambda: bool(meant))
    of_the_package()(made.ask)
    meant.clear()
    threads[0]()
    assert not made._due


def test_where_no_thread_can_be_had_the_next_signal_looks_for_a_place() -> None:
    def start_thread(run: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    made = Interrupts(start_thread=start_thread)
    made.install()
    of_the_package()(made.ask)
    with pytest.raises(KeyboardInterrupt):
        on_another_thread(made._send)
    assert not made._due


def test_each_has_a_signal_of_its_own() -> None:
    one, other = interrupts([], wanted=lambda: False), interrupts([])
    with pytest.raises(KeyboardInterrupt):
        on_another_thread(other.ask)
    one.ask()
    assert one._signal != other._signal


# ---- taking and giving back ----


def test_uninstalling_gives_back_pythons_own_handler() -> None:
    installed = guard([])
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    installed.uninstall()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    installed.uninstall()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_user_is_left_alone() -> None:
    def own(signum: int, frame: FrameType | None) -> None:
        pass

    signal.signal(signal.SIGINT, own)
    installed = guard([])
    assert signal.getsignal(signal.SIGINT) is own
    installed.uninstall()
    assert signal.getsignal(signal.SIGINT) is own


def test_a_handler_that_the_user_set_later_is_left_alone() -> None:
    installed = guard([])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    installed.uninstall()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_takes_nothing_over() -> None:
    thread = threading.Thread(target=guard, args=([],))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- with a loop ----


def ctrl_c_before_each_callback(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have so many callbacks of loops interrupted after the loop has taken them, and before they run."""
    run = asyncio.Handle._run
    left = [0]

    def interrupted(handle: asyncio.Handle) -> None:
        if left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)
        run(handle)

    monkeypatch.setattr(asyncio.Handle, "_run", interrupted)
    return lambda count: left.__setitem__(0, count)


def test_ctrl_c_cancels_the_main_task_of_asyncio_and_loses_no_callback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    InterruptGuard(Interrupts()).install()
    strike = ctrl_c_before_each_callback(monkeypatch)
    seen = []

    async def main() -> None:
        strike(1)
        try:
            await asyncio.sleep(0)  # the callback that goes on with this is the one
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert seen == ["cleaned up"]


def test_a_second_ctrl_c_ends_a_coroutine_that_does_not_heed_the_first() -> None:
    InterruptGuard(Interrupts()).install()

    async def main() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("it was let go on")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
