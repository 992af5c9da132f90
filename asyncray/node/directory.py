"""Names of actors: who has which, in which namespace.

A name belongs to the process that owns the actor, from before the actor is made until it is dead. What
stands behind a name is the pickled handle; nobody here looks into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable


#: Namespace and name of the keeper of detached actors; see client.keeper.
KEEPER: Final = ("_asyncray", "keeper")


class Entry(NamedTuple):
    """What stands behind a name."""

    owner: bytes
    #: The number of the actor's life at its owner.
    number: int
    #: The pickled handle.
    handle: bytes


class Directory:
    """The names of one node's actors."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        #: Called with the keeper's handle as soon as there is one.
        self.asked_for_keeper: list[Callable[[bytes], None]] = []

    def questions(self) -> dict[str, Callable[[bytes, Any], Any]]:
        """The questions that are answered here: called with who asks, and the question's argument."""
        return {"claim_name": self._claim, "find_name": self._find, "list_names": self._list}

    def free(self, owner: bytes, namespace: str, name: str, number: int) -> None:
        """An actor is dead: its name is free. Nothing happens when another one has it."""
        entry = self._entries.get((namespace, name))
        if entry is not None and (entry.owner, entry.number) == (owner, number):
            del self._entries[namespace, name]

    def owner_gone(self, owner: bytes) -> None:
        """A process has died, and the actors that it owned with it."""
        for key in [key for key, entry in self._entries.items() if entry.owner == owner]:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def _claim(self, sender: bytes, argument: Any) -> Any:
        """Give the name to the sender; answers None, or the handle of the actor that has it."""
        namespace, name, number, handle = _checked(argument, (str, str, int, bytes))
        taken = self._entries.get((namespace, name))
        if taken is not None:
            return taken.handle
        self._entries[namespace, name] = Entry(sender, number, handle)
        if (namespace, name) == KEEPER:
            asked, self.asked_for_keeper = self.asked_for_keeper, []
            for answer in asked:
                answer(handle)
        return None

    def keeper(self) -> bytes | None:
        """The handle of the keeper, if there is one."""
        entry = self._entries.get(KEEPER)
        return None if entry is None else entry.handle

    def _find(self, sender: bytes, argument: Any) -> Any:
        """The handle behind a name, or None."""
        namespace, name = _checked(argument, (str, str))
        found = self._entries.get((namespace, name))
        return None if found is None else found.handle

    def _list(self, sender: bytes, argument: Any) -> Any:
        """[namespace, name] of every actor that has a name."""
        return [list(key) for key in self._entries if key != KEEPER]


def _checked(argument: Any, kinds: tuple[type, ...]) -> list[Any]:
    if type(argument) is not list or tuple(map(type, argument)) != kinds:
        raise ProtocolError("a question about names has the wrong argument")
    return argument
