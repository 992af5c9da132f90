"""Results of quick calls that wait for company, and who sees to it that they do not wait for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.session import Session

#: Seconds that a gathered result may wait behind a call that turns out to be long.
_LONGEST_S: Final = 0.005


class Gathering:
    """Looks after gathered results from the loop's thread, while there are any.

    Args:
        session: The worker's session.
        report: Called on the loop with the value given to watch: reports what has waited since then, and
            tells whether more may be gathered by now.
    """

    def __init__(self, session: Session, report: Callable[[float], bool]) -> None:
        self._session = session
        self._report = report
        self._watching = False
        self._since = 0.0

    def watch(self, since: float) -> None:
        """A result is being kept back. From any thread, and after it is where report finds it.

        Args:
            since: What tells this gathering from later ones.
        """
        if not self._watching:
            self._watching = True
            self._since = since
            self._session.call_later(_LONGEST_S, self._look)

    def _look(self) -> None:
        # Cleared before the look: a result that is kept back in between is found, or watches anew.
        self._watching = False
        since = self._since
        if self._report(since):
            self.watch(since)
