"""Pipelined sums: refs passed as arguments, so that a chain of tasks runs without coming back to the program.

Numbers are added in pairs, the sums of pairs in pairs, and so on. Given the refs of its two terms, each
`add` starts when both are there, and the program submits the whole pyramid before the first sum is known.
Fetching each level before the next is submitted makes the whole level wait for its slowest sum: 0.7 s
against 0.5 s for eight numbers.

    python examples/pipelined_sums.py    # an argument is how many numbers, a power of two (default 8)
"""

import sys
import time
from typing import Any

import asyncray as ray

SLOW_SUMS = {1 + 2, 5 + 6 + 7 + 8}  # one in the first level, one in the second; neither needs the other


@ray.remote
def add(a: int, b: int) -> int:
    time.sleep(0.3 if a + b in SLOW_SUMS else 0.1)
    return a + b


def pairs(terms: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(terms[::2], terms[1::2], strict=True))


def fetched(terms: list[Any]) -> int:
    while len(terms) > 1:
        terms = ray.get([add.remote(a, b) for a, b in pairs(terms)])
    return int(terms[0])


def pipelined(terms: list[Any]) -> int:
    while len(terms) > 1:
        terms = [add.remote(a, b) for a, b in pairs(terms)]
    return int(ray.get(terms[0]))


def main(count: int = 8) -> None:
    if count < 2 or count & (count - 1):
        raise SystemExit(f"the count must be a power of two, from 2 up, not {count}")
    ray.init(num_cpus=count // 2)
    ray.get([add.remote(0, 0) for _ in range(count // 2)])  # have the workers started before the clock is
    for way in (fetched, pipelined):
        start = time.perf_counter()
        total = way(list(range(1, count + 1)))
        print(f"{way.__name__:<9} {time.perf_counter() - start:4.2f} s   sum of 1..{count} = {total}")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
