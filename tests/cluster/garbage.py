"""Garbage that does something when it is collected, at any line of the package's code."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncray
from asyncray.exceptions import RaySystemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

LIMIT_S = 20
PACKAGE = f"{Path(asyncray.__file__).parent}{os.sep}"


class Garbage:
    """Part of a cycle; does something when it is collected."""

    def __init__(self, last_words: Callable[[], Any]) -> None:
        self._last_words = last_words
        self._itself = self

    def __del__(self) -> None:
        self._last_words()


class Collector:
    """Has destructors run, and keeps what came of them."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self.refs: list[Any] = []
        self.errors: list[str] = []
        self.runs = 0

    def last_words(self) -> None:
        self.runs += 1
        try:
            self.refs.append(self._action())
        except (RuntimeError, RaySystemError) as error:
            self.errors.append(str(error))

    @contextmanager
    def at_every_line(self) -> Iterator[None]:
        """Collect garbage at each line of ours that this thread comes to, once."""
        seen: set[tuple[str, int]] = set()

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            place = (frame.f_code.co_filename, frame.f_lineno)
            if not place[0].startswith(PACKAGE):
                return trace
            if event == "line" and place not in seen:
                seen.add(place)
                Garbage(self.last_words)
                gc.collect(0)
            return trace

        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(None)

    @contextmanager
    def all_the_time(self) -> Iterator[None]:
        """Collect garbage as often as the interpreter can."""
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            yield
        finally:
            gc.set_threshold(*before)


def within_limit(call: Callable[[], None]) -> None:
    """Run on a thread of its own, so that a deadlock is a failure and not a hang."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "a destructor has locked its thread up"
    if failed:
        raise failed[0]
