"""What ``/proc`` tells about a tree of processes: who is in it, and its memory."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Size of a tree of processes: how many, and their proportional set size together in bytes."""

    processes: int
    pss: int


def parents() -> dict[int, int]:
    """The parent of each process that can be seen, by process id."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (stat := read(entry / "stat")):
            # The name, in parentheses, may hold anything, also spaces and parentheses.
            found[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def tree(root: int) -> list[int]:
    """``root`` and all its descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, parent in parents().items():
        children[parent].append(pid)
    members = [root]
    for pid in members:
        members.extend(children[pid])
    return members


def pss(pid: int) -> int:
    """Proportional set size of a process in bytes; 0 when it is gone."""
    for line in read(PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def footprint(root: int) -> Footprint:
    """The footprint of the tree under ``root``, now. Processes that have ended are not counted."""
    sizes = [size for pid in tree(root) if (size := pss(pid))]
    return Footprint(len(sizes), sum(sizes))


def settled_footprint(root: int, *, quiet_s: float = 0.5, limit_s: float = 6.0) -> Footprint:
    """The footprint once it has changed by less than 1 % for ``quiet_s``; the last one after ``limit_s``.

    A tree of processes has no event for "done with warming up", hence the looking again.
    """
    now = time.perf_counter()
    last, since, deadline = footprint(root), now, now + limit_s
    while now < deadline and now - since < quiet_s:
        time.sleep(0.1)
        now = time.perf_counter()
        seen = footprint(root)
        if seen.processes != last.processes or abs(seen.pss - last.pss) > last.pss / 100:
            last, since = seen, now
    return last


def read(path: Path) -> str:
    """The text of a file under ``/proc``; empty when its process has ended or is not ours to look at."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
