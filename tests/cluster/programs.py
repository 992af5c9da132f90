"""Whole programs, in an interpreter of their own: for starts, ends and output."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path(__file__).parents[2]

#: Seconds after which a program that hangs is ended.
PATIENCE_S = 30


def start(
    folder: Path,
    source: str,
    *,
    environ: Mapping[str, str] | None = None,
    stdout: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a program.

    Args:
        folder: Where its file is written, and its current directory.
        source: Its lines; what all of them are indented by does not matter.
        environ: Variables on top of this process's.
        stdout: Where its output goes, as in `subprocess`.
    """
    path = folder / "program.py"
    path.write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait until a program ends, and return what it wrote on stdout and on stderr.

    Raises:
        AssertionError: when it fails.
    """
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the program hung; it had written:\n{out}\n{err}") from None
    assert process.returncode == 0, f"exit code {process.returncode}:\n{out}\n{err}"
    return out, err


def run(folder: Path, source: str, *, environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Run a program; returns what it wrote on stdout and on stderr.

    Raises:
        AssertionError: when it fails or hangs.
    """
    return end(start(folder, source, environ=environ))
