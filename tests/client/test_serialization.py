"""Serializers of one's own, and the path to what cannot be pickled."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncray import util
from asyncray.wire.values import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator


class Handle:
    """Something that pickle cannot take."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()


class Special(Handle):
    """A subclass, which is another type."""


@pytest.fixture
def registered() -> Iterator[None]:
    util.register_serializer(Handle, serializer=lambda handle: handle.name, deserializer=Handle)
    yield
    util.deregister_serializer(Handle)


@pytest.mark.usefixtures("registered")
def test_a_registered_type_travels_by_its_functions() -> None:
    first, same, other = decode(encode([handle := Handle("a"), handle, Handle("b")]))
    assert (first.name, other.name) == ("a", "b")
    assert first is same


@pytest.mark.usefixtures("registered")
def test_a_subclass_is_not_meant() -> None:
    with pytest.raises(TypeError, match="pickle"):
        encode(Special("a"))


def test_what_is_deregistered_is_pickled_as_before() -> None:
    util.register_serializer(Handle, serializer=lambda handle: handle.name, deserializer=Handle)
    util.deregister_serializer(Handle)
    util.deregister_serializer(Handle)
    with pytest.raises(TypeError, match="pickle"):
        encode(Handle("a"))


@pytest.mark.parametrize(
    ("cls", "serializer"), [("no type", str), (Handle, "no function")], ids=["type", "function"]
)
def test_bad_registrations_are_refused(cls: Any, serializer: Any) -> None:
    with pytest.raises(TypeError, match=r"no (type|function)"):
        util.register_serializer(cls, serializer=serializer, deserializer=str)


def test_what_can_be_pickled_is_said_to_be() -> None:
    out = io.StringIO()
    assert util.inspect_serializability([1, 2], name="numbers", print_file=out) == (True, set())
    assert out.getvalue() == "numbers: can be pickled\n"


def test_the_path_to_what_cannot_is_printed() -> None:
    out = io.StringIO()
    handle = Handle("a")
    fine, failures = util.inspect_serializability({"deep": [1, handle]}, name="value", print_file=out)
    assert not fine
    [failure] = failures
    assert failure.obj is handle.lock
    assert failure.parent is handle
    assert failure.path == ("value", "['deep']", "[1]", ".lock")
    assert out.getvalue().startswith("value: ['deep'][1].lock is a _thread.lock, which cannot be pickled")


def test_a_function_s_closure_is_looked_into() -> None:
    lock = threading.Lock()
    out = io.StringIO()
    fine, [failure] = util.inspect_serializability(lambda: lock, print_file=out)
    assert not fine
    assert failure.obj is lock
