"""The live bar of ``map(..., progress=True)``.

On a terminal a line that is drawn anew, in a notebook its widget, and in a log (where standard error is
neither) a whole line every half minute and one at the end. Drawn by tqdm, which comes with the extra
``asyncray[progress]``.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from typing import TextIO

#: Seconds between two lines in a log: a long run is seen to live, a short one says one line.
LOG_EVERY_S: Final = 30.0


class Bar(Protocol):
    """Shows how many are done."""

    def update(self, n: int = 1) -> object:
        """So many more are done."""

    def close(self) -> object:
        """Nothing more comes."""


class NoBar:
    """Shows nothing."""

    def update(self, n: int = 1) -> None:
        pass

    def close(self) -> None:
        pass


def check_progress(progress: object) -> None:
    """Raise unless *progress* can be had.

    Raises:
        ImportError: when it is True, and tqdm is not installed.
        TypeError: when it is neither True nor False.
    """
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, not {progress!r}")
    if progress:
        _tqdm()


def new_bar(name: str, total: int | None, *, progress: bool) -> Bar:
    """A bar for *total* results (None: nobody knows how many) of the function *name*."""
    if not progress:
        return NoBar()
    tqdm, stream = _tqdm(), sys.stderr
    common: dict[str, Any] = {"total": total, "desc": name, "miniters": 1, "unit": " calls"}
    if in_notebook() or stream.isatty():
        bar: Bar = tqdm(**common)
        return bar
    quiet: Bar = tqdm(**common, file=_Lines(stream), mininterval=LOG_EVERY_S, ascii=True, ncols=0)
    return quiet


def in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter, whose output cells show widgets."""
    shell = sys.modules.get("IPython")
    running = None if shell is None else shell.get_ipython()
    return running is not None and "IPKernelApp" in running.config


def _tqdm() -> Any:
    """The kind of bar that fits where this runs."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install 'asyncray[progress]'") from None

    class Quiet(tqdm):  # type: ignore[misc]
        """Without tqdm's thread and without its lock between processes, which nobody would end."""

        monitor_interval = 0
        _lock = _LOCK

    return Quiet


_LOCK: Final = threading.RLock()


class _Lines:
    """Makes whole lines of what is meant to be drawn over itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        #: What was written last; None before the first, which tells that nothing is done, and is left out.
        self._last: str | None = None

    def write(self, text: str) -> None:
        """Write what stands in the line, unless it stands there already."""
        line = text.strip("\r\n ")
        if not line or line == self._last:
            return
        if self._last is not None:
            self._stream.write(line + "\n")
        self._last = line

    def flush(self) -> None:
        """As of any stream."""
        self._stream.flush()
