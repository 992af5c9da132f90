"""How much memory there is, how much is in use, and who uses it: readings from the kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUP = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One reading."""

    used_bytes: int
    total_bytes: int

    def above(self, threshold: float) -> bool:
        """Whether more than this fraction is in use."""
        return self.used_bytes > threshold * self.total_bytes


def total_bytes() -> int:
    """The memory of the machine, or of its control group where that allows less."""
    machine = _meminfo()["MemTotal"]
    limit = _cgroup_number("memory.max")
    return machine if limit is None else min(machine, limit)


def machine_use() -> MemoryUse:
    """What is in use on the machine, or in its control group where that is tighter."""
    info = _meminfo()
    use = MemoryUse(info["MemTotal"] - info["MemAvailable"], info["MemTotal"])
    limit, current = _cgroup_number("memory.max"), _cgroup_number("memory.current")
    if limit is None or current is None:
        return use
    group = MemoryUse(current - _cgroup_cache(), limit)
    return max(use, group, key=lambda reading: reading.used_bytes / reading.total_bytes)


def resident_bytes(pid: int) -> int:
    """Memory that a process has to itself, in bytes; 0 when it is gone."""
    try:
        fields = _read(f"/proc/{pid}/statm").split()
    except OSError:
        return 0
    return max(0, int(fields[1]) - int(fields[2])) * _PAGE


def use_of(pids: Iterable[int] | None, limit_bytes: int) -> MemoryUse:
    """What some processes use, against a limit of their own; None: the whole machine, of all it has."""
    if pids is None:
        return machine_use()
    return MemoryUse(sum(map(resident_bytes, pids)), limit_bytes)


def _meminfo() -> dict[str, int]:
    lines = _read("/proc/meminfo").splitlines()
    rows = (line.replace(":", "").split() for line in lines)
    return {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3}


def _cgroup_number(name: str) -> int | None:
    try:
        text = _read(f"{_CGROUP}/{name}").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cgroup_cache() -> int:
    """File pages that the kernel would give up before it kills anyone."""
    try:
        lines = _read(f"{_CGROUP}/memory.stat").splitlines()
    except OSError:
        return 0
    stat = dict(line.split() for line in lines)
    return int(stat.get("inactive_file", 0))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
