"""A module that templates import and cannot fork then while a file exists: a machine full for a while."""

import errno
import os

_fork = os.fork


def _fork_unless_forbidden() -> int:
    if os.path.exists(os.environ["NO_FORKS_WHILE"]):  # noqa: PTH110 - in the template: nothing more is loaded
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
    return _fork()


os.fork = _fork_unless_forbidden
