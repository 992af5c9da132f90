"""A template in an interpreter of its own: for variables that act at start, and after a template's death."""

from __future__ import annotations

import os
import socket

from ..net.loops import import_loop
from ..node.template import Template, die_with_parent, unpack
from ..worker.main import run_worker

_MESSAGE_BYTES = 1 << 20


def main(fd: int) -> None:
    """Run a template for the node at the other end of the inherited socket *fd*."""
    sock = socket.socket(fileno=fd)
    data = sock.recv(_MESSAGE_BYTES)
    if not data:
        return  # the node is gone before this had begun
    die_with_parent(os.getppid())
    preload, loop = unpack(data)
    import_loop(loop)
    Template(sock, run_worker).run(preload)
