"""Fibonacci numbers in parallel against one after another: real work, spread over the processors.

Each task counts the way to its number the slow way, by recursion, so that the processors are busy and
nothing else is. With two free processors the parallel run takes about half of the sequential time; the
numbers are the same. The largest are submitted first, so that none of them is started last and runs on
alone.

    python examples/fibonacci.py         # an argument is the largest index (default 29)
"""

import os
import sys
import time

import asyncray as ray


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


fibonacci_task = ray.remote(fibonacci)


def sequential(indexes: list[int]) -> list[int]:
    return [fibonacci(n) for n in indexes]


def parallel(indexes: list[int]) -> list[int]:
    return ray.get([fibonacci_task.remote(n) for n in indexes])


def main(largest: int = 29) -> None:
    cpus = max(2, os.cpu_count() or 1)
    ray.init(num_cpus=cpus)
    ray.get([fibonacci_task.remote(0) for _ in range(cpus)])  # have the workers started before the clock is
    indexes = [n for n in range(largest, largest - 4, -1) for _ in range(2)]
    took, numbers = {}, {}
    for way in (sequential, parallel):
        start = time.perf_counter()
        numbers[way] = way(indexes)
        took[way] = time.perf_counter() - start
        print(f"{way.__name__:<10} {took[way]:5.2f} s   {numbers[way][::2]}")
    same, times = numbers[sequential] == numbers[parallel], took[sequential] / took[parallel]
    print(f"the same numbers: {same}; {times:.1f} times as fast on {cpus} CPUs")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
