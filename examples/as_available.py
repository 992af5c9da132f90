"""Results handled as they become available, against results handled in the order of submission.

Each task takes its own time, and each result takes a while to handle. In order, the program stands idle
while the first task, the slowest, runs, and only then begins to handle what has long been there. As
available, it handles one result while the others are still being made. The results are the same.

    python examples/as_available.py      # an argument is the number of tasks (default 6)
"""

import sys
import time
from collections.abc import Iterable

import asyncray as ray

UNIT_S = 0.1


@ray.remote
def prepare(units: int) -> int:
    time.sleep(units * UNIT_S)
    return units


def handle(result: int) -> int:
    time.sleep(UNIT_S)
    return result


def in_order(times: Iterable[int]) -> list[int]:
    return [handle(ray.get(ref)) for ref in [prepare.remote(units) for units in times]]


def as_available(times: Iterable[int]) -> list[int]:
    waiting, handled = [prepare.remote(units) for units in times], []
    while waiting:
        ready, waiting = ray.wait(waiting)
        handled.append(handle(ray.get(ready[0])))
    return handled


def main(tasks: int = 6) -> None:
    ray.init(num_cpus=tasks)  # sleeping takes no processor
    ray.get([prepare.remote(0) for _ in range(tasks)])  # have the workers started before the clock is
    times = range(tasks, 0, -1)  # the slowest first
    took = {}
    for way in (in_order, as_available):
        start = time.perf_counter()
        handled = way(times)
        took[way] = time.perf_counter() - start
        print(f"{way.__name__:<12} {took[way]:4.2f} s   handled {handled}")
    print(f"as available saved {took[in_order] - took[as_available]:.2f} s")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
