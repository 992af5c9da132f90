"""A parameter server: an actor keeps the weights of a model, and others compute gradients on their own data.

Two ways, side by side. In step, the server waits for the gradients of all workers before it moves. Out of
step, every worker fetches the weights, computes and sends its gradient as quickly as it can: the slowest one
holds nobody up, and gradients of weights that are a little old do little harm. `async with` ends the actors.

    python examples/parameter_server.py      # an argument is the number of steps (default 150)
"""

import asyncio
import random
import sys
import time

import asyncray as ray
from asyncray import ActorHandle, aio

WORKERS, ROWS = 3, 200
TRUE = [2.0, -1.0, 0.5]
RATE = 0.1

Vector = list[float]


class Server:
    """Keeps the weights, and moves them."""

    def __init__(self) -> None:
        self.weights = [0.0] * len(TRUE)

    async def pull(self) -> Vector:
        return self.weights

    async def push(self, *gradients: Vector) -> Vector:
        """Move against the mean of the gradients; returns the weights then."""
        for place, parts in enumerate(zip(*gradients, strict=True)):
            self.weights[place] -= RATE * sum(parts) / len(parts)
        return self.weights


class Worker:
    """Has its own part of the data: rows of numbers, and what the true weights make of them."""

    def __init__(self, seed: int, delay_s: float) -> None:
        draw = random.Random(seed)
        self.delay_s = delay_s
        self.rows = [[draw.uniform(-1, 1) for _ in TRUE] for _ in range(ROWS)]
        self.goals = [dot(row, TRUE) + draw.gauss(0, 0.1) for row in self.rows]

    def gradient(self, weights: Vector) -> Vector:
        time.sleep(self.delay_s)  # a larger model would take longer, and on some machines more so
        errors = [dot(row, weights) - goal for row, goal in zip(self.rows, self.goals, strict=True)]
        return [2 * sum(map(float.__mul__, errors, column)) / ROWS for column in zip(*self.rows, strict=True)]


ServerActor, WorkerActor = ray.remote(Server), ray.remote(Worker)


def dot(one: Vector, other: Vector) -> float:
    return sum(map(float.__mul__, one, other))


async def in_step(server: ActorHandle[Server], workers: list[ActorHandle[Worker]], steps: int) -> None:
    weights = server.pull.remote()
    for _ in range(steps // WORKERS):
        # The weights and the gradients go from actor to actor: none of them passes through here.
        weights = server.push.remote(*[worker.gradient.remote(weights) for worker in workers])
    await weights


async def out_of_step(server: ActorHandle[Server], workers: list[ActorHandle[Worker]], steps: int) -> None:
    left = iter(range(steps))

    async def keep_busy(worker: ActorHandle[Worker]) -> None:
        for _ in left:
            await server.push.remote(worker.gradient.remote(server.pull.remote()))

    await asyncio.gather(*map(keep_busy, workers))


async def main(steps: int = 150) -> None:
    async with aio.session(num_cpus=WORKERS):
        for way in (in_step, out_of_step):
            async with ServerActor.remote() as server:
                workers = [WorkerActor.remote(seed, 0.005 * (1 + 3 * (seed == 0))) for seed in range(WORKERS)]
                await asyncio.gather(*[worker.__ray_ready__.remote() for worker in workers])
                start = time.perf_counter()
                await way(server, workers, steps)
                taken_s = time.perf_counter() - start
                weights = ", ".join(f"{weight:.1f}" for weight in await server.pull.remote())
                print(f"{way.__name__:12} {taken_s:5.2f} s for {steps} gradients: {weights}")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
