"""What do objects cost that are too small to matter?"""

from __future__ import annotations

from ..harness import Bench, row
from ..targets import TimesRay


@row("gets/s", target=TimesRay(20))
def get_small(bench: Bench) -> float:
    """How many times a second can a small object be got?"""
    ref, get = bench.runtime.put(0), bench.runtime.get
    return bench.rate(lambda: get(ref))


@row("puts/s", target=TimesRay(30))
def put_small(bench: Bench) -> float:
    """How many small objects a second can be put?"""
    put = bench.runtime.put
    return bench.rate(lambda: put(0))
