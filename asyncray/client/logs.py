"""Shows what workers write, on a thread of its own: a slow terminal must not slow the session."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from typing import TYPE_CHECKING

from .waiting import Bell, ThreadParker

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

_log = logging.getLogger("asyncray")


class LogPrinter:
    """Prints lines of workers with their prefix.

    Args:
        shown: Told how many characters have been shown; the node sends no more than so much ahead.
    """

    def __init__(self, shown: Callable[[int], None]) -> None:
        self._shown = shown
        self._queue: queue.SimpleQueue[tuple[str, str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="asyncray-output", daemon=True)
        #: Opens when everything has been shown, or nobody waits for that any more.
        self._done = Bell()

    def start(self) -> None:
        """Start the thread: ahead of any output, because none can be started at the interpreter's exit."""
        self._thread.start()

    def print(self, stream: str, prefix: str, text: str) -> None:
        """Show some whole lines soon."""
        self._queue.put((stream, prefix, text))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            stream, prefix, text = item
            file = sys.stdout if stream == "stdout" else sys.stderr
            lines = "".join(f"{prefix} {line}\n" for line in text.split("\n"))
            try:
                if file is not None:
                    _write(file, lines)
            except (OSError, ValueError):
                # The driver's own output is closed: its workers' goes where its own would go.
                pass
            except Exception:  # noqa: BLE001 - anything may stand at sys.stdout; the next lines come all the same
                _log.exception("the output of workers cannot be shown on %r", file)
            self._shown(len(text))
        self._done.notify(None)

    def stop(self, *, patient: bool = True) -> None:
        """Show what is left, then end.

        Args:
            patient: Whether to wait for that: a terminal may be slow, or the reader of a pipe stuck.

        Raises:
            KeyboardInterrupt: when that wait is interrupted.
        """
        self._queue.put(None)
        if patient:
            ThreadParker().park(self._done.gate, None)

    def give_up(self) -> None:
        """Let nobody wait any more. From any thread."""
        self._done.notify(None)


def _write(file: TextIO, lines: str) -> None:
    try:
        file.write(lines)
    except UnicodeEncodeError:
        encoding = file.encoding or "ascii"
        file.write(lines.encode(encoding, "backslashreplace").decode(encoding))
    file.flush()
