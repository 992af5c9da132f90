"""The node process, from its first line to its last.

The template is forked as soon as there is what both processes need: the rest of what each one needs is
imported at the same time, on two CPUs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import struct
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from ..net.loops import new_loop
from ..node.boot import Boot
from ..node.template import Template, adopt_orphans, die_with_parent, name_process, wake_with_parents_end

if TYPE_CHECKING:
    from ..net.stream import StreamConnection
    from ..node.logs import LogHub
    from ..node.machine import Machine, OnConnected, OnDied

_LENGTH = struct.Struct("<I")
#: Files of the node for one worker: its connection, two pipes for its output, its mark.
_FILES_PER_WORKER = 4
#: Files that the node needs for itself, and for a worker that is being started.
_OWN_FILES = 32


def main(fd: int) -> None:
    """Run a node for the driver at the other end of the inherited socket *fd*."""
    driver = socket.socket(fileno=fd)
    boot = Boot.unpack(_read_boot(driver))
    ours, pid = _fork_template(driver, boot)
    name_process("asyncray-node")
    adopt_orphans()
    wake_with_parents_end()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop = new_loop(boot.loop)
    try:
        loop.run_until_complete(_serve(loop, boot, driver, ours, pid))
    finally:
        loop.close()
    # Everything has ended: taking the interpreter apart would only keep the driver's shutdown waiting.
    os._exit(0)


def _read_boot(driver: socket.socket) -> bytes:
    """The first bytes that the driver sends: a length, and what Boot.pack made."""
    (length,) = _LENGTH.unpack(_read_exactly(driver, _LENGTH.size))
    return _read_exactly(driver, length)


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise SystemExit(0)  # the driver is gone before it had begun
        data += more
    return data


def _fork_template(driver: socket.socket, boot: Boot) -> tuple[socket.socket, int]:
    """Fork the template while this process has neither a thread nor a loop."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    node = os.getpid()
    pid = os.fork()
    if pid == 0:
        # The template must not keep the node's connections open, or nobody sees the node's end.
        driver.close()
        ours.close()
        die_with_parent(node)
        _become_template(theirs, boot)
    theirs.close()
    return ours, pid


def _become_template(sock: socket.socket, boot: Boot) -> NoReturn:
    from ..worker.main import prepare

    Template(sock, partial(prepare, boot)).run(boot.preload)


async def _serve(
    loop: asyncio.AbstractEventLoop, boot: Boot, sock: socket.socket, template: socket.socket, pid: int
) -> None:
    from ..net.stream import StreamConnection
    from ..node.node import Node

    driver = StreamConnection(sock, loop, boot.config.max_frame_bytes)
    node = Node(loop, boot, driver, _machine(loop, boot, template, pid))
    gc.freeze()
    gc.enable()
    # The driver's death also shows as a closed socket, unless a child of it holds that open.
    pidfd = _watch_driver(loop, boot, driver)
    driver.start()
    node.start(os.getpid())
    await node.stopped.wait()
    await _flush(driver)
    if pidfd is not None:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _machine(loop: asyncio.AbstractEventLoop, boot: Boot, template: socket.socket, pid: int) -> Machine:
    """This machine, with the template that was forked before the loop existed."""
    from ..node.machine import Machine
    from ..node.memory import total_bytes, use_of
    from ..node.pool import Pool
    from ..store.holes import punch_hole

    def make_pool(logs: LogHub, on_connected: OnConnected, on_died: OnDied) -> Pool:
        pool = Pool(loop, boot, logs, on_connected, on_died)
        pool.adopt_template(template, pid)
        return pool

    return Machine(
        clock=time.monotonic,
        make_pool=make_pool,
        total_bytes=total_bytes(),
        most_workers=_files_for_workers(),
        memory_use=use_of,
        give_back=None if boot.store_fd < 0 else partial(punch_hole, boot.store_fd),
    )


def _files_for_workers() -> tuple[int, str]:
    """How many workers this process may have files for; it takes all the files that it is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        hard = sys.maxsize
    workers = max(1, (hard - _OWN_FILES) // _FILES_PER_WORKER)
    return workers, f"as many as the limit of {hard} open files allows"


def _watch_driver(loop: asyncio.AbstractEventLoop, boot: Boot, driver: StreamConnection) -> int | None:
    """Close the driver's connection when the driver ends, and with it the node."""
    try:
        pidfd = os.pidfd_open(boot.driver_pid)
    except ProcessLookupError:
        driver.close()
        return None

    def ended() -> None:
        loop.remove_reader(pidfd)
        driver.close()

    loop.add_reader(pidfd, ended)
    return pidfd


async def _flush(driver: StreamConnection) -> None:
    """Let the driver take what was sent last; its end of the connection closing ends the wait too."""
    if driver.closed:
        return
    closed = asyncio.Event()
    driver.on_close = lambda connection, error: closed.set()
    await closed.wait()
