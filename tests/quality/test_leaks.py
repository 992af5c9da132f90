"""The leak check finds each kind of leak, and waits for what is just ending."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from tests import leaks

ROOT = Path(__file__).parents[2]

#: A process that lives until its standard input is closed.
UNTIL_EOF = [sys.executable, "-c", "import sys; sys.stdin.read()"]

CONFTEST = """
import pytest
from tests.conftest import *

@pytest.fixture(scope="session")
def leak_grace_s():
    return 0.1
"""

LEAKING_TESTS = """
import asyncio, os, subprocess, sys, tempfile, threading
import pytest

kept = []

def test_clean():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_descriptor():
    kept.append(os.pipe())

def test_thread():
    threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()

def test_process():
    program = "import sys; sys.stdin.read()"
    kept.append(subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE))

def test_file():
    kept.append(tempfile.mkdtemp(prefix="asyncray-"))

async def test_task():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))

async def test_cancelled_task():
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()

def test_clean_after_leaks():
    pass
"""


@pytest.fixture
def before() -> leaks.Stock:
    return leaks.take_stock()


def the_one_leak(before: leaks.Stock) -> leaks.Leak:
    (leak,) = leaks.settle(before, grace_s=0.05)
    return leak


def test_nothing_is_found_where_nothing_was_left(before: leaks.Stock) -> None:
    assert leaks.settle(before) == []


def test_an_open_descriptor_is_found(before: leaks.Stock) -> None:
    fd = os.memfd_create("left-open")
    leak = the_one_leak(before)
    os.close(fd)
    assert leak.kind == "descriptor"
    assert "left-open" in str(leak)


def test_a_descriptor_that_was_replaced_is_found(before: leaks.Stock) -> None:
    reader, writer = os.pipe()
    stock = leaks.take_stock()
    os.close(reader)
    again, other_writer = os.pipe()
    assert again == reader
    assert {leak.kind for leak in leaks.settle(stock, grace_s=0.05)} == {"descriptor"}
    for fd in (writer, again, other_writer):
        os.close(fd)


def test_a_running_thread_is_found(before: leaks.Stock) -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="waits for the gate")
    thread.start()
    leak = the_one_leak(before)
    gate.set()
    thread.join()
    assert str(leak) == "thread 'waits for the gate'"


def test_a_thread_that_is_ending_is_waited_for(before: leaks.Stock) -> None:
    gate = threading.Event()
    threading.Thread(target=gate.wait).start()
    threading.Timer(0.05, gate.set).start()
    assert leaks.settle(before) == []


def test_a_child_process_is_found(before: leaks.Stock) -> None:
    with subprocess.Popen(UNTIL_EOF, stdin=subprocess.PIPE) as child:
        found = leaks.settle(before, grace_s=0.05)
    assert f"process {child.pid}" in str(found[0])


def test_a_process_that_is_ending_is_waited_for(before: leaks.Stock) -> None:
    child = subprocess.Popen(UNTIL_EOF, stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    reaper = threading.Thread(target=child.wait)
    reaper.start()
    assert leaks.settle(before) == []


def test_a_child_that_nobody_reaped_is_found(before: leaks.Stock) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    leaks.wait_for_exit([child.pid], timeout_s=5)
    leak = the_one_leak(before)
    child.wait()
    assert "nobody reaped it" in str(leak)


def test_an_orphan_that_others_adopted_is_found(before: leaks.Stock) -> None:
    """1. A child starts a grandchild in a session of its own. 2. The child ends. 3. The grandchild lives."""
    program = f"""
        import subprocess
        child = subprocess.Popen({UNTIL_EOF!r}, stdin=0, stdout=subprocess.DEVNULL, start_new_session=True)
        print(child.pid)
    """
    reader, writer = os.pipe()
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, stdin=reader, stdout=subprocess.PIPE, check=True)
    os.close(reader)
    grandchild = int(done.stdout)
    found = [leak for leak in leaks.settle(before, grace_s=0.05) if leak.kind == "process"]
    os.close(writer)
    assert [leak.subject.pid for leak in found] == [grandchild]


def test_an_unfinished_task_is_found(before: leaks.Stock) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.Event().wait(), name="waits for ever")
    kinds = {leak.kind: str(leak) for leak in leaks.settle(before, grace_s=0.05)}
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert "waits for ever" in kinds["task"]


def test_a_named_folder_is_found(before: leaks.Stock) -> None:
    folder = tempfile.mkdtemp(prefix="asyncray-")
    leak = the_one_leak(before)
    Path(folder).rmdir()
    assert str(leak) == f"file {folder}"


def test_while_a_session_is_up_its_processes_and_descriptors_may_come_and_go(before: leaks.Stock) -> None:
    with subprocess.Popen(UNTIL_EOF, stdin=subprocess.PIPE):
        assert leaks.settle(before, session_alive=True, grace_s=0.05) == []


def test_while_a_session_is_up_files_and_other_threads_are_still_leaks(before: leaks.Stock) -> None:
    gate = threading.Event()
    ours = threading.Thread(target=gate.wait, name="asyncray-loop")
    other = threading.Thread(target=gate.wait, name="other")
    ours.start()
    other.start()
    found = leaks.settle(before, session_alive=True, grace_s=0.05)
    gate.set()
    ours.join()
    other.join()
    assert [str(leak) for leak in found] == ["thread 'other'"]


@pytest.mark.slow
def test_each_leaking_test_fails_and_its_neighbours_do_not(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_leaking.py").write_text(LEAKING_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(ROOT), "-rA", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    failed = set(re.findall(r"^ERROR \S+::(\w+)", run.stdout, re.MULTILINE))
    assert failed == {"test_descriptor", "test_thread", "test_process", "test_file", "test_task"}, run.stdout
    assert "8 passed, 5 errors" in run.stdout
