"""A stream of word counts from files, and a running top ten.

Two generator tasks read the standard library's sources and yield the counts of file after file. A remote
generator streams: each item is there as soon as it is yielded. A coroutine for each stream adds them up. They
begin with a break of half a second: a producer runs at most `max_unread` files ahead of its reader, and then
waits in its `yield`, so that a stream of any length takes constant memory. When enough is read they leave:
leaving the block of a stream stops its producer, and the group is left when no producer runs any more.

Prints the top ten after one file, two, four, eight, and so on; how many files were ahead after the break;
what was read; and how long the producers have waited for the readers.

    python examples/top_words.py         # an argument is the number of files to read (default 400)
"""

import asyncio
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from asyncray import ObjectRefGenerator, aio, remote

LIBRARY = Path(sysconfig.get_path("stdlib"))
PRODUCERS, AHEAD, BREAK_S = 2, 8, 0.5
WORD = re.compile("[a-z]{4,}")


class Counted(NamedTuple):
    """What a producer tells of a file."""

    words: Counter[str]
    at: float  # when it was counted, by the clock that all processes share
    waited_s: float  # how long the `yield` before took


@remote(max_unread=AHEAD)
def count_words(names: list[str]) -> Iterator[Counted]:
    waited_s = 0.0
    for name in names:
        text = (LIBRARY / name).read_text("utf-8", "replace").lower()
        counted = Counted(Counter(WORD.findall(text)), time.monotonic(), waited_s)
        yield counted
        waited_s = time.monotonic() - counted.at


class TopTen:
    """The counts so far. Its methods run on one event loop, so nothing needs a lock."""

    def __init__(self, enough: int) -> None:
        self.enough, self.files, self.waited_s = enough, 0, 0.0
        self.words: Counter[str] = Counter()
        self.break_over = 0.0
        self.ahead: Counter[int] = Counter()  # files counted during the break, by producer

    async def follow(self, producer: int, stream: ObjectRefGenerator[Counted]) -> None:
        async with stream:
            first = await anext(stream)
            await asyncio.sleep(BREAK_S)
            over = time.monotonic()
            self.add(await first)
            async for ref in stream:
                counted = await ref
                self.ahead[producer] += counted.at < over
                self.add(counted)
                if self.files >= self.enough:
                    break

    def add(self, counted: Counted) -> None:
        self.words.update(counted.words)
        self.files, self.waited_s = self.files + 1, self.waited_s + counted.waited_s
        if self.files & (self.files - 1) == 0:  # a power of two
            self.show()

    def show(self) -> None:
        top = "  ".join(f"{word} {count}" for word, count in self.words.most_common(10))
        print(f"{self.files:5} files  {top}", flush=True)


def sources() -> list[str]:
    paths = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    return sorted(str(path) for path in paths if "-packages" not in str(path))


async def main(enough: int = 400) -> None:
    names, top, start = sources(), TopTen(enough), time.perf_counter()
    async with aio.session(), aio.TaskGroup() as group:
        for producer in range(PRODUCERS):
            stream = count_words.remote(names[producer::PRODUCERS])
            group.create_task(top.follow(producer, stream))
    top.show()
    wall_s = time.perf_counter() - start
    print(f"ahead     {sorted(top.ahead.values())} files after a break of {BREAK_S} s; {AHEAD} were allowed")
    print(f"read      {top.files} of {len(names)} files, {top.words.total()} words; {wall_s:.2f} s")
    print(f"waited    {top.waited_s:.2f} s, all producers together, for their readers")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
