"""The demo: word counts and other statistics over the sources of Python's standard library, in parallel.

Each task reads and parses a batch of files and returns two values: a small one, fetched at once to show
progress, and the statistics, passed on as refs to `merge` tasks, which add them up eight at a time. Every
fourth batch is run again in this process, to tell what was saved. Other sources, and each batch again:
python examples/demo.py FOLDER --whole
"""

import ast
import os
import re
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import asyncray as ray
from asyncray.util import as_completed

LIBRARY = Path(next((word for word in sys.argv[1:] if word != "--whole"), sysconfig.get_path("stdlib")))
BATCHES, AT_ONCE = 48, 8
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


class Effort(NamedTuple):
    """What a task took: the process that ran it, its seconds, and the bytes it read."""

    pid: int
    seconds: float
    bytes_read: int


class Statistics:
    """What is known of some files; a file's name is its path below the library's folder."""

    def __init__(self) -> None:
        self.lines = self.unparsed = 0
        self.longest = (0, "")  # characters, and file:line
        self.words: Counter[str] = Counter()
        self.names: Counter[str] = Counter()  # the identifiers
        self.functions: Counter[str] = Counter()  # functions by file, zeros too

    def read(self, name: str) -> int:
        """Count one file, and return its size in bytes."""
        source = (LIBRARY / name).read_bytes()
        lines = source.decode("utf-8", "replace").splitlines()
        self.lines += len(lines)
        self.longest = max([self.longest, *((len(x), f"{name}:{n}") for n, x in enumerate(lines, 1))])
        self.words.update(WORD.findall("\n".join(lines).lower()))
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError):  # the library's tests hold broken files on purpose
            self.unparsed, nodes = self.unparsed + 1, []
        self.names.update(node.id for node in nodes if isinstance(node, ast.Name))
        self.functions[name] = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
        return len(source)

    def add(self, other: "Statistics") -> None:
        """Count in what *other* has counted in further files."""
        self.lines, self.unparsed = self.lines + other.lines, self.unparsed + other.unparsed
        self.longest = max(self.longest, other.longest)
        self.words.update(other.words)
        self.names.update(other.names)
        self.functions.update(other.functions)


def measure(names: list[str]) -> tuple[Effort, Statistics]:
    """Read and parse some files: the work of one task, or of the whole program when it runs alone."""
    start, found = time.perf_counter(), Statistics()
    with warnings.catch_warnings(action="ignore"):
        bytes_read = sum(map(found.read, names))
    return Effort(os.getpid(), time.perf_counter() - start, bytes_read), found


def merge(*parts: Statistics) -> tuple[Effort, Statistics]:
    """Add up the statistics of several tasks."""
    start, total = time.perf_counter(), Statistics()
    for part in parts:
        total.add(part)
    return Effort(os.getpid(), time.perf_counter() - start, 0), total


def deal_batches() -> list[list[str]]:
    """Deal the library's files into batches, the largest files first."""
    files = [path for path in LIBRARY.rglob("*.py") if path.is_file() and "-packages/" not in str(path)]
    names = [str(path.relative_to(LIBRARY)) for path in sorted(files, key=lambda path: -path.stat().st_size)]
    return [batch for number in range(BATCHES) if (batch := names[number::BATCHES])]


def submit(batches: list[list[str]]) -> tuple[list[Any], Any]:
    """Submit all tasks at once; returns refs to the effort of each and to the statistics of all."""
    two: Any = ray.remote(num_returns=2)  # Any: a call returns two refs, which no type can tell
    measure_task, merge_task = two(measure), two(merge)
    submitted = level = [measure_task.remote(batch) for batch in batches]
    while len(level) > 1:
        parts = [statistics for _, statistics in level]
        level = [merge_task.remote(*parts[at : at + AT_ONCE]) for at in range(0, len(parts), AT_ONCE)]
        submitted = submitted + level
    return [effort for effort, _ in submitted], level[0][1]


def show_progress(done: list[Effort], tasks: int, seconds: float) -> None:
    """Update one line on a terminal; print a line now and then elsewhere."""
    bar, megabytes = "#" * (24 * len(done) // tasks), sum(effort.bytes_read for effort in done) / 1e6
    line = f"  [{bar:<24}] {len(done)}/{tasks} tasks  {megabytes:4.1f} MB  {seconds:4.1f} s"
    if sys.stdout.isatty():
        print(f"\r{line}", end="\n" if len(done) == tasks else "", flush=True)
    elif len(done) % 11 == 0:
        print(line, flush=True)


def top(counts: Counter[str], shown: int) -> str:
    """Name the most frequent keys, and how frequent they are."""
    return ", ".join(f"{key} {count}" for key, count in counts.most_common(shown))


def main(compare_every: int = 4) -> None:
    """Run the tasks, then every *compare_every*-th batch without them; print what was found and saved."""
    batches, efforts, start = deal_batches(), [], time.perf_counter()
    if not batches:
        sys.exit(f"There are no Python files in {LIBRARY}.")
    ray.init()
    started_s, (refs, total_ref) = time.perf_counter() - start, submit(batches)
    for effort in as_completed(refs, chunk_size=1):
        efforts.append(effort)
        show_progress(efforts, len(refs), time.perf_counter() - start)
    total = ray.get(total_ref)
    wall_s = time.perf_counter() - start
    ray.shutdown()
    alone, sample = measure([name for batch in batches[::compare_every] for name in batch])
    read = sum(effort.bytes_read for effort in efforts)
    alone_s = alone.seconds * read / alone.bytes_read
    same = sample.functions.items() <= total.functions.items()
    print(f"""
  files              {len(total.functions)}, of which {total.unparsed} do not parse
  lines              {total.lines}, the longest at {total.longest[1]}: {total.longest[0]} characters
  words              {total.words.total()}, {len(total.words)} distinct: {top(total.words, 5)}
  identifiers        {total.names.total()}, {len(total.names)} distinct: {top(total.names, 4)}
  functions          {total.functions.total()}, the most in {top(total.functions, 2)}

  ran in parallel    {len(efforts)} tasks on {len({e.pid for e in efforts})} workers; {read / 1e6:.1f} MB read
  took               {wall_s:.2f} s, of which {started_s:.2f} s to start
  task seconds       {sum(effort.seconds for effort in efforts):.2f} s, the times of all tasks added up
  one after another  {alone_s:.2f} s, judged by {alone.bytes_read / read:.0%} of bytes; same counts: {same}
  saved              {alone_s - wall_s:.2f} s: {alone_s / wall_s:.1f} times as fast""")


if __name__ == "__main__":
    main(1 if "--whole" in sys.argv[1:] else 4)
