"""Which GPUs the machine has, by what it tells without a vendor's library."""

from __future__ import annotations

import os
import re

_DEVICE = re.compile(r"nvidia(\d+)")


def visible_gpus(environ: dict[str, str] | None = None, devices: str = "/dev") -> list[str]:
    """The GPUs that this process may use, in order, as CUDA_VISIBLE_DEVICES would name them.

    That variable narrows what the machine has: to indices, or to UUIDs, which only the driver could check.
    """
    visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    found = sorted(int(device[1]) for device in map(_DEVICE.fullmatch, os.listdir(devices)) if device)
    if visible is None or not found:
        return list(map(str, found))
    entries = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if all(entry.isdigit() for entry in entries):
        return [entry for entry in entries if int(entry) in found]
    return entries
