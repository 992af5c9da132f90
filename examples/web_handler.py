"""A web handler that awaits tasks: the loop goes on serving while other processes compute.

`/primes/N` counts primes in a task; after two seconds it cancels the task and answers 504. The example asks
its own application, without a server: one count that is far too large and four others, all at once.

    python examples/web_handler.py       # needs starlette and httpx; an argument is N (default 60000)
    uvicorn --app-dir examples web_handler:app
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncray import aio, remote


@remote
def count_primes(below: int) -> int:
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


async def primes(request: Request) -> JSONResponse:
    ref = count_primes.remote(request.path_params["below"])
    try:
        async with asyncio.timeout(2):
            return JSONResponse({"primes": await ref})
    except TimeoutError:
        await aio.cancel(ref)
        return JSONResponse({"error": "took too long"}, status_code=504)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with aio.session(num_cpus=2):
        yield


app = Starlette(routes=[Route("/primes/{below:int}", primes)], lifespan=lifespan)


async def main(below: int = 60_000) -> None:
    client = AsyncClient(transport=ASGITransport(app=app), base_url="http://app")
    async with app.router.lifespan_context(app), client:
        start = time.perf_counter()
        requests = [client.get(f"/primes/{n}") for n in (10**9, below, below, below, below)]
        for answer in asyncio.as_completed(requests):
            reply = await answer
            print(f"{time.perf_counter() - start:4.2f} s   {reply.status_code} {reply.text}")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
