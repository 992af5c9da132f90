"""Which objects take how much memory, and who keeps them: a table for people."""

from __future__ import annotations

from typing import Any, Final

from . import lifecycle

_HEAD: Final = ("object", "bytes", "where", "owner", "refs there", "held by", "made by")
_MIB: Final = 1 << 20


def memory_summary(*, stats_only: bool = False) -> str:
    """A table of the session's objects, the largest first, and how the store is used.

    For each object: its id, its size in bytes, where it is (in its owner's memory, in the store, on disk;
    pending, failed), the process that owns it, how many references that has, which other processes hold it,
    and the line that made it, where ``init(_system_config={"record_call_sites": 1})`` has asked for that.

    Args:
        stats_only: Whether to leave the table out.

    Raises:
        RuntimeError: when this would block a running event loop.
    """
    told: dict[str, Any] = lifecycle.session_or_init().questions.blocking(
        "objects", None, "`await asyncio.to_thread(asyncray.util.memory_summary)`"
    )
    pids: dict[bytes, int] = dict(told["pids"])
    lines = _totals(told)
    if not stats_only:
        found = [(row, pid) for pid, (_, *rows) in told["processes"] for row in rows]
        found.sort(key=lambda pair: pair[0][1], reverse=True)
        lines += ["", *_table([_HEAD, *(_cells(row, pid, pids) for row, pid in found)])]
        left_out = sum(count for _, (count, *_) in told["processes"]) - len(found)
        if left_out:
            lines.append(f"and {left_out} smaller ones")
    return "\n".join(lines)


def _totals(told: dict[str, Any]) -> list[str]:
    store = told["store"]
    count = sum(count for _, (count, *_) in told["processes"])
    sizes = {name: f"{store[name] / _MIB:.1f} MiB" for name in ("taken", "capacity", "grown", "largest_free")}
    used = f"store: {sizes['taken']} of {sizes['capacity']} taken, {sizes['grown']} of memory used"
    free = f"longest free piece {sizes['largest_free']}, fragmentation {store['fragmentation']:.0%}"
    return [f"{count} objects", f"{used}; {free}"]


def _cells(row: list[Any], pid: int, pids: dict[bytes, int]) -> tuple[str, ...]:
    object_id, size, place, refs, borrowers, line = row
    held_by = ", ".join(str(pids.get(process_id, "?")) for process_id in borrowers)
    shown = "?" if size < 0 else str(size)
    return object_id.hex(), shown, place, str(pid), str(refs), held_by or "-", line or "-"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
