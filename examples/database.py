"""The eight-item database: one slow lookup, asked for in four ways.

Looking up item i takes i/10 of a second, whoever asks. In order that adds up to 2.8 s. In parallel it takes
as long as the slowest item, 0.7 s. With `wait` the answers are used in pairs, as soon as two are there. A
follow-up task takes the ref of another and starts when that one is done; the program waits once, 1.3 s.

    python examples/database.py          # an argument, such as 0.5, is the seconds per position (default 0.1)
"""

import sys
import time

import asyncray as ray

DATABASE = ["every", "word", "here", "waits", "longer", "than", "the", "last"]

Item = tuple[int, str]


@ray.remote
def retrieve(position: int, database: list[str], unit_s: float) -> Item:
    time.sleep(position * unit_s)
    return position, database[position]


@ray.remote
def follow_up(found: Item, database: list[str], unit_s: float) -> str:
    time.sleep((found[0] + 1) * unit_s)
    return f"{found[1]}>{database[found[0] + 1]}"


def main(unit_s: float = 0.1) -> None:
    ray.init(num_cpus=len(DATABASE))  # sleeping takes no processor, so all eight may run at once
    database = ray.put(DATABASE)  # stored once, and passed to each task as a ref

    def in_order() -> list[str]:
        return [ray.get(retrieve.remote(i, database, unit_s))[1] for i in range(8)]

    def in_parallel() -> list[str]:
        return [word for _, word in ray.get([retrieve.remote(i, database, unit_s) for i in range(8)])]

    def in_pairs() -> list[str]:
        waiting, pairs = [retrieve.remote(i, database, unit_s) for i in range(8)], []
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=2)
            pairs.append("+".join(word for _, word in ray.get(ready)))
        return pairs

    def followed_up() -> list[str]:
        found = [retrieve.remote(i, database, unit_s) for i in range(0, 8, 2)]
        return ray.get([follow_up.remote(ref, database, unit_s) for ref in found])

    for way in (in_order, in_parallel, in_pairs, followed_up):
        start, words = time.perf_counter(), " ".join(way())
        print(f"{way.__name__:<11} {time.perf_counter() - start:4.1f} s   {words}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
