"""A module that, preloaded, has the template stop when it has forked a worker and not told of it."""

import os
import signal

os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGSTOP))
