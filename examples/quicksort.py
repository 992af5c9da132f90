"""Nested parallelism: tasks that submit tasks, and a quicksort that calls itself that way.

`outer` tasks each submit `inner` tasks and wait for them; a task that waits gives its CPU back, so this
finishes on any number of CPUs. The quicksort splits a list around a pivot and sorts the two sides as two
further tasks, until a part is small enough to be sorted at once.

    python examples/quicksort.py         # an argument is how many numbers are sorted (default 40000)
"""

import random
import sys
import time

import asyncray as ray

SMALL = 5_000


@ray.remote
def inner(x: int) -> int:
    return x * x


@ray.remote
def outer(start: int) -> int:
    return sum(ray.get([inner.remote(x) for x in range(start, start + 3)]))


def split(numbers: list[int]) -> tuple[list[int], list[int], list[int]]:
    pivot = numbers[len(numbers) // 2]
    less = [x for x in numbers if x < pivot]
    more = [x for x in numbers if x > pivot]
    return less, [pivot] * (len(numbers) - len(less) - len(more)), more


@ray.remote
def quicksort(numbers: list[int]) -> list[int]:
    if len(numbers) <= SMALL:
        return sorted(numbers)
    less, equal, more = split(numbers)
    left, right = ray.get([quicksort.remote(less), quicksort.remote(more)])
    return [*left, *equal, *right]


def main(count: int = 40_000) -> None:
    ray.init(num_cpus=2)
    print("sums of squares:", ray.get([outer.remote(start) for start in (0, 3, 6)]))
    numbers = [random.randrange(10 * count) for _ in range(count)]
    start = time.perf_counter()
    ordered = ray.get(quicksort.remote(numbers))
    took = time.perf_counter() - start
    print(f"quicksort of {count} numbers: {took:.2f} s, correct is {ordered == sorted(numbers)}")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
