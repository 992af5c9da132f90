"""The questions between processes about what waits, and the form of their answers: see state.inquiry.

Rule 1: what comes from a peer is checked here before anybody reads it; what is wrong raises ProtocolError.
"""

from __future__ import annotations

from typing import Any, Final

from ..exceptions import ProtocolError

#: Whatever is no task says what it is, in "kind".
_NUMBER: Final = (int, float)
_OBJECT: Final[dict[str, Any]] = {"number": int, "state": str, "name": str, "task": (int, type(None))}
#: What there is beside, by state.
_MORE: Final[dict[str, dict[str, Any]]] = {
    "done": {},
    "failed": {},
    "gone": {},
    "waiting": {"attempt": int, "missing": int, "arguments": int, "for": list},
    "queued": {"attempt": int, "class": int, "ahead": int, "names": dict, "cut": bool},
    "sent": {"attempt": int, "ahead": int, "names": dict, "cut": bool, "worker": list},
    "stopping": {"attempt": int, "worker": list},
}
_CALL: Final[dict[str, Any]] = {
    "owner": bytes,
    "number": int,
    "name": str,
    "pid": int,
    "for_s": _NUMBER,
    "waits": list,
    "stack": (str, type(None)),
    #: The light actor that it is a call of: its owner's process id, and a number there.
    "light": (list, type(None)),
    #: Items of its stream that nobody has read; None unless it has paused for that.
    "unread": (int, type(None)),
}
_WAIT: Final[dict[str, Any]] = {"number": int, "for_s": _NUMBER, "count": int, "need": int, "for": list}
#: The rows of what a node says, see state.scheduling_report.
_WAITING: Final[dict[str, list[type]]] = {
    "holders": [bytes, int, str, dict],
    "demands": [bytes, int, str, int, dict],
    "starting": [bytes, int, bool],
    "processes": [bytes, str, int],
}
#: A row about an object, see client.inventory.
_INVENTORY: Final = [bytes, int, str, int, list, str]


def check_answer(what: str, answer: Any) -> Any:
    """Return *answer* when it is one to the question *what*.

    Raises:
        ProtocolError: when it is not.
    """
    if what == "objects":
        for fact in _list(answer):
            _check_object(fact)
        return answer
    surveyed = {"objects": list, "more": bool} if what == "survey" else {}
    _check(answer, {"calls": list, "complete": bool, **surveyed})
    for call in answer["calls"]:
        _check(call, _CALL)
        for wait in call["waits"]:
            _check(wait, _WAIT)
            _check_addresses(wait["for"])
    for fact in answer["objects"] if what == "survey" else ():
        _check_object(fact)
    return answer


def check_waiting(answer: Any) -> Any:
    """Return what a node says of its resources and processes, when that is well formed.

    Raises:
        ProtocolError: when it is not.
    """
    _check(answer, {"total": dict, "free": dict, "full": bool, **dict.fromkeys(_WAITING, list)})
    units = [answer["total"], answer["free"]]
    for name, kinds in _WAITING.items():
        for row in answer[name]:
            if type(row) is not list or [type(part) for part in row] != kinds:
                raise ProtocolError(f"a row of a node's {name!r} cannot be like that")
            units += [part for part in row if type(part) is dict]
    pairs = [pair for amounts in units for pair in amounts.items()]
    if not all(type(name) is str and type(amount) is int for name, amount in pairs):
        raise ProtocolError("resources are whole units by name")
    return answer


def check_inventory(rows: list[Any]) -> list[Any]:
    """Return what a process says of its objects, when that is well formed: their number, then a row each.

    Raises:
        ProtocolError: when it is not.
    """
    if not rows or type(rows[0]) is not int or rows[0] < len(rows) - 1:
        raise ProtocolError("a process says first how many objects it has")
    for row in rows[1:]:
        if type(row) is not list or [type(part) for part in row] != _INVENTORY:
            raise ProtocolError("an object is told of by its id, size, place, references, borrowers and line")
        if not all(type(borrower) is bytes for borrower in row[4]):
            raise ProtocolError("the borrowers of an object are ids of processes")
    return rows


def check_calls(argument: Any) -> tuple[set[tuple[bytes, int]] | None, bool]:
    """The argument of the question for calls: owner and number of each (None: all), and whether with stacks.

    Raises:
        ProtocolError: when it is none.
    """
    if type(argument) is not list or len(argument) != 2 or type(argument[1]) is not bool:
        raise ProtocolError("who asks for calls must say which, and whether with their stacks")
    if argument[0] is None:
        return None, argument[1]
    pairs = _list(argument[0])
    if not all(type(p) is list and [type(part) for part in p] == [bytes, int] for p in pairs):
        raise ProtocolError("a call is asked for by its owner and its number")
    return {(owner, number) for owner, number in pairs}, argument[1]


def _check_object(fact: Any) -> None:
    _check(fact, _OBJECT)
    more = _MORE.get(fact["state"])
    if more is None:
        raise ProtocolError(f"an object cannot be {fact['state']!r}")
    _check(fact, more)
    if "for" in more:
        _check_addresses(fact["for"])
    if type(fact.get("again", False)) is not bool:
        raise ProtocolError("an object is being made again, or not")
    if type(fact.get("actor", "")) is not str or type(fact.get("light", [])) is not list:
        raise ProtocolError("what is missing of an actor is told by a word, which light one it is by a list")
    if type(fact.get("turns", 0)) is not int:
        raise ProtocolError("how many calls an actor runs at a time is a number")
    if "worker" in more and [type(part) for part in fact["worker"]] != [bytes, str, int]:
        raise ProtocolError("a worker is told of by its process id, its address and its pid")
    names = fact["names"].items() if "names" in more else ()
    if not all(type(name) is str and type(count) is int for name, count in names):
        raise ProtocolError("calls that go first are counted by name")
    if (fact["task"] is None) != (not more):
        raise ProtocolError("an unfinished object has a task, and no other one")


def _check(fact: Any, fields: dict[str, Any]) -> None:
    if type(fact) is not dict:
        raise ProtocolError(f"an answer tells by name, not by {type(fact).__name__}")
    if not isinstance(fact.get("kind", ""), str):
        raise ProtocolError("what waits is of a kind that has a name")
    for name, kind in fields.items():
        if not isinstance(fact.get(name, _MISSING), kind):
            raise ProtocolError(f"{name!r} of an answer cannot be {type(fact.get(name)).__name__}")


#: Of a type that no field has.
_MISSING: Final = object()


def _list(answer: Any) -> list[Any]:
    if type(answer) is not list:
        raise ProtocolError(f"an answer about many is a list, not {type(answer).__name__}")
    return answer


def _check_addresses(addresses: list[Any]) -> None:
    for address in addresses:
        if type(address) is not list or [type(part) for part in address] != [bytes, str, int]:
            raise ProtocolError("an object is told of by its owner's id, its owner's address and its number")
