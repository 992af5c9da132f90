"""Only the seams touch the world, no module keeps a client, and the checks that say so find what does."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from . import seams
from .source import ROOT, Package, assert_none, write_tree

if TYPE_CHECKING:
    from pathlib import Path


def breaches_of(tmp_path: Path, text: str, *, room: str = "client/owner") -> list[str]:
    package = Package(write_tree(tmp_path, {f"asyncray/{room}.py": text}) / "asyncray")
    return [line.partition("world: ")[2] for line in seams.breaches(package)]


def test_only_the_seams_touch_the_world() -> None:
    assert_none(seams.breaches(Package(ROOT / "asyncray")))


def test_each_seam_is_still_one() -> None:
    assert_none(seams.idle_rooms(Package(ROOT / "asyncray")))


def test_no_module_keeps_a_client(ray_session: ModuleType) -> None:
    from asyncray.process import current

    double = ray_session.remote(lambda x: 2 * x)
    assert ray_session.get(double.remote(21)) == 42
    session = current().session
    assert session is not None
    ours = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "asyncray"]
    assert_none(seams.holders(ours, seams.parts_of(session)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time\ntime.monotonic()", "time.monotonic (clock)"),
        ("import time as t\ndef f():\n    return t.time()", "time.time (clock)"),
        ("from time import perf_counter as now", "time.perf_counter (clock)"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now (clock)"),
        ("import datetime\ndatetime.datetime.now()", "datetime.datetime.now (clock)"),
        ("import random\nrandom.random()", "random.random (randomness)"),
        ("import random\nrandom.Random()", "random.Random() without a seed (randomness)"),
        ("import os\nos.urandom(8)", "os.urandom (randomness)"),
        ("import secrets\nsecrets.token_hex()", "secrets.token_hex (randomness)"),
        ("from uuid import uuid4", "uuid.uuid4 (randomness)"),
        ("import socket\nsocket.socketpair()", "socket.socketpair (sockets)"),
        ("import asyncio\nasyncio.open_connection('', 1)", "asyncio.open_connection (sockets)"),
        ("def f(self):\n    self.loop.create_server(f)", "loop.create_server (sockets)"),
        ("import subprocess\nsubprocess.Popen([])", "subprocess.Popen (processes)"),
        ("import os\nos.fork()", "os.fork (processes)"),
        ("import os\nos.killpg(1, 9)", "os.killpg (processes)"),
        ("import os\nos.execv('', [])", "os.execv (processes)"),
        ("import multiprocessing as mp\nmp.Process()", "multiprocessing.Process (processes)"),
        ("import multiprocessing.pool\nmultiprocessing.pool.Pool()", "multiprocessing.pool.Pool (processes)"),
        ("from os import system, getcwd", "os.system (processes)"),
    ],
)
def test_each_way_to_touch_the_world_is_found(tmp_path: Path, text: str, found: str) -> None:
    assert set(breaches_of(tmp_path, text)) >= {found}


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.getpid()",
        "import random\nrandom.Random(7).random()",
        "from random import Random\nRandom(7)",
        "def f(loop):\n    return loop.time()",
        "def f(time):\n    return time.monotonic()",
        "from . import time\ntime.monotonic()",
        "import typing\nif typing.TYPE_CHECKING:\n    import socket\ndef f(s: 'socket.socket'): ...",
        "from datetime import timedelta\ntimedelta(seconds=1)",
        "import socket\ndef f(s: socket.socket) -> socket.socket:\n    t: socket.socket = s",
    ],
)
def test_what_touches_nothing_is_not_found(tmp_path: Path, text: str) -> None:
    assert breaches_of(tmp_path, text) == []


def test_an_allowed_room_may_touch_the_world(tmp_path: Path) -> None:
    text = "import socket\nsocket.socketpair()"
    assert breaches_of(tmp_path, text, room="net/stream") == []
    assert breaches_of(tmp_path, text, room="node/template") == []
    assert breaches_of(tmp_path, text, room="network") == ["socket.socketpair (sockets)"]


def test_an_allowed_room_that_touches_nothing_loses_its_permission(tmp_path: Path) -> None:
    files = {f"{room.replace('.', '/')}.py": "import os\nos.fork()" for room in seams.ALLOWED}
    package = write_tree(tmp_path, files | {"asyncray/worker/main.py": "import os"}) / "asyncray"
    assert list(seams.idle_rooms(Package(package))) == ["asyncray.worker.main"]


class Part:
    """Stands in for a piece of a client."""

    def __init__(self, *held: object) -> None:
        self.held = list(held)


class SlottedPart:
    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


def test_the_parts_of_a_client_are_all_that_it_holds() -> None:
    innermost = Part()
    slotted = SlottedPart(innermost)
    client = Part(slotted, "not a part")
    client.held.append(client)
    found = seams.parts_of(client, rooms=(__name__,))
    assert {id(part) for part in found} == {id(client), id(slotted), id(innermost)}


def test_a_global_that_holds_a_part_is_found_in_each_hiding_place() -> None:
    part = Part()
    module = ModuleType("asyncray.hoard")
    hoarder = type("Hoarder", (), {"__module__": "asyncray.hoard", "kept": {"one": part}})
    vars(module).update(plain=part, listed=[1, part], mapped={"key": part}, Hoarder=hoarder, innocent=Part())
    assert list(seams.holders([module], [part])) == [
        "asyncray.hoard.plain holds a Part",
        "asyncray.hoard.listed holds a Part",
        "asyncray.hoard.mapped holds a Part",
        "asyncray.hoard.Hoarder holds a Part",
    ]
