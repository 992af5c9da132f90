"""Context variables that travel with calls.

    trace_id = asyncray.aio.carry(ContextVar("trace_id"))

Where the call is made, the value that each carried variable has there is put into the call's extras; where
the call runs, it is set in the call's own context, so that calls made there pass it on.

A variable is known by its name in both processes: "module:attribute" when an importable module has it, which
the worker then imports; else the name it was made with. In that case (a script, a notebook, a closure) the
worker makes a variable of its own under that name when it first unpickles something that refers to it.

Rule 1: this is a register of variables, which belong to the interpreter as modules do; values are in
        contexts.
Rule 2: a value is pickled once for each time it is set, not once a call; whoever changes it in place must set
        it again. A scalar is not pickled at all.
"""

from __future__ import annotations

import copyreg
import importlib
import sys
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

from ..wire.values import decode, encode_in_band, is_scalar

T = TypeVar("T")

#: Bytes of one carried value, pickled: it goes with every call.
LARGEST_BYTES: Final = 64 * 1024


class Carried:
    """One variable that travels."""

    __slots__ = ("_name", "_sent", "explicit", "variable")

    def __init__(self, variable: ContextVar[Any], explicit: str | None) -> None:
        self.variable = variable
        #: The name that its user gave it; None: it is found by where it is.
        self.explicit = explicit
        self._name: str | None = explicit
        #: The last value sent from this context, and how it travels. In the context, so that it ends with it.
        self._sent: ContextVar[tuple[Any, bytes] | None] = ContextVar("asyncray_carried", default=None)

    @property
    def name(self) -> str:
        """What it is called in every process. Looked for at its first use: a module may still be loading."""
        if self._name is None:
            self._name = _place_of(self.variable) or self.variable.name
        return self._name

    def payload(self, value: Any) -> Any:
        """A value as it travels.

        Raises:
            TypeError: when it cannot be pickled, or holds references.
            ValueError: when it is too large to go with every call.
        """
        if is_scalar(value):
            return value
        sent = self._sent.get()
        if sent is not None and sent[0] is value:
            return sent[1]
        pickled = self._pickled(value)
        self._sent.set((value, pickled))
        return pickled

    def _pickled(self, value: Any) -> bytes:
        try:
            pickled, refs = encode_in_band(value)
        except Exception as error:
            raise TypeError(
                f"the carried variable {self.name!r} has a value that cannot be pickled: {error}"
            ) from error
        if refs:
            raise TypeError(
                f"the carried variable {self.name!r} holds an ObjectRef: give it as an argument instead"
            )
        if len(pickled) > LARGEST_BYTES:
            raise ValueError(
                f"the value of the carried variable {self.name!r} is {len(pickled)} bytes when pickled; at "
                f"most {LARGEST_BYTES} go with every call: put it, and carry what names it"
            )
        return pickled


#: What travels, by variable.
variables: Final[dict[ContextVar[Any], Carried]] = {}
#: What this process has made for variables that it could not import, by name.
_stand_ins: Final[dict[str, ContextVar[Any]]] = {}
_ABSENT: Final = object()


def carry(variable: ContextVar[T], name: str | None = None) -> ContextVar[T]:
    """Let a variable travel; see :func:`asyncray.aio.carry`."""
    if not isinstance(variable, ContextVar):
        raise TypeError(f"carry takes a ContextVar, not {variable!r} of type {type(variable).__name__}")
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"the name of a carried variable is a string that is not empty, not {name!r}")
    known = variables.get(variable)
    if known is not None and name not in (None, known.explicit):
        raise ValueError(f"the variable is carried as {known.name!r} already, not as {name!r}")
    if known is None:
        copyreg.pickle(ContextVar, _reduce)
        variables[variable] = Carried(variable, name)
    return variable


def any_carried() -> bool:
    """Whether anything travels."""
    return bool(variables)


def outgoing(passed_on: dict[str, Any]) -> dict[str, Any]:
    """What goes with a call made here: the values of this context, by name.

    Args:
        passed_on: What came with the running call for variables that this process does not know.

    Raises:
        TypeError: when a value cannot be pickled, or holds references.
        ValueError: when one is too large.
    """
    values = dict(passed_on)
    for name, carried in _by_name().items():
        value = carried.variable.get(_ABSENT)
        if value is not _ABSENT:
            values[name] = carried.payload(value)
    return values


def _by_name() -> dict[str, Carried]:
    """What travels, by name. Of two with one name it is the newer: a cell of a notebook was run again."""
    by_name = {carried.name: carried for carried in list(variables.values())}
    if len(by_name) < len(variables):
        for carried in list(variables.values()):
            if by_name[carried.name] is not carried:
                del variables[carried.variable]
    return by_name


def arrive(values: dict[str, Any]) -> dict[str, Any]:
    """Set in this context what came with a call; returns what this process has no variable for.

    Raises:
        Exception: whatever importing a variable's module, or unpickling its value, raises.
    """
    unknown: dict[str, Any] = {}
    for name, payload in values.items():
        variable = _variable(name)
        if variable is None:
            unknown[name] = payload
        else:
            variable.set(decode(payload))
    return unknown


def _variable(name: str) -> ContextVar[Any] | None:
    """This process's variable of that name, imported if need be; None when it has none."""
    known = _by_name().get(name)
    if known is not None:
        return known.variable
    module, colon, attribute = name.partition(":")
    if not colon:
        return _stand_ins.get(name)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ImportError(f"the carried variable {name!r} cannot be had in this worker: {error}") from error
    if not isinstance(found, ContextVar):
        raise TypeError(f"the carried variable {name!r} is {found!r} in this worker, and no ContextVar")
    if found not in variables:
        variables[found] = Carried(found, name)
    return found


def _place_of(variable: ContextVar[Any]) -> str | None:
    """Where a variable is, as "module:attribute"; None when no importable module has it.

    Of several modules that name it, it is the one that was imported last: it was imported by the others.
    """
    for module_name, module in reversed(list(sys.modules.items())):
        if module_name == "__main__" or getattr(module, "__spec__", None) is None:
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return f"{module_name}:{attribute}"
    return None


def _reduce(variable: ContextVar[Any]) -> tuple[Any, ...]:
    carried = variables.get(variable)
    if carried is None:
        raise TypeError(
            f"the context variable {variable.name!r} cannot be pickled: let it travel by asyncray.aio.carry"
        )
    try:
        return restored, (carried.name, Context().run(variable.get))
    except LookupError:
        return restored, (carried.name,)


def restored(name: str, *default: Any) -> ContextVar[Any]:
    """A pickled variable, in whichever process; only what cannot be imported is made."""
    variable = _variable(name)
    if variable is None:
        variable = ContextVar(name, default=default[0]) if default else ContextVar(name)
        _stand_ins[name] = variable
        variables[variable] = Carried(variable, name)
        copyreg.pickle(ContextVar, _reduce)
    return variable
