"""A gateway with a deadline of 200 ms, which falls back to a quick answer.

A server is asked how many primes there are below a number. A slow model counts them, in a nested task; one
question in ten is too hard for it. `options(timeout=0.2)` covers all of that: queueing, running, and what the
model calls for. When it is over, the work is cancelled where it runs, and a quick model estimates. The trace
id of a request is a context variable that travels with calls (`aio.carry`): log lines of all processes have
it. `aio.TaskGroup` is left when nothing runs any more that was called for in it.

Prints what was logged about an easy and a hard request, by which process; the latencies; how many fell back;
and that each slow model that began has ended or was stopped, and how long after the answer.

    python examples/gateway.py           # an argument is the number of requests (default 100)
"""

import asyncio
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextvars import ContextVar
from pathlib import Path

from asyncray import aio, remote

DEADLINE_S, APART_S = 0.2, 0.02
EASY, HARD = 3_000, 10**9
trace_id = aio.carry(ContextVar("trace_id", default="-"))


class Log:
    """A file to which all processes write; a short line at the end of a file is never torn."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()

    def write(self, message: str) -> None:
        seconds = time.monotonic() - self.start  # the same clock in all processes
        with self.path.open("a") as file:
            file.write(f"{trace_id.get()} | {seconds:.3f} | {os.getpid()} | {message}\n")

    def about(self, trace: str) -> list[str]:
        return [line for line in self.path.read_text().splitlines() if line.startswith(f"{trace} |")]


@remote
def count(below: int, log: Log) -> int:
    how = "was interrupted"
    try:
        primes = sum(all(n % d for d in range(2, math.isqrt(n) + 1)) for n in range(2, below))
        how = "ended"
    finally:
        log.write(f"count {how}")
    return primes


@remote
async def slow_model(below: int, log: Log) -> str:
    log.write("slow model began")
    how = "was stopped"
    try:
        primes = await count.remote(below, log)
        how = "ended"
    finally:
        log.write(f"slow model {how}")
    return f"there are {primes}"


def quick_model(below: int) -> str:
    return f"there are about {below / (math.log(below) - 1):.0f}"


async def answer(number: int, below: int, log: Log) -> str:
    trace_id.set(f"request {number}")
    try:
        reply = await slow_model.options(timeout=DEADLINE_S).remote(below, log)
    except TimeoutError as error:
        log.write(f"fell back: {str(error).partition(': ')[2]}")
        reply = quick_model(below)
    log.write("answered")
    return reply


async def ask(port: int, number: int) -> tuple[float, str]:
    """Be a client: return the seconds to the answer, and the answer."""
    await asyncio.sleep(number * APART_S)
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{number} {HARD if number % 10 == 5 else EASY}\n".encode())
    reply = (await reader.readline()).decode().strip()
    writer.close()
    return time.perf_counter() - start, reply


async def serve(requests: int, log: Log) -> list[tuple[float, str]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, below = map(int, (await reader.readline()).split())
        writer.write(f"{await answer(number, below, log)}\n".encode())
        writer.close()

    async with aio.session(), aio.TaskGroup():
        await slow_model.remote(EASY, log)  # starts the processes
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        replies = await asyncio.gather(*[ask(port, number) for number in range(requests)])
        server.close()
    return replies


def main(requests: int = 100) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log")
        replies = asyncio.run(serve(requests, log))
        lines = [log.about(f"request {number}") for number in range(requests)]
    print(*[line for about in lines[4:6] for line in about], sep="\n")
    late, tally = [0.0], Counter[str]()
    for about in lines:
        seconds = {line.split(" | ")[3]: float(line.split(" | ")[1]) for line in about}
        tally.update(list(seconds))
        late.append(seconds.get("slow model was stopped", 0) - seconds["answered"])
    cuts = statistics.quantiles([1000 * seconds for seconds, _ in replies], n=100)
    print(f"latency      p50 {cuts[49]:.0f} ms, p90 {cuts[89]:.0f} ms, p99 {cuts[98]:.0f} ms")
    print(f"answers      {len(replies)}, of which {sum('about' in reply for _, reply in replies)} fell back")
    states = (f"{tally[f'slow model {how}']} {how}" for how in ("began", "ended", "was stopped"))
    print(f"slow models  {', '.join(states)}; {tally['count was interrupted']} counts were interrupted")
    print(f"the last one stopped {1000 * max(late):.0f} ms after its request was answered")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
