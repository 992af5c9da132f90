"""A web session per user as light actors: a small server keeps a cart for each of thousands of users.

A session is an object with coroutines and a state of its own; `isolation="shared"` hosts it in a process with
thousands of others, where one that nobody calls costs a kilobyte and no task. The server is this process: it
knows the handles by their cookies, passes each request on to its session, and forgets who logs out; the
session then ends. All carts count what is sold in one more light actor.

The script is its own users: each logs in, puts things into the cart, looks at it, and every other logs out.

    python examples/web_sessions.py          # an argument is the number of users (default 2000)
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from asyncray import aio, remote

CONNECTIONS, THINGS = 20, ("tea", "cups", "spoons")


@remote(isolation="shared")
class Shop:
    """What all sessions know."""

    def __init__(self) -> None:
        self.ordered: dict[str, int] = {}

    async def order(self, thing: str) -> int:
        self.ordered[thing] = self.ordered.get(thing, 0) + 1
        return self.ordered[thing]

    async def all_orders(self) -> dict[str, int]:
        return self.ordered


@remote(isolation="shared")
class Session:
    """One user's."""

    def __init__(self, user: str, shop: Any) -> None:
        self.user, self.shop, self.cart = user, shop, list[str]()

    async def put(self, thing: str) -> dict[str, Any]:
        self.cart.append(thing)
        return {"user": self.user, "sold": await self.shop.order.remote(thing)}

    async def show(self, _: str) -> dict[str, Any]:
        return {"user": self.user, "cart": self.cart, "process": os.getpid()}


class Server:
    """Answers `METHOD /argument` with JSON; the cookie says whose it is."""

    def __init__(self, shop: Any) -> None:
        self.shop = shop
        self.sessions: dict[str, Any] = {}

    async def answer(self, verb: str, argument: str, cookie: str) -> dict[str, Any]:
        if verb == "LOGIN":
            self.sessions[cookie] = Session.remote(argument, self.shop)  # type: ignore[attr-defined]
            return {"welcome": argument}
        if verb == "LOGOUT":
            return {"goodbye": self.sessions.pop(cookie) is not None}
        session = self.sessions[cookie]
        method = session.put if verb == "PUT" else session.show
        return await method.remote(argument)  # type: ignore[no-any-return]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readline():
            verb, path, _ = request.decode().split()
            cookie = (await reader.readline()).decode().removeprefix("Cookie: ").strip()
            await reader.readline()  # the empty line
            body = json.dumps(await self.answer(verb, path[1:], cookie)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()
        await writer.wait_closed()


async def visit(port: int, users: range) -> list[dict[str, Any]]:
    """Be some users, one after the other, over one connection; returns the carts that they saw."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(user: int, verb: str, argument: str = "") -> dict[str, Any]:
        writer.write(f"{verb} /{argument} HTTP/1.1\r\nCookie: {user}\r\n\r\n".encode())
        header = await reader.readuntil(b"\r\n\r\n")
        answer = json.loads(await reader.readexactly(int(header.split(b":")[1])))
        return dict(answer)

    carts = []
    for user in users:
        await ask(user, "LOGIN", f"user-{user}")
        for thing in THINGS[: 1 + user % 3]:
            await ask(user, "PUT", thing)
        carts.append(await ask(user, "GET"))
        if user % 2:
            await ask(user, "LOGOUT")
    writer.close()
    await writer.wait_closed()
    return carts


async def main(count: int = 2000) -> None:
    async with aio.session(num_cpus=2):
        shop = Shop.remote()  # type: ignore[attr-defined]
        server = Server(shop)
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port, start = listener.sockets[0].getsockname()[1], time.perf_counter()
        each = -(-count // CONNECTIONS)
        users = [range(first, min(first + each, count)) for first in range(0, count, each)]
        seen = await asyncio.gather(*[visit(port, some) for some in users])
        carts = [cart for those in seen for cart in those]
        seconds = time.perf_counter() - start
        right = sum(cart["cart"] == list(THINGS[: len(cart["cart"])]) for cart in carts)
        print(f"{len(carts)} users saw their carts, {right} of them the right one, in {seconds:.1f} s")
        print(f"{len({cart['process'] for cart in carts})} processes hosted the sessions")
        print(f"{len(server.sessions)} sessions are still there; sold: {await shop.all_orders.remote()}")
        listener.close()
        await listener.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
