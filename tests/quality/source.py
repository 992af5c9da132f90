"""A package as text: its modules, and where each of their imports points."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """One file of a package."""

    #: Dotted name from the package's root on: `asyncray.wire.frames`.
    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is the `__init__.py` of its folder."""
        return self.path.name == "__init__.py"


@dataclass(frozen=True, slots=True)
class Import:
    """One module that another imports when it runs; imports for the type checker alone are left out."""

    importer: str
    #: Dotted name of a module of the package where there is such a module, else what the statement names.
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


class Package:
    """All modules of a package, by name."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.modules = {module.name: module for module in _read(folder)}

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def imports(self) -> Iterator[Import]:
        """Yield every import of every module, those inside functions too."""
        for module in self:
            for node in run_time_nodes(module.tree):
                for target in self._targets(module, node):
                    yield Import(module.name, target, getattr(node, "lineno", 0))

    def _targets(self, module: Module, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (self._nearest(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, "." * node.level + (node.module or ""))
            yield from (self._nearest(f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield self._nearest(_absolute(module, first.value))

    def _nearest(self, name: str) -> str:
        """Return the module that a dotted name lies in; the name itself where it is not of this package."""
        head = name
        while head and head not in self.modules:
            head = head.rpartition(".")[0]
        return head or name


def _read(folder: Path) -> Iterator[Module]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        text = path.read_text()
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(name, path, text, ast.parse(text, filename=str(path)))


def _absolute(module: Module, name: str) -> str:
    """Resolve a relative name (`..wire.frames`), as an import statement of that module does."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    parts = module.name.split(".")
    up = dots - 1 if module.is_package else dots
    return ".".join([*parts[: len(parts) - up], *filter(None, [name[dots:]])])


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below this one, without the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and ast.unparse(child.test).rpartition(".")[2] == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from run_time_nodes(other)
        else:
            yield from run_time_nodes(child)


def assert_none(findings: Iterable[str]) -> None:
    """Fail with every line of what a checker found."""
    found = list(findings)
    assert not found, "\n".join([f"{len(found)} found:", *found])


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write a small package for a test of a checker; missing `__init__.py` files are made up."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    return folder
