"""A template in an interpreter of its own: for variables that act at start, and after a template's death."""

from __future__ import annotations

import os
import socket
from functools import partial

from ..node.boot import Boot
from ..node.template import Template, die_with_parent
from ..worker.main import prepare

_MESSAGE_BYTES = 1 << 20


def main(fd: int) -> None:
    """Run a template for the node at the other end of the inherited socket *fd*."""
    sock = socket.socket(fileno=fd)
    data = sock.recv(_MESSAGE_BYTES)
    if not data:
        return  # the node is gone before this had begun
    die_with_parent(os.getppid())
    boot = Boot.unpack(data)
    Template(sock, partial(prepare, boot)).run(boot.preload)
