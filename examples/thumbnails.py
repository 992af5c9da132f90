"""Thumbnails of a folder of pictures, sharp and blurred, shown as they come.

A task reads a PNG, makes it small, blurs that, and writes both. `aio.map` with `ordered=False` gives results
as they come, small pictures before large ones that began earlier; with `return_exceptions=True` what could
not be read is a result like others. The standard library reads and writes PNG here, pixel by pixel, which
takes its time: Pillow would be quicker, and needs installing.

Prints a line for each picture when it is done (on a terminal the picture, too); then where the files are, and
how many pictures were worked on at a time.

    python examples/thumbnails.py        # an argument is the folder; without one, PNGs of this machine
"""

import asyncio
import os
import struct
import sys
import sysconfig
import tempfile
import time
import zlib
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from asyncray import aio, remote

SIDE, RADIUS, MOST = 64, 2, 12  # pixels, pixels, pictures
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by PNG's number: grey, colour, and both with transparency
Pixel = tuple[int, int, int]
Picture = list[list[Pixel]]  # rows of pixels


class Done(NamedTuple):
    """What became of a picture, and what it took."""

    name: str
    size: str
    preview: Picture
    pid: int
    seconds: float


def unfilter(data: bytes, row_size: int, step: int) -> list[bytearray]:
    """Undo what PNG does to compress better: a byte is a difference from those left of it and above."""
    rows, above = [], bytearray(row_size)
    for start in range(0, len(data), row_size + 1):
        kind, row = data[start], bytearray(step) + data[start + 1 : start + 1 + row_size]
        for i, up in enumerate(above if kind else b""):
            left, corner = row[i], above[i - step] if i >= step else 0
            if kind == 4:
                to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                near = up if to_up <= to_corner else corner
                guess = left if to_left <= to_up and to_left <= to_corner else near
            else:
                guess = (0, left, up, (left + up) // 2)[kind]
            row[i + step] = row[i + step] + guess & 255
        rows.append(above := row[step:])
    return rows


def over_white(pixel: bytearray) -> Pixel:
    alpha = pixel[-1] if len(pixel) in (2, 4) else 255
    colours = pixel[:3] if len(pixel) > 2 else pixel[:1] * 3
    r, g, b = (255 - (255 - value) * alpha // 255 for value in colours)
    return r, g, b


def read(path: Path) -> Picture:
    data, at, chunks = path.read_bytes(), 8, dict[bytes, bytes]()
    while data[1:4] == b"PNG" and at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + size]
        at += size + 12
    width, _, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks.get(b"IHDR", bytes(13)))
    if depth != 8 or colours not in CHANNELS or interlaced:
        raise ValueError(f"{path.name}: only PNG with 8 bits a channel, without palette and interlacing")
    step = CHANNELS[colours]
    rows = unfilter(zlib.decompress(chunks[b"IDAT"]), width * step, step)
    return [[over_white(row[i : i + step]) for i in range(0, len(row), step)] for row in rows]


def write(path: Path, picture: Picture) -> None:
    header = struct.pack(">IIBBBBB", len(picture[0]), len(picture), 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(value for pixel in row for value in pixel) for row in picture)
    chunks = b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    path.write_bytes(b"".join([b"\x89PNG\r\n\x1a\n", *framed]))


def mean(pixels: list[Pixel]) -> Pixel:
    r, g, b = (sum(values) // len(pixels) for values in zip(*pixels, strict=True))
    return r, g, b


def shrink(picture: Picture, side: int) -> Picture:
    """Make the longer side *side* pixels; each is the mean of those that it stands for."""
    step = max(1.0, max(len(picture), len(picture[0])) / side)
    down, across = (range(max(1, int(length / step))) for length in (len(picture), len(picture[0])))
    cuts = [slice(int(n * step), int((n + 1) * step)) for n in range(side)]
    return [[mean([p for row in picture[cuts[y]] for p in row[cuts[x]]]) for x in across] for y in down]


def blur(picture: Picture) -> Picture:
    """Make each pixel the mean of the square around it."""
    spans = [slice(max(0, n - RADIUS), n + RADIUS + 1) for n in range(SIDE)]
    across, down = range(len(picture[0])), range(len(picture))
    return [[mean([p for row in picture[spans[y]] for p in row[spans[x]]]) for x in across] for y in down]


@remote
def convert(job: tuple[Path, Path]) -> Done:
    (path, folder), start = job, time.perf_counter()
    picture = read(path)
    small = shrink(picture, SIDE)
    write(folder / f"{path.stem}.small.png", small)
    write(folder / f"{path.stem}.blurred.png", blur(small))
    size = f"{len(picture[0])} x {len(picture)}"
    return Done(path.name, size, shrink(small, 24), os.getpid(), time.perf_counter() - start)


def show(done: Done, seconds: float) -> None:
    took = f"by process {done.pid} in {done.seconds:.2f} s"
    print(f"{seconds:5.2f} s  {done.name:<36} {done.size:>11}  {took}", flush=True)
    if sys.stdout.isatty():  # a character is two pixels: its upper half in one colour, the lower in another
        for rows in zip(done.preview[::2], done.preview[1::2], strict=False):
            pairs = (";".join(map(str, (*upper, 48, 2, *lower))) for upper, lower in zip(*rows, strict=True))
            print(" " * 9 + "".join(f"\033[38;2;{pair}m▀" for pair in pairs) + "\033[0m")


def find() -> list[Path]:
    """Pictures that came with Python and the system, small and large."""
    library = Path(sysconfig.get_path("stdlib"))
    places = library / "idlelib", library / "test", Path("/usr/share/pixmaps"), Path("/usr/share/icons")
    found = (path for place in places for path in islice(place.rglob("*.png"), 500) if path.is_file())
    named = {path.name: path for path in found if "symbolic" not in path.name}
    by_size = sorted(named.values(), key=lambda path: path.stat().st_size)
    return by_size[:: -max(1, len(by_size) // MOST)]


async def convert_all(paths: list[Path], target: Path) -> None:
    start, busy_s, count = time.perf_counter(), 0.0, 0
    async with aio.session():
        jobs = [(path, target) for path in paths]
        async for result in aio.map(convert, jobs, ordered=False, return_exceptions=True):
            if isinstance(result, Done):
                busy_s, count = busy_s + result.seconds, count + 1
                show(result, time.perf_counter() - start)
            else:
                print(f"{time.perf_counter() - start:5.2f} s  {result.args[0]}")
    wall_s = time.perf_counter() - start
    print(f"{count} pictures in {target}; {wall_s:.2f} s, {busy_s / wall_s:.1f} at a time")


def main(*folders: str) -> None:
    paths = [path for folder in folders for path in sorted(Path(folder).glob("*.png"))] or find()
    if not paths:
        sys.exit("there is no PNG: name a folder with some")
    asyncio.run(convert_all(paths, Path(tempfile.mkdtemp(prefix="thumbnails-"))))


if __name__ == "__main__":
    main(*sys.argv[1:])
