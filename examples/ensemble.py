"""An ensemble of slow models over pages from a web server: which package is a page about?

A web server of this program serves the documentation strings of the standard library, and takes 0.1 s for a
page. A coroutine task fetches one (all wait in one process) and hands it by reference to three models: by
words, by triples of letters, by how well it compresses beside known pages. They know half of the modules and
judge the others. The majority decides; where all differ, the words. Prints the pages about which they differ,
as they come, how often each is right, and what it took against one after another in this process.

    python examples/ensemble.py
"""

import ast
import asyncio
import html
import math
import re
import sysconfig
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import asyncray
from asyncray import aio, remote

LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "email", "http", "importlib", "json", "multiprocessing", "unittest", "xml")
LATENCY_S = 0.1
Known = dict[str, str]  # text by package


@cache
def page(module: str) -> str:
    """The documentation strings of a module, as HTML."""
    nodes = ast.walk(ast.parse((LIBRARY / module).read_bytes()))
    definitions = (node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    strings = filter(None, map(ast.get_docstring, definitions))
    return "<html>" + "".join(f"<p>{html.escape(string)}</p>\n" for string in strings) + "</html>"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request for a page: the web server."""
    request = await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(LATENCY_S)
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + page(request.split()[1].decode().lstrip("/")).encode())
    writer.close()


def text_of(body: str) -> str:
    return html.unescape(re.sub("<[^>]*>", " ", body)).lower()


async def fetch(port: int, module: str) -> str:
    """Get a page, and return its text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{module} HTTP/1.0\r\n\r\n".encode())
    body = (await reader.read()).decode().partition("\r\n\r\n")[2]
    writer.close()
    return text_of(body)


def by_words(text: str, known: Known) -> str:
    """Naive Bayes."""
    words = Counter(re.findall("[a-z]+", text))
    counts = {package: Counter(re.findall("[a-z]+", other)) for package, other in known.items()}
    vocabulary = len(set().union(*counts.values()))

    def likelihood(package: str) -> float:
        seen, total = counts[package], counts[package].total() + vocabulary
        return sum(n * math.log((seen[word] + 1) / total) for word, n in words.items())

    return max(known, key=likelihood)


def by_letters(text: str, known: Known) -> str:
    """The smallest angle between counts of triples of letters."""

    def triples(of: str) -> Counter[str]:
        return Counter(map("".join, zip(of, of[1:], of[2:], strict=False)))

    def cosine(package: str) -> float:
        mine, other = triples(text), triples(known[package])
        return sum(n * other[key] for key, n in mine.items()) / math.hypot(*other.values())

    return max(known, key=cosine)


def by_compression(text: str, known: Known) -> str:
    """The package beside whose text this one takes the fewest further bytes."""

    def growth(package: str) -> int:
        before = known[package][:8000].encode()
        return len(zlib.compress(before + text[:8000].encode(), 9)) - len(zlib.compress(before, 9))

    return min(known, key=growth)


MODELS = (by_words, by_letters, by_compression)
NAMES = (*(model.__name__ for model in MODELS), "majority")


def majority(votes: list[str]) -> str:
    return Counter(votes).most_common(1)[0][0]


def alone(port: int, modules: list[str], known: Known) -> float:
    """Do it for some pages, one thing after another; return the seconds for each."""
    start = time.perf_counter()
    for module in modules:
        text = asyncio.run(fetch(port, module))
        majority([model(text, known) for model in MODELS])
    return (time.perf_counter() - start) / len(modules)


async def together(port: int, modules: list[str], known: Known) -> AsyncIterator[tuple[str, list[str]]]:
    """Give each page and what the models say about it, as they have said it."""
    fetch_task, models, known_ref = remote(fetch), [remote(model) for model in MODELS], asyncray.put(known)

    async def judge(module: str) -> tuple[str, list[str]]:
        text = fetch_task.remote(port, module)  # goes to the models by reference, and not through here
        return module, await asyncio.gather(*[model.remote(text, known_ref) for model in models])

    for judged in asyncio.as_completed([judge(module) for module in modules]):
        yield await judged


def deal() -> tuple[Known, list[str]]:
    """Deal out the modules of each package: what the models know of it, and the modules to judge."""
    known, rest = {}, []
    for package in PACKAGES:
        names = sorted(str(path.relative_to(LIBRARY)) for path in (LIBRARY / package).rglob("*.py"))
        modules = [name for name in names if "/test/" not in name and len(page(name)) > 400]
        known[package] = "".join(text_of(page(module)) for module in modules[::2])
        rest += modules[1::2]
    return known, rest


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (known, modules), right, start = deal(), Counter[str](), time.perf_counter()
    async with aio.session():
        async for module, votes in together(port, modules, known):
            if len(set(votes)) > 1:
                said = " ".join(f"{vote:<15}" for vote in votes)
                print(f"{time.perf_counter() - start:5.2f} s  {module:<33} {said}", flush=True)
            for name, vote in zip(NAMES, [*votes, majority(votes)], strict=True):
                right[name] += vote == module.partition("/")[0]
        wall_s = time.perf_counter() - start
    alone_s = await asyncio.to_thread(alone, port, modules[::4], known) * len(modules)
    server.close()
    print(f"right about {len(modules)} pages: " + ", ".join(f"{name} {right[name]}" for name in NAMES))
    print(f"together           {wall_s:.2f} s, with the start of the processes")
    print(f"one after another  {alone_s:.2f} s by every fourth page, {alone_s / wall_s:.1f} times as long")


if __name__ == "__main__":
    asyncio.run(main())
