"""Which light actor the running code belongs to, in a process that hosts many."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

#: What its worker knows of the actor whose method runs; None outside of light actors. See worker.hosted.
hosted_now: Final[ContextVar[Any]] = ContextVar("asyncray_hosted", default=None)
