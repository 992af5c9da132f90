"""A module that templates import and cannot fork any more then: a machine out of processes."""

import errno
import os
from typing import NoReturn


def _fork() -> NoReturn:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


os.fork = _fork
