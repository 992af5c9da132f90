"""Monte Carlo pi: darts from several processes until the estimate is good enough, with live progress.

Each task throws a batch of darts at a square and counts those inside the circle. There is no last batch:
`util.map` takes seeds from an endless iterator, keeps a few calls under way for each CPU, and gives the
counts as they come. When the error is small enough the block is left, which cancels the batches that nobody
needs any more.

Prints one live line on a terminal, and a line for each halving of the error elsewhere; then the estimate,
how far off it is, how many darts each process threw, and how many of them at a time.

    python examples/pi.py                # an argument is the error to reach (default 0.001)
"""

import itertools
import math
import os
import random
import sys
import time
from collections import Counter

import asyncray as ray
from asyncray import util

BATCH = 100_000


@ray.remote
def throw(seed: int) -> tuple[int, int, float]:
    """Return the process, the darts inside the circle, and the seconds that they took."""
    start, dart = time.perf_counter(), random.Random(seed).random
    hits = sum(dart() ** 2 + dart() ** 2 < 1 for _ in range(BATCH))
    return os.getpid(), hits, time.perf_counter() - start


def estimate(hits: int, darts: int) -> tuple[float, float]:
    """Return pi, and how far off that may be: in 95 cases of 100 it is less (1.96 standard deviations)."""
    share = hits / darts
    return 4 * share, 1.96 * 4 * math.sqrt(share * (1 - share) / darts)


class Progress:
    """One line that is written over on a terminal; elsewhere a line whenever the error has halved."""

    def __init__(self, goal: float) -> None:
        self.goal = goal
        self.told = math.inf
        self.start = time.perf_counter()

    def show(self, pi: float, error: float, darts: int) -> None:
        done, seconds = min(1.0, (self.goal / error) ** 2), time.perf_counter() - self.start
        line = (
            f"  [{'#' * int(24 * done):<24}] {done:4.0%}  pi = {pi:.5f} ± {error:.5f}  "
            f"{darts / 1e6:5.1f} M darts  {darts / 1e6 / seconds:4.1f} M/s"
        )
        if sys.stdout.isatty():
            print(f"\r{line}", end="\n" if done == 1 else "", flush=True)
        elif error <= self.told / 2 or done == 1:
            self.told = error
            print(line, flush=True)


def main(goal: float = 0.001) -> None:
    ray.init()
    progress, hits, thrown, busy_s = Progress(goal), 0, Counter[int](), 0.0
    with util.map(throw, itertools.count(), ordered=False) as batches:
        for pid, inside, seconds in batches:
            hits, busy_s = hits + inside, busy_s + seconds
            thrown[pid] += BATCH
            pi, error = estimate(hits, thrown.total())
            progress.show(pi, error, thrown.total())
            if error <= goal:
                break
    wall_s = time.perf_counter() - progress.start
    ray.shutdown()
    print(f"pi is {pi:.5f} ± {error:.5f}, and off by {abs(pi - math.pi):.5f}")
    print(f"{thrown.total()} darts from {len(thrown)} processes: {sorted(thrown.values(), reverse=True)}")
    print(f"{wall_s:.2f} s, {busy_s / wall_s:.1f} batches at a time")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
