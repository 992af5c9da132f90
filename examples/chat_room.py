"""A chat room: an async actor that people join, talk in and leave, each from a process of their own.

The room is one actor; its coroutines share its state without locks, because only one runs at a time. Who
listens awaits the next line, and hundreds of such waits cost the room nothing. The people are actors, too;
they find the room by its name.

    python examples/chat_room.py             # an argument is the number of people (default 3)
"""

import asyncio
import sys

from asyncray import aio, remote


@remote
class Room:
    """Passes every line on to all who are in."""

    def __init__(self, people: int) -> None:
        self.people = people
        self.inboxes: dict[str, asyncio.Queue[str]] = {}

    async def join(self, name: str) -> None:
        self.inboxes[name] = asyncio.Queue()
        if len(self.inboxes) == self.people:
            await self.say("room", "everybody is here")

    async def say(self, name: str, line: str) -> None:
        for inbox in self.inboxes.values():
            inbox.put_nowait(f"{name}: {line}")

    async def next_line(self, name: str) -> str:
        return await self.inboxes[name].get()


@remote
class Person:
    """Says hello when everybody is there, and tells how many hellos were heard."""

    async def visit(self, name: str, people: int) -> int:
        room = await aio.get_actor("room")
        await room.join.remote(name)
        assert await room.next_line.remote(name) == "room: everybody is here"
        await room.say.remote(name, "hello")
        heard = {await room.next_line.remote(name) for _ in range(people)}
        return len(heard)


async def main(count: int = 3) -> None:
    async with aio.session(num_cpus=2):
        room = await Room.options(name="room").remote_async(count)  # type: ignore[attr-defined]
        people = {f"person {number}": Person.remote() for number in range(count)}  # type: ignore[attr-defined]
        visits = {name: person.visit.remote(name, count) for name, person in people.items()}
        for name, visit in visits.items():
            print(f"{name} heard {await visit} hellos in {room!r:.16})")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
