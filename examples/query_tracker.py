"""The query tracker: the database of `database.py` again, with an actor that counts who asks for what.

The tracker's handle goes to every task as an argument, and each tells it what was looked up. It is the same
actor for all of them, wherever they run: its state changes one call after the other, in no lock's guard.

    python examples/query_tracker.py         # an argument is the number of look-ups (default 40)
"""

import random
import sys

import asyncray as ray
from asyncray import ActorHandle

DATABASE = ["every", "word", "here", "is", "asked", "for", "by", "somebody"]


class Tracker:
    """Counts the look-ups of each word."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def asked_for(self, word: str) -> None:
        self.counts[word] = self.counts.get(word, 0) + 1

    def favourites(self, most: int) -> list[tuple[str, int]]:
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ranked[:most]

    def total(self) -> int:
        return sum(self.counts.values())


TrackerActor = ray.remote(Tracker)  # as @ray.remote above the class, which mypy does not see through


@ray.remote
def look_up(position: int, database: list[str], tracker: ActorHandle[Tracker]) -> str:
    """Answer, and let the tracker know; nobody waits for that."""
    word = database[position]
    tracker.asked_for.remote(word)
    return word


def main(count: int = 40) -> None:
    ray.init(num_cpus=2)
    database, tracker = ray.put(DATABASE), TrackerActor.remote()
    draw = random.Random(count)
    positions = [min(draw.randrange(8), draw.randrange(8)) for _ in range(count)]
    words = ray.get([look_up.remote(position, database, tracker) for position in positions])
    # What a task has called for may still be under way when the task has ended.
    while (total := ray.get(tracker.total.remote())) < count:
        pass
    print(f"{total} look-ups of {len(set(words))} words")
    for word, times in ray.get(tracker.favourites.remote(3)):
        print(f"{word:10} {times}")
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
