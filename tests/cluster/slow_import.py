"""A module whose import lasts until its process ends: what a user's preload may be like."""

import threading

threading.Event().wait()
