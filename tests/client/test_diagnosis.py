"""What cannot be pickled is named by its place, in one line, whatever the objects of users do."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncray.client import diagnosis
from asyncray.client.diagnosis import explain, explain_call
from asyncray.wire.values import encode_pickled

LOCK = threading.Lock()
IS_A_LOCK = "is a _thread.lock, which cannot be pickled (cannot pickle '_thread.lock' object)"


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None:
        pass


class Slotted:
    __slots__ = ("empty", "lock")

    def __init__(self) -> None:
        self.lock = LOCK


@dataclasses.dataclass
class Settings:
    name: str
    lock: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    lock: Any


class Pair(NamedTuple):
    left: Any
    right: Any


class Subtracting(Plain):
    """Keeps one lock out of its pickle and leaves another in it."""

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": LOCK}


class Rebuilt(Plain):
    def __reduce__(self) -> tuple[Any, ...]:
        return Rebuilt, (1, self.__dict__["lock"])


def why(value: Any) -> str:
    with pytest.raises(Exception) as failed:  # noqa: PT011 - of whatever kind
        encode_pickled(value)
    return explain(value, failed.value)


# ---- the path ----


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "it"),
        ({"config": Plain(lock=LOCK)}, "['config'].lock"),
        ([1, (2, {3: LOCK})], "[1][1][3]"),
        ({(1, "a"): LOCK}, "[(1, 'a')]"),
        ({LOCK}, "an element"),
        (frozenset([1, LOCK]), "an element"),
        ({"set": {LOCK}}, "['set'], an element"),
        ({LOCK: 1}, "the key <lock>"),
        (Plain(a=Plain(b=[LOCK])), ".a.b[0]"),
        (Slotted(), ".lock"),
        (Settings("a", LOCK), ".lock"),
        (Frozen("a", {"x": LOCK}), ".lock['x']"),
        (Pair(1, LOCK), ".right"),
        (Subtracting(dropped=LOCK), ".kept"),
        (Rebuilt(lock=LOCK), ".lock"),
        (Plain(lock=LOCK).method, ".__self__.lock"),
        (LOCK.acquire, ".__self__"),
        (functools.partial(print, 1, LOCK), ".args[1]"),
        (functools.partial(print, sep=LOCK), ".keywords['sep']"),
        (functools.partial(Plain(lock=LOCK).method), ".func.__self__.lock"),
        (ValueError("text", LOCK), ".args[1]"),
        (collections.deque([1, LOCK]), "[1]"),
        (collections.defaultdict(None, a=LOCK), "['a']"),
        (collections.OrderedDict(a=LOCK), "['a']"),
        ([0] * 50_000 + [LOCK], "[50000]"),
        ({"x" * 100: LOCK}, "['" + "x" * 58 + "…]"),
    ],
)
def test_the_path_leads_to_what_cannot_be_pickled(value: Any, path: str) -> None:
    assert why(value) == f"{path} {IS_A_LOCK}"


def test_a_closure_variable_is_named() -> None:
    settings = {"lock": LOCK}

    def outer() -> Any:
        def inner() -> Any:
            return settings

        return inner

    assert why(outer) == f"closure variable 'settings'['lock'] {IS_A_LOCK}"
    assert why([outer()]) == f"[0], closure variable 'settings'['lock'] {IS_A_LOCK}"


def test_a_default_and_an_attribute_of_a_function_are_named() -> None:
    def positional(first: int, second: Any = LOCK) -> None:
        pass

    def keyword(*, only: Any = LOCK) -> None:
        pass

    def tagged() -> None:
        pass

    tagged.__dict__["tag"] = LOCK
    assert why(positional) == f"default of 'second' {IS_A_LOCK}"
    assert why(keyword) == f"default of 'only' {IS_A_LOCK}"
    assert why(tagged) == f".tag {IS_A_LOCK}"


def test_a_global_is_named_where_a_function_uses_it_and_not_where_an_attribute_is_called_the_same() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "conn": LOCK, "unused": LOCK, "pool": Plain(conn=LOCK)}
    code = "def uses():\n    return lambda: conn\ndef other():\n    return [].conn, pool, [].unused"
    exec(code, names)
    assert why(names["uses"]) == f"global 'conn' {IS_A_LOCK}"
    assert why(names["other"]) == f"global 'pool'.conn {IS_A_LOCK}"


def test_what_a_class_made_on_the_spot_carries_is_named() -> None:
    class Local:
        shared = LOCK

        @property
        def size(self) -> int:
            return 1

    assert why(Local()) == f"its class.shared {IS_A_LOCK}"
    assert why(Local) == f".shared {IS_A_LOCK}"


def test_a_cycle_is_left_by_the_way_to_what_is_at_fault() -> None:
    knot: dict[str, Any] = {}
    knot["child"] = Plain(parent=knot, again=[knot])
    knot["lock"] = LOCK
    assert why(knot) == f"['lock'] {IS_A_LOCK}"


def test_a_shared_piece_is_named_by_its_first_place() -> None:
    shared = Plain(lock=LOCK)
    assert why([shared, shared]) == f"[0].lock {IS_A_LOCK}"


def test_other_kinds_are_called_by_their_own_names() -> None:
    assert why([1, (i for i in "a")]).startswith("[1] is a generator, which cannot be pickled (")
    assert why({"a": threading.Event()}).startswith("['a']._cond._lock is a _thread.lock, ")


def test_what_is_too_deep_is_called_so() -> None:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    assert why(value).startswith("it is nested too deeply to be pickled (")


def test_a_long_path_and_a_long_message_are_cut() -> None:
    value: Any = LOCK
    for _ in range(10):
        value = {"k" * 50: value}
    assert len(why(value)) < 700
    assert len(explain(1, ValueError("x" * 10_000))) < 700


def test_a_message_of_many_lines_becomes_one() -> None:
    class Refuses:
        def __reduce__(self) -> str:
            raise ValueError("one\n  two\n")

    assert why([Refuses()]).endswith(".Refuses, which cannot be pickled (one two)")


# ---- hostile objects ----


class Stop(BaseException):
    """Caught by nobody who catches Exception."""


def hostile(*_: Any, **__: Any) -> Any:
    raise Stop


class HostileMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise Stop


class HostileError(Exception):
    __str__ = __repr__ = hostile


def hostile_objects() -> list[Any]:
    methods = [
        "__getattribute__", "__getattr__", "__reduce__", "__reduce_ex__", "__repr__", "__str__", "__hash__",
        "__eq__", "__iter__", "__len__", "__bool__", "__getstate__", "__dict__", "__class__", "__getitem__",
    ]  # fmt: skip
    made: list[Any] = []
    for base in (object, dict, list, tuple, set, Exception, collections.OrderedDict):
        for name in methods:
            attribute = property(hostile) if name in {"__dict__", "__class__"} else hostile
            value = type("Hostile", (base,), {name: attribute})()
            if base is object and name not in {"__getattribute__", "__dict__"}:
                object.__setattr__(value, "lock", LOCK)
            made.append(value)
    kind: Any = HostileMeta("Hostile", (), {})
    return [*made, object.__new__(kind)]


@pytest.mark.parametrize("position", range(len(hostile_objects())))
def test_no_object_makes_the_diagnosis_raise(position: int) -> None:
    value = hostile_objects()[position]
    for whole in (value, [value, LOCK], {"a": (value,)}, Plain(x=value), functools.partial(print, value)):
        assert "cannot be pickled" in explain(whole, HostileError())
        line = explain_call("f", hostile_function, [whole], {"k": whole}, HostileError())
        assert "cannot be pickled" in line
        assert "\n" not in line


def hostile_function() -> None:
    pass


hostile_function.__signature__ = 1  # type: ignore[attr-defined]


def test_a_key_that_runs_code_when_shown_is_shown_by_its_type() -> None:
    class Key:
        def __repr__(self) -> str:
            raise Stop

    assert why({Key(): LOCK}) in (f"[<Key>] {IS_A_LOCK}", f"the key <Key> {IS_A_LOCK}")


def test_an_object_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def __reduce__(self) -> tuple[Any, ...]:
            return Endless, (Endless(), LOCK)

    monkeypatch.setattr(diagnosis, "MAX_TRIES", 30)
    assert "cannot be pickled" in explain(Endless(), ValueError("no"))


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def count(value: Any) -> bytes:
        tried.append(value)
        raise ValueError("no")

    monkeypatch.setattr(diagnosis, "MAX_TRIES", 50)
    monkeypatch.setattr(diagnosis, "encode_pickled", count)
    knot: list[Any] = []
    knot.extend([Plain(a=knot, b=i) for i in range(100)])
    explain(knot, ValueError("no"))
    assert len(tried) <= 50


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "MAX_BYTES", 1000)
    line = why([["x" * 2000], ["y" * 2000], [LOCK]])
    assert line.startswith("it is a list, which cannot be pickled (")


def test_ctrl_c_is_not_kept_from_the_user() -> None:
    class Interrupted:
        def __reduce__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain([Interrupted()], ValueError())


WORDS = st.text(max_size=5) | st.integers() | st.booleans() | st.none()
TREES: st.SearchStrategy[Any] = st.recursive(
    WORDS | st.just(LOCK),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.builds(Plain, a=inner, b=inner)
        | st.builds(Settings, st.just("n"), inner)
    ),
    max_leaves=20,
)


@given(TREES)
def test_the_path_can_be_followed_in_any_tree(tree: Any) -> None:
    try:
        encode_pickled(tree)
    except TypeError as error:
        line = explain(tree, error)
        assert line.endswith(IS_A_LOCK)
        path = line.removesuffix(IS_A_LOCK).strip()
        assert path == "it" or eval(f"tree{path}", {"tree": tree}) is LOCK


# ---- arguments of a call ----


def remote(x: Any, /, y: Any = 1, *rest: Any, key: Any = None, **others: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "line"),
    [
        (({"a": [Plain(lock=LOCK)]},), {}, "argument 'x' of f: x['a'][0].lock"),
        ((1, LOCK), {}, "argument 'y' of f: y"),
        ((1, 2, 3, [LOCK]), {}, "argument 'rest[1]' of f: rest[1][0]"),
        ((1,), {"key": [LOCK]}, "argument 'key' of f: key[0]"),
        ((1,), {"z": LOCK}, "argument 'z' of f: z"),
        ((1, {LOCK}), {}, "argument 'y' of f: y, an element"),
    ],
)
def test_the_argument_is_called_by_its_parameter(args: Any, kwargs: Any, line: str) -> None:
    assert explain_call("f", remote, args, kwargs, ValueError("no")) == f"{line} {IS_A_LOCK}"


def test_an_argument_without_a_parameter_is_called_by_its_position() -> None:
    def two(a: int, b: int) -> None:
        pass

    line = explain_call("f", two, (1, 2, [LOCK]), {}, ValueError())
    assert line == f"argument 2 (from 0) of f: args[2][0] {IS_A_LOCK}"
    line = explain_call("f", hostile_function, (1, LOCK), {}, ValueError())
    assert line == f"argument 1 (from 0) of f: args[1] {IS_A_LOCK}"


def test_arguments_that_are_fine_one_by_one_are_not_blamed() -> None:
    line = explain_call("f", remote, (1,), {"key": 2}, ValueError("no"))
    assert line == "the arguments of f cannot be pickled together (no)"
