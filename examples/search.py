"""A search for good hyper-parameters which stops bad ones early, by successive halving.

The models tell names of classes from names of functions in the standard library, such as `chainmap` and
`getstate`, by their letters: logistic regression in plain Python, with sixteen settings. Each is a generator
task, which trains, and yields its accuracy on names that it has not seen after each epoch. `max_unread=1`: it
then waits, without a CPU, until that is read. After 1, 2, 4 and 8 epochs the streams of the worse half are
closed, which stops their trainers; the best goes on to the end. Each trainer notes how far it really came.

Prints the accuracies of each round; the best setting; and how much was trained, against all settings to the
end.

    python examples/search.py            # an argument is the number of epochs (default 32)
"""

import asyncio
import itertools
import math
import random
import re
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import asyncray
from asyncray import ObjectRefGenerator, aio, remote

LIBRARY = Path(sysconfig.get_path("stdlib"))
SLOTS = 1 << 14
Names = list[tuple[str, int]]  # 1 for a class


class Settings(NamedTuple):
    """What is searched for."""

    rate: float
    letters: int  # in a row that a feature is made of, at most
    decay: float


class Epoch(NamedTuple):
    """What a trainer tells."""

    number: int
    accuracy: float
    seconds: float


def find_names(most: int = 3000) -> Names:
    """Names of classes and of functions, as many of the one as of the other, shuffled."""
    paths = (path for pattern in ("*.py", "[a-z]*/*.py") for path in sorted(LIBRARY.glob(pattern)))
    source = "\n".join(path.read_text("utf-8") for path in paths if path.parent.name != "test")
    found = [re.findall(rf"^ *{kind} (\w+)", source, re.MULTILINE) for kind in ("def", "class")]
    plain = [sorted({name.lower().replace("_", "") for name in names} - {""}) for names in found]
    order, each = random.Random(1), min(most, *map(len, plain))
    names = [(name, label) for label in (0, 1) for name in order.sample(plain[label], each)]
    order.shuffle(names)
    return names


class Model:
    """Logistic regression over the runs of letters in a name, hashed into slots."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.weights = settings, [0.0] * SLOTS

    def features(self, name: str) -> list[int]:
        word, sizes = f"^{name}$", range(1, self.settings.letters + 1)
        runs = (word[at : at + size] for size in sizes for at in range(len(word) - size + 1))
        return [zlib.crc32(run.encode()) % SLOTS for run in runs]

    def judge(self, features: list[int]) -> float:
        """Return the probability that it is a class."""
        total = sum(self.weights[feature] for feature in features)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))

    def learn(self, features: list[int], label: int) -> None:
        step, keep = self.settings.rate * (label - self.judge(features)), 1 - self.settings.decay
        for feature in features:
            self.weights[feature] = self.weights[feature] * keep + step


@remote(max_unread=1)
def train(settings: Settings, names: Names, epochs: int, notes: Path) -> Iterator[Epoch]:
    model, number = Model(settings), 0
    known = [(model.features(name), label) for name, label in names]
    cut = len(known) * 3 // 4
    try:
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            for features, label in known[:cut]:
                model.learn(features, label)
            right = sum((model.judge(features) > 0.5) == label for features, label in known[cut:])
            yield Epoch(number, right / (len(known) - cut), time.perf_counter() - start)
    finally:
        with notes.open("a") as file:
            file.write(f"{number}\n")


class Trial:
    """A trainer, and what is known of it."""

    def __init__(self, settings: Settings, stream: ObjectRefGenerator[Epoch]) -> None:
        self.settings, self.stream = settings, stream
        self.last, self.seconds = Epoch(0, 0.0, 0.0), 0.0

    async def go_on(self, number: int) -> None:
        """Read until the epoch of this number is over: the trainer goes on as it is read."""
        while self.last.number < number:
            self.last = await (await anext(self.stream))
            self.seconds += self.last.seconds


async def search(names: Names, epochs: int, notes: Path) -> list[Trial]:
    """Halve the trials until one is left, and give it what epochs there are; return all, the best first."""
    names_ref = asyncray.put(names)
    grid = map(Settings, *zip(*itertools.product((0.003, 0.03, 0.3, 3.0), (1, 4), (0.0, 0.01)), strict=True))
    async with aio.TaskGroup():  # left when no trainer runs any more
        trials = [Trial(each, train.remote(each, names_ref, epochs, notes)) for each in grid]
        survivors, number = trials, 1
        while len(survivors) > 1:
            await asyncio.gather(*[trial.go_on(number) for trial in survivors])
            survivors.sort(key=lambda trial: -trial.last.accuracy)
            scores = " ".join(f"{trial.last.accuracy:.2f}" for trial in survivors)
            print(f"after {number:2} epochs  {len(survivors):2} trials  {scores}", flush=True)
            survivors, worse = survivors[: len(survivors) // 2], survivors[len(survivors) // 2 :]
            for trial in worse:
                trial.stream.close()
            number = min(2 * number, epochs)
        await survivors[0].go_on(epochs)  # it then ends by itself
    return sorted(trials, key=lambda trial: (-trial.last.number, -trial.last.accuracy))


async def main(epochs: int = 32) -> None:
    names, start = find_names(), time.perf_counter()
    with tempfile.NamedTemporaryFile() as file:
        async with aio.session():
            trials = await search(names, epochs, Path(file.name))
        trained = [int(line) for line in file.read().splitlines()]
    wall_s, best = time.perf_counter() - start, trials[0]
    spent = sum(trial.seconds for trial in trials)
    every = sum(trial.seconds / trial.last.number for trial in trials) * epochs
    print(f"best     {best.settings}: {best.last.accuracy:.3f} after {best.last.number} epochs")
    print(f"trained  {sum(trained)} of {len(trials) * epochs} epochs; {len(trained)} trainers have stopped")
    print(f"took     {wall_s:.2f} s; {spent:.1f} s of training instead of some {every:.1f} s")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
