"""Every piece of Python in the README and the guides runs as a script of its own, and prints what they say.

A block marked ```python is run; a block marked ```text right behind it is what it must print.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECONDS = 50
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Piece:
    """One block of a page."""

    page: str
    line: int
    source: str
    #: What it prints; None: the page does not say.
    printed: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pieces() -> list[Piece]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 2
            found.append(Piece(str(page.relative_to(ROOT)), line, block[1], block[2]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("piece", pieces(), ids=str)
def test_a_piece_of_the_documentation_runs_as_it_stands(piece: Piece, tmp_path: Path) -> None:
    script = tmp_path / "piece.py"
    script.write_text(piece.source)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    if piece.printed is not None:
        assert done.stdout == piece.printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing
