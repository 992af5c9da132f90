"""Shows what workers write, on a thread of its own: a slow terminal must not slow the session."""

from __future__ import annotations

import queue
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class LogPrinter:
    """Prints lines of workers with their prefix.

    Args:
        shown: Told how many characters have been shown; the node sends no more than so much ahead.
    """

    def __init__(self, shown: Callable[[int], None]) -> None:
        self._shown = shown
        self._queue: queue.SimpleQueue[tuple[str, str, str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def print(self, stream: str, prefix: str, text: str) -> None:
        """Show some whole lines soon. On the loop only."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="asyncray-output", daemon=True)
            self._thread.start()
        self._queue.put((stream, prefix, text))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            stream, prefix, text = item
            file = sys.stdout if stream == "stdout" else sys.stderr
            lines = "".join(f"{prefix} {line}\n" for line in text.split("\n"))
            try:
                file.write(lines)
                file.flush()
            except (OSError, ValueError):
                # The driver's own output is closed: its workers' goes where its own would go.
                pass
            self._shown(len(text))

    def stop(self) -> None:
        """Show what is left, then end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
