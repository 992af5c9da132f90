"""What a type checker sees: the right types, and an error where the code is wrong.

The programs in tests/typing are checked by mypy and never run. A line that is wrong ends in a comment,
`# expect: error[code]` or `# expect: error[code|code]`; every other line must be right.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from .source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*.py"))

_MARKER = re.compile(r"# expect: error\[([\w|-]+)\]")
_ERROR = re.compile(
    r"^(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*)  \[(?P<code>[\w-]+)\]$",
    re.MULTILINE,
)

#: What mypy says of a file: the codes and texts of its errors, by line.
Errors = dict[int, list[tuple[str, str]]]


def check(files: list[Path], *, cache: Path | None = None) -> dict[Path, Errors]:
    """Run mypy over some files with the project's own settings."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += [] if cache is None else ["--cache-dir", str(cache)]
    command += map(str, files)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found: dict[Path, Errors] = {file: defaultdict(list) for file in files}
    for match in _ERROR.finditer(done.stdout):
        errors = found.get(ROOT / match["file"])
        if errors is not None:
            errors[int(match["line"])].append((match["code"], match["text"]))
    return found


def complaints(file: Path, errors: Errors) -> list[str]:
    """Return one line for each place where mypy said something else than the file expects."""
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        marker = _MARKER.search(line)
        expected = marker[1].split("|") if marker else []
        told = errors.get(number, [])
        found += [f"{file.name}:{number}: {text}  [{code}]" for code, text in told if code not in expected]
        if expected and not told:
            found.append(f"{file.name}:{number}: mypy accepts {line.strip()!r}")
    return found


@pytest.mark.slow
def test_every_program_is_typed_as_it_says() -> None:
    found = [line for file, errors in check(PROGRAMS).items() for line in complaints(file, errors)]
    assert not found, "\n".join([f"{len(found)} found:", *found])


@pytest.mark.slow
def test_missing_wrong_and_surplus_errors_are_told_apart(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "right: int = 1\n"
        "expected: int = 'x'  # expect: error[assignment]\n"
        "one_of_two: int = 'x'  # expect: error[arg-type|assignment]\n"
        "another: int = 'x'  # expect: error[arg-type]\n"
        "surplus: int = 'x'\n"
        "missing: int = 1  # expect: error[assignment]\n"
    )
    (errors,) = check([program], cache=tmp_path / "cache").values()
    assert [line.partition(": ")[0] for line in complaints(program, errors)] == [
        "program.py:4",
        "program.py:5",
        "program.py:6",
    ]
