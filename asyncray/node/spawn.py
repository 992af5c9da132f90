"""Starting processes: the node by its driver, and templates by the node.

A new interpreter must find the same modules as its parent, wherever those came from, so it is handed the
parent's ``sys.path``. Secrets never stand in its arguments: they come over the socket it inherits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

#: What a new interpreter runs. Its arguments: a name for those who list processes, the socket, `sys.path`.
_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from asyncray.programs.{module} import main; main(int(sys.argv[2]))"
)

#: Variables of the environment that an interpreter, or its loader, only reads when it starts.
_READ_AT_START: Final = (
    "PYTHON",
    "LD_",
    "MALLOC_",
    "GLIBC_",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "NUMEXPR_",
    "LC_",
    "LANG",
)


def start_python(
    module: str, sock: socket.socket, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``asyncray.programs.<module>`` in a new interpreter that inherits *sock*.

    Args:
        module: The module whose ``main(fd)`` runs.
        sock: The new process's end of its connection; the caller closes its own copy.
        environ: The environment; None is this process's.

    Raises:
        OSError: when no process can be started.
    """
    code = _BOOT.format(module=module)
    # An empty entry means the current directory, which may change; say where that is now.
    path = [entry or os.getcwd() for entry in sys.path]
    arguments = [sys.executable, "-c", code, f"asyncray-{module}", str(sock.fileno()), *path]
    # A session of its own: a terminal's Ctrl-C is the driver's alone.
    return subprocess.Popen(
        arguments, pass_fds=[sock.fileno()], stdin=subprocess.DEVNULL, env=environ, start_new_session=True
    )


def needs_own_template(variables: Mapping[str, str]) -> bool:
    """Whether a runtime environment sets variables that only act when an interpreter starts."""
    return any(name.startswith(_READ_AT_START) for name in variables)
