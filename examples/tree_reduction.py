"""Tree reduction: a hundred arrays, made by tasks, are added two by two by tasks; the program holds refs.

Added one after another, each sum needs the one before: 99 steps in a row. In a tree, the sums of each of its
7 levels run side by side. The arrays are NumPy's where that is installed, and `array.array` elsewhere.

    python examples/tree_reduction.py    # an argument is the length of each array (default 10000)
"""

import importlib.util
import sys
import time
from array import array
from typing import Any

import asyncray as ray

ARRAYS = 100
WITH_NUMPY = importlib.util.find_spec("numpy") is not None


@ray.remote
def make(value: int, length: int) -> Any:
    if WITH_NUMPY:
        import numpy as np

        return np.full(length, value)
    return array("q", [value]) * length


@ray.remote
def add(a: Any, b: Any) -> Any:
    return a + b if WITH_NUMPY else array("q", map(int.__add__, a, b))


def one_after_another(terms: list[Any]) -> Any:
    while len(terms) > 1:
        terms = [add.remote(terms[0], terms[1]), *terms[2:]]
    return ray.get(terms[0])


def in_a_tree(terms: list[Any]) -> Any:
    while len(terms) > 1:
        terms = [*terms[2:], add.remote(terms[0], terms[1])]
    return ray.get(terms[0])


def main(length: int = 10_000) -> None:
    ray.init(num_cpus=2)
    terms = [make.remote(value, length) for value in range(ARRAYS)]
    ray.wait(terms, num_returns=len(terms))
    for way in (one_after_another, in_a_tree):
        start = time.perf_counter()
        total = way(terms)
        title, took_s = way.__name__, time.perf_counter() - start
        print(f"{title:<17} {took_s:5.2f} s   {len(total)} sums, all {set(total.tolist())}")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
