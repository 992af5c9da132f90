"""Starting processes: the node by its driver, and templates by the node.

A new interpreter must find the same modules as its parent, wherever those came from, so it is handed the
parent's ``sys.path``. Secrets never stand in its arguments: they come over the socket it inherits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import msgpack

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

#: What a new interpreter runs. Its arguments: a name for those who list processes, the socket, `sys.path`.
#: Modules are not garbage: to look for some while they are imported takes a tenth of the time.
_BOOT: Final = (
    "import gc, sys; gc.disable(); sys.path[:] = sys.argv[3:]; "
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
    "TZ",
)


def start_python(
    module: str,
    sock: socket.socket,
    environ: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start ``asyncray.programs.<module>`` in a new interpreter that inherits *sock*.

    Args:
        module: The module whose ``main(fd)`` runs.
        sock: The new process's end of its connection; the caller closes its own copy.
        environ: The environment; None is this process's.
        inherited: Further descriptors that it has, under the same numbers.

    Raises:
        OSError: when no process can be started.
    """
    code = _BOOT.format(module=module)
    # An empty entry means the current directory, which may change; say where that is now.
    path = [entry or os.getcwd() for entry in sys.path]
    asked = (environ or os.environ).get("PYTHONPATH", "")
    if asked != os.environ.get("PYTHONPATH", ""):
        path = [*filter(None, asked.split(os.pathsep)), *path]
    # -P: its own idea of the current directory is of no use, and that directory may be gone.
    arguments = [sys.executable, "-P", "-c", code, f"asyncray-{module}", str(sock.fileno()), *path]
    # A session of its own: a terminal's Ctrl-C is the driver's alone.
    fds = [sock.fileno(), *inherited]
    return subprocess.Popen(
        arguments, pass_fds=fds, stdin=subprocess.DEVNULL, env=environ, start_new_session=True
    )


def variables_of(environment: object) -> dict[str, str]:
    """The variables that a packed runtime environment sets.

    Raises:
        ValueError: when it is no packed runtime environment.
    """
    try:
        fields = msgpack.unpackb(environment) if environment != b"" else {}
        variables: dict[str, str] = fields.get("env_vars", {})
        well_formed = all(type(text) is str for pair in variables.items() for text in pair)
    except (ValueError, TypeError, AttributeError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(f"a runtime environment cannot be unpacked: {error}") from error
    if not well_formed:
        raise ValueError("the variables of a runtime environment are not strings by name")
    return variables


def acts_at_start(variable: str) -> bool:
    """Whether a variable of the environment only acts when an interpreter starts."""
    return variable.startswith(_READ_AT_START)
