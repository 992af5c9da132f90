"""What pickling a value pickles in its turn: its pieces, each with its place in the value.

Rule 1: pieces come from what pickle itself would ask, so that state which a value keeps out of its pickle is
        never among them.
Rule 2: this runs user code (``__reduce_ex__``, ``__getstate__``, descriptors): it may raise anything.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import types
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import cloudpickle

from ..refs import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: A place and what is there. A place continues the path to its value when it begins with a dot or a bracket;
#: otherwise it is words.
Piece: TypeAlias = tuple[str, Any]

#: Pieces of one value that are looked at, at most.
MOST: Final = 100_000
#: Characters of a key that a place shows.
_SHOWN: Final = 60
#: What always can be pickled, and holds nothing that could not.
_SAFE: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, ObjectRef})
_PLAIN_KEYS: Final = frozenset({type(None), bool, int, float, str, bytes})
_USES_GLOBAL: Final = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"})
#: What a class has without a line of its own; none of it is pickled.
_OF_EVERY_CLASS: Final = frozenset({"__dict__", "__weakref__", "__module__", "__doc__", "_abc_impl"})


def pieces(value: Any) -> Iterator[Piece]:
    """The pieces of *value* that might not be picklable, of its first MOST.

    Raises:
        Exception: whatever the value's own code raises.
    """
    return (piece for piece in islice(_pieces(value), MOST) if type(piece[1]) not in _SAFE)


def _pieces(value: Any) -> Iterator[Piece]:
    kind = type(value)
    if kind in _BY_KIND:
        return _BY_KIND[kind](value)
    if issubclass(kind, (set, frozenset)):
        return _elements(value)
    if issubclass(kind, tuple) and type(names := getattr(kind, "_fields", None)) is tuple:
        return ((f".{name}", item) for name, item in zip(names, tuple.__iter__(value), strict=False))
    if issubclass(kind, type):
        return _class(value)
    return _reduced(value)


# --- containers -----------------------------------------------------------------------------------------


def _items(items: Iterable[tuple[Any, Any]]) -> Iterator[Piece]:
    for key, item in items:
        yield f"the key {_key(key)}", key
        yield f"[{_key(key)}]", item


def _positions(items: Iterable[Any]) -> Iterator[Piece]:
    for position, item in enumerate(items):
        yield f"[{position}]", item


def _mapping(value: Mapping[Any, Any]) -> Iterator[Piece]:
    return _items(value.items())


def _elements(value: set[Any] | frozenset[Any]) -> Iterator[Piece]:
    for item in set.__iter__(value) if isinstance(value, set) else frozenset.__iter__(value):
        yield "an element", item
    yield from _attributes(_own_dict(value).items())


def _key(key: Any) -> str:
    """A key as a path shows it; one that could run user code shows its type alone."""
    parts = key if type(key) is tuple else (key,)
    if not all(type(part) in _PLAIN_KEYS for part in parts):
        return f"<{type(key).__name__}>"
    text = repr(key)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _partial(value: functools.partial[Any]) -> Iterator[Piece]:
    yield ".func", value.func
    for position, item in enumerate(value.args):
        yield f".args[{position}]", item
    for name, item in value.keywords.items():
        yield f".keywords[{_key(name)}]", item


# --- functions and classes ------------------------------------------------------------------------------


def _function(value: types.FunctionType) -> Iterator[Piece]:
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
        yield f"closure variable {name!r}", content
    for name in _globals_used(value.__code__):
        if name in value.__globals__:
            yield f"global {name!r}", value.__globals__[name]
    yield from _defaults(value)
    yield from _attributes(vars(value).items())
    yield from ((f"annotation of {name!r}", item) for name, item in value.__annotations__.items())


def _method(value: types.MethodType) -> Iterator[Piece]:
    yield ".__self__", value.__self__
    yield ".__func__", value.__func__


def _builtin(value: types.BuiltinMethodType) -> Iterator[Piece]:
    yield ".__self__", value.__self__


def _defaults(value: types.FunctionType) -> Iterator[Piece]:
    defaults = value.__defaults__ or ()
    names = value.__code__.co_varnames[: value.__code__.co_argcount]
    for name, item in zip(names[len(names) - len(defaults) :], defaults, strict=False):
        yield f"default of {name!r}", item
    for name, item in (value.__kwdefaults__ or {}).items():
        yield f"default of {name!r}", item


def _globals_used(code: types.CodeType) -> dict[str, None]:
    """The names of globals that *code* uses, also in functions inside it, each once, in order."""
    names = {step.argval: None for step in dis.get_instructions(code) if step.opname in _USES_GLOBAL}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals_used(constant))
    return names


def _class(value: type) -> Iterator[Piece]:
    """What a class that goes by value carries along."""
    for position, base in enumerate(value.__bases__):
        yield f".__bases__[{position}]", base
    for name, item in vars(value).items():
        if name in _OF_EVERY_CLASS:
            continue
        if isinstance(item, (classmethod, staticmethod)):
            yield f".{name}", item.__func__
        elif isinstance(item, property):
            yield from ((f".{name}", part) for part in (item.fget, item.fset, item.fdel) if part is not None)
        elif not isinstance(item, (types.GetSetDescriptorType, types.MemberDescriptorType)):
            yield f".{name}", item


# --- everything else: what its reducer says ---------------------------------------------------------------


def _reduced(value: Any) -> Iterator[Piece]:
    """The pieces that the value's reducer names: what makes it, its state, what it contains."""
    reducer = cloudpickle.Pickler.dispatch_table.get(type(value))
    parts = value.__reduce_ex__(5) if reducer is None else reducer(value)
    if type(parts) is not tuple:  # the name of something that can be imported
        return
    make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
    if items is not None:
        yield from _positions(items)
    if pairs is not None:
        yield from _items(pairs)
    if state is not None:
        yield from _state(value, state)
    for position, argument in enumerate(arguments):
        yield _place_of(value, argument) or _argument_place(value, position, argument), argument
    yield "what rebuilds it", make


def _state(value: Any, state: Any) -> Iterator[Piece]:
    if type(state) is dict:
        yield from _attributes(state.items())
    elif type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        yield from _attributes((state[0] or {}).items() if isinstance(state[0], (dict, type(None))) else ())
        yield from _attributes(state[1].items())
    elif type(state) in (list, tuple):
        for position, item in enumerate(state):
            yield _field(value, state, position) or _place_of(value, item) or f"its state[{position}]", item
    else:
        yield _place_of(value, state) or "its state", state


def _attributes(items: Iterable[tuple[Any, Any]]) -> Iterator[Piece]:
    for name, item in items:
        yield f".{name}" if type(name) is str else f"[{_key(name)}]", item


def _field(value: Any, state: Sequence[Any], position: int) -> str | None:
    """The field whose value stands there, where a dataclass gives its fields in a row as its state."""
    if not dataclasses.is_dataclass(type(value)):
        return None
    fields = dataclasses.fields(type(value))
    return f".{fields[position].name}" if len(fields) == len(state) else None


def _argument_place(value: Any, position: int, argument: Any) -> str:
    if isinstance(value, BaseException):
        return f".args[{position}]"
    if position == 0 and argument is type(value):
        return "its class"
    return f"argument {position} of what rebuilds it"


def _place_of(value: Any, item: Any) -> str | None:
    """The attribute of *value* that is *item*, if there is one."""
    for name, attribute in _own_attributes(value):
        if attribute is item and type(item) not in _SAFE:
            return f".{name}"
    return None


def _own_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes in ``__dict__`` and ``__slots__``, read without the user's code."""
    yield from _own_dict(value).items()
    for kind in type(value).__mro__:
        for name, place in vars(kind).items():
            if isinstance(place, types.MemberDescriptorType):
                try:
                    yield name, place.__get__(value)
                except AttributeError:  # a slot that is empty
                    continue


def _own_dict(value: Any) -> dict[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


#: Kinds whose own pickling is known; their subclasses say themselves how they are pickled.
_BY_KIND: Final[dict[type, Callable[[Any], Iterator[Piece]]]] = {
    **dict.fromkeys(_SAFE, lambda _: iter(())),
    dict: _mapping,
    types.MappingProxyType: _mapping,
    list: _positions,
    tuple: _positions,
    functools.partial: _partial,
    types.FunctionType: _function,
    types.MethodType: _method,
    types.BuiltinMethodType: _builtin,
}
