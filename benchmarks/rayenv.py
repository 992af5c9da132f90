"""The virtual environment that Ray gets for itself, made when it is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from .place import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RAY_VERSION = "2.60.0"
DIRECTORY = ROOT / ".venv-ray"
INSTALL_LIMIT_S = 600.0


class RayMissingError(Exception):
    """Ray cannot be had here; the message says why."""


def ensure(progress: Callable[[str], None], directory: Path = DIRECTORY) -> str:
    """The interpreter of an environment with the Ray that is compared with; makes the environment if need be.

    Raises:
        RayMissingError: when the environment cannot be made.
    """
    python = directory / "bin" / "python"
    if installed(python) == RAY_VERSION:
        return str(python)
    progress(f"installing ray {RAY_VERSION} in {directory} (once; about 80 MB to fetch)")
    run(sys.executable, "-m", "venv", "--clear", str(directory))
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"ray=={RAY_VERSION}")
    if (found := installed(python)) != RAY_VERSION:
        raise RayMissingError(f"{directory} has Ray {found or 'not at all'} after installing {RAY_VERSION}")
    return str(python)


def installed(python: Path) -> str:
    """The version of Ray that ``python`` has, without importing it; empty when it has none."""
    if not python.exists():
        return ""
    ask = "from importlib.metadata import version; print(version('ray'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def run(*command: str) -> None:
    """Run ``command`` to its end. Raises: RayMissingError: when it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise RayMissingError(f"{' '.join(command)} took more than {INSTALL_LIMIT_S:g} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        # pip may add advice below its errors.
        cause = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise RayMissingError(f"{' '.join(command)} failed with exit code {done.returncode}: {cause}")
