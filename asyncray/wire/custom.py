"""How this process pickles types that its program has something to say about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: By exact type: what makes it pickled, and what makes it again from that. Like copyreg's table it belongs to
#: the program, not to a session.
SERIALIZERS: Final[dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {}
