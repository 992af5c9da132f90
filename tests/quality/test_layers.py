"""Imports point down: the floors of the house hold, and the check that says so finds each kind of breach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .layers import violations
from .source import ROOT, Package, assert_none, write_tree

if TYPE_CHECKING:
    from pathlib import Path

SOUND = {
    "asyncray/__init__.py": "from .api import get\n",
    "asyncray/api.py": "from .client.session import Session\nfrom .refs import Ref\n",
    "asyncray/client/session.py": "from ..net.stream import open\nfrom .waiting import wait\n",
    "asyncray/client/waiting.py": "import threading\n\ndef late():\n    from ..net import stream\n",
    "asyncray/net/stream.py": "import asyncio\nfrom ..wire import frames\n",
    "asyncray/wire/frames.py": "import struct\nfrom ..exceptions import ProtocolError\n",
    "asyncray/refs.py": "if TYPE_CHECKING:\n    from .client.session import Session\n",
    "asyncray/exceptions.py": "",
    "asyncray/util/__init__.py": "from ..api import get\nfrom ..refs import Ref\n",
}


def violations_of(tmp_path: Path, **changes: str) -> list[str]:
    files = SOUND | {f"asyncray/{name.replace('__', '/')}.py": text for name, text in changes.items()}
    return list(violations(Package(write_tree(tmp_path, files) / "asyncray")))


def test_imports_of_the_package_point_down() -> None:
    assert_none(violations(Package(ROOT / "asyncray")))


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    assert violations_of(tmp_path) == []


def test_an_import_that_points_up_is_found(tmp_path: Path) -> None:
    assert violations_of(tmp_path, net__stream="from ..client import session\n") == [
        "asyncray.net.stream:1 imports asyncray.client.session: up, from net to client",
        "cycle: asyncray.client.session, asyncray.client.waiting, asyncray.net.stream",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "import asyncray.api",
        "from asyncray import api",
        "from .. import api",
        "from ..api import get",
        "import importlib; importlib.import_module('asyncray.api')",
        "import importlib; importlib.import_module('..api', __package__)",
    ],
)
def test_no_way_to_write_an_import_hides_where_it_points(tmp_path: Path, statement: str) -> None:
    (found, _cycle) = violations_of(tmp_path, net__stream=f"def late():\n    {statement}\n")
    assert found == "asyncray.net.stream:2 imports asyncray.api: up, from net to api"


def test_a_name_taken_from_the_package_itself_points_up(tmp_path: Path) -> None:
    (found,) = violations_of(tmp_path, client__waiting="from .. import get\n")
    assert found == "asyncray.client.waiting:1 imports asyncray: up, from client to __init__"


def test_an_import_for_the_type_checker_may_point_anywhere(tmp_path: Path) -> None:
    text = "if typing.TYPE_CHECKING:\n    from ..api import get\nelse:\n    from ..aio import get\n"
    assert violations_of(tmp_path, aio="", net__stream=text) == [
        "asyncray.net.stream:4 imports asyncray.aio: up, from net to aio"
    ]


def test_a_cycle_within_a_floor_is_found_although_an_import_is_late(tmp_path: Path) -> None:
    late = "def late():\n    from .session import Session\n"
    assert violations_of(tmp_path, client__waiting=late) == [
        "cycle: asyncray.client.session, asyncray.client.waiting"
    ]


@pytest.mark.parametrize("name", ["asyncio", "socket", "time", "threading", "random"])
@pytest.mark.parametrize("room", ["wire", "state"])
def test_an_impure_import_in_a_pure_room_is_found(tmp_path: Path, room: str, name: str) -> None:
    late = f"def late():\n    from {name} import something\n"
    (found,) = violations_of(tmp_path, **{f"{room}__pure": late})
    assert found.endswith(f": {room}/ is pure")


def test_helpers_know_no_private_room(tmp_path: Path) -> None:
    assert violations_of(tmp_path, util__pool="from ..client.waiting import wait\n") == [
        "asyncray.util.pool:1 imports asyncray.client.waiting: util/ is built on the public names alone"
    ]


def test_a_module_without_a_floor_is_found(tmp_path: Path) -> None:
    (found,) = violations_of(tmp_path, attic="")
    assert found == "asyncray.attic stands on no floor: give it one in tests/quality/layers.py"
