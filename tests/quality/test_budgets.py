"""Rooms stay small, typed and documented, and the checks that say so find what is not."""

from __future__ import annotations

from textwrap import dedent, indent
from typing import TYPE_CHECKING

import pytest

from . import budgets
from .source import ROOT, Package, assert_none

if TYPE_CHECKING:
    from pathlib import Path

    from .source import Module

EVERYWHERE = ["asyncray", "tests", "examples", "benchmarks"]


def package_of(tmp_path: Path, text: str) -> Package:
    (tmp_path / "asyncray").mkdir(exist_ok=True)
    (tmp_path / "asyncray" / "room.py").write_text(dedent(text))
    return Package(tmp_path / "asyncray")


def module_of(tmp_path: Path, text: str) -> Module:
    return package_of(tmp_path, text).modules["asyncray.room"]


def function_with_body(body: str) -> str:
    return "def f() -> None:\n" + indent(dedent(body), "    ")


@pytest.mark.parametrize("folder", EVERYWHERE)
def test_no_room_is_larger_than_its_budget(folder: str) -> None:
    assert_none(line for module in Package(ROOT / folder) for line in budgets.oversized(module))


def test_everything_in_the_package_is_typed() -> None:
    assert_none(line for module in Package(ROOT / "asyncray") for line in budgets.unannotated(module))


def test_everything_public_in_the_package_is_documented() -> None:
    assert_none(budgets.undocumented(Package(ROOT / "asyncray")))


def test_each_exception_from_the_budget_is_still_needed() -> None:
    sizes = {
        name: len(budgets.parameters(function))
        for module in Package(ROOT / "asyncray")
        for name, function in budgets.functions(module)
    }
    assert_none(name for name in budgets.MIRRORS_RAY if sizes.get(name, 0) <= budgets.PARAMETERS)


def test_a_body_is_counted_without_its_docstring(tmp_path: Path) -> None:
    fits = '"""One.\n\nTwo.\n"""\n' + "pass\n" * 60
    assert list(budgets.oversized(module_of(tmp_path, function_with_body(fits)))) == []
    (line,) = budgets.oversized(module_of(tmp_path, function_with_body(fits + "pass\n")))
    assert line == "asyncray.room.f (line 1): a body of 61 lines, 60 are allowed"


def test_a_long_file_is_found(tmp_path: Path) -> None:
    assert list(budgets.oversized(module_of(tmp_path, "x = 1\n" * 600))) == []
    (line,) = budgets.oversized(module_of(tmp_path, "x = 1\n" * 601))
    assert line == "asyncray.room: 601 lines in one file, 600 are allowed"


def test_blocks_inside_each_other_are_counted(tmp_path: Path) -> None:
    text = """
        class C:
            async def m(self) -> None:
                async with a:
                    for x in y:
                        try:
                            while True:
                                with z:
                                    pass
                        finally:
                            pass
    """
    (line,) = budgets.oversized(module_of(tmp_path, text))
    assert line == "asyncray.room.C.m (line 3): 5 blocks inside each other, 4 are allowed"


def test_an_elif_stands_beside_its_if(tmp_path: Path) -> None:
    chain = "if a:\n    pass\n" + "elif b:\n    pass\n" * 10 + "else:\n    if c:\n        pass\n    pass\n"
    ((_, function),) = budgets.functions(module_of(tmp_path, function_with_body(chain)))
    assert budgets.nesting(function) == 2


def test_a_nested_function_begins_anew(tmp_path: Path) -> None:
    body = """
        if a:
            if b:
                def g() -> None:
                    if c:
                        if d:
                            if e:
                                pass
    """
    module = module_of(tmp_path, function_with_body(body))
    assert [budgets.nesting(function) for _, function in budgets.functions(module)] == [2, 3]


def test_parameters_are_counted_without_self(tmp_path: Path) -> None:
    names = ", ".join(f"p{number}: int" for number in range(8))
    assert list(budgets.oversized(module_of(tmp_path, f"class C:\n    def m(self, {names}): ...\n"))) == []
    (line,) = budgets.oversized(module_of(tmp_path, f"def f({names}, *, more: int): ...\n"))
    assert line == "asyncray.room.f (line 1): 9 parameters, 8 are allowed"


def test_each_missing_type_is_found(tmp_path: Path) -> None:
    text = "class C:\n    def m(self, a, *b, c: int, **d):\n        def inner() -> None: ...\n"
    assert [line.partition(": ")[2] for line in budgets.unannotated(module_of(tmp_path, text))] == [
        "a has no type",
        "b has no type",
        "d has no type",
        "what it returns has no type",
    ]


def test_each_missing_docstring_of_something_public_is_found(tmp_path: Path) -> None:
    text = '''
        class C:
            """A class."""
            def bare(self): ...
            def told(self):
                """Tell."""
            @override
            def told_above(self): ...
            def _private(self): ...
        class _Private:
            def bare(self): ...
        def bare(): ...
    '''
    assert [line.partition(" ")[0] for line in budgets.undocumented(package_of(tmp_path, text))] == [
        "asyncray.room:",
        "asyncray.room.bare",
        "asyncray.room.C.bare",
    ]


def test_what_an_interface_documents_need_not_be_documented_again(tmp_path: Path) -> None:
    text = '''
        """A room."""
        class Waiter(Protocol):
            """Waits."""
            def notify(self):
                """Tell the waiter."""
            def again(self):
                """Tell it again."""
        class Base:
            """A base."""
            def close(self):
                """Close."""
        class Bell(Base):
            """Fulfils the protocol, and has a base."""
            def notify(self): ...
            def close(self): ...
            def ring(self): ...
            again = notify
        class Deaf:
            """Neither."""
            def close(self): ...
    '''
    assert [line.partition(" ")[0] for line in budgets.undocumented(package_of(tmp_path, text))] == [
        "asyncray.room.Bell.ring",
        "asyncray.room.Deaf.close",
    ]
