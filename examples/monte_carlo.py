"""Monte Carlo with a progress actor: tasks report to an actor, and the program watches it.

Each task throws darts at a square and tells the actor how far it is; the actor's handle is passed to all of
them. The program asks the actor for the sum while the tasks run, and ends with the estimate of pi.

    python examples/monte_carlo.py           # an argument is the number of throws (default 400,000)
"""

import random
import sys
import time

import asyncray as ray
from asyncray import ActorHandle

TASKS, REPORTS = 4, 10


class Progress:
    """Knows how far every task is."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done: dict[int, int] = {}

    def report(self, task: int, throws: int) -> None:
        self.done[task] = throws

    def share(self) -> float:
        return sum(self.done.values()) / self.total


ProgressActor = ray.remote(Progress)  # as @ray.remote above the class, which mypy does not see through


@ray.remote
def throw(task: int, throws: int, progress: ActorHandle[Progress]) -> int:
    """Count the darts that hit the circle."""
    draw, hits = random.Random(task).random, 0
    for begun in range(0, throws, max(1, throws // REPORTS)):
        count = min(max(1, throws // REPORTS), throws - begun)
        hits += sum(draw() ** 2 + draw() ** 2 <= 1 for _ in range(count))
        progress.report.remote(task, begun + count)
    return hits


def main(throws: int = 400_000) -> None:
    ray.init(num_cpus=2)
    each = throws // TASKS
    progress = ProgressActor.remote(each * TASKS)
    refs = [throw.remote(task, each, progress) for task in range(TASKS)]
    while (share := ray.get(progress.share.remote())) < 1:
        print(f"{share:5.0%} thrown")
        time.sleep(0.05)
    print(f" 100% thrown; pi is about {4 * sum(ray.get(refs)) / (each * TASKS):.2f}")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
