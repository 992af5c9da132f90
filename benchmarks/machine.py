"""The machine that a run was made on, in words."""

from __future__ import annotations

import os
import platform

from .procfs import PROC, read


def describe() -> dict[str, object]:
    """Model and number of usable cores, memory in GiB, kernel and the Python of this process."""
    return {
        "cpu": model(read(PROC / "cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def model(cpuinfo: str) -> str:
    """The name of the processor in the text of ``/proc/cpuinfo``, else the machine type."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.machine()
