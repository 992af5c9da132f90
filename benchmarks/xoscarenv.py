"""The virtual environment with xoscar, where there is one: made by hand, in .venv-xoscar."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from .place import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: Where the rows find its interpreter.
VARIABLE = "BENCHMARKS_XOSCAR_PYTHON"
PYTHON = ROOT / ".venv-xoscar" / "bin" / "python"


def find(python: str | None, usual: Path = PYTHON) -> str:
    """Let the rows know the interpreter with xoscar; returns a remark when there is none, else nothing."""
    chosen = python or str(usual)
    ask = "from importlib.metadata import version; print(version('xoscar'))"
    try:
        subprocess.run([chosen, "-c", ask], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"no figures for xoscar: {chosen} has none; give --xoscar-python an interpreter that has"
    os.environ[VARIABLE] = chosen
    return ""
