"""How large things may be, and what exceeds that.

Body: lines of a function without its docstring. Nesting: how deep `if`, `for`, `while`, `with`, `try` and
`match` stand inside each other in one function; an `elif` stands beside its `if`, a nested function counts
for itself. Parameters: named ones, without `self` and `cls`.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from .source import Function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .source import Module, Package

    Scope = ast.Module | ast.ClassDef

BODY_LINES = 60
NESTING = 4
FILE_LINES = 600
PARAMETERS = 8

#: Functions with more parameters, because Ray's have them: their names and defaults are the contract.
MIRRORS_RAY: dict[str, str] = {}

_LOOPS = ast.For | ast.While | ast.AsyncFor
_BLOCKS = _LOOPS | ast.If | ast.Match | ast.Try | ast.TryStar | ast.With | ast.AsyncWith


def oversized(module: Module) -> Iterator[str]:
    """Yield one line for each function, and for the file itself, that is larger than its budget."""
    lines = module.text.count("\n")
    if lines > FILE_LINES:
        yield f"{module.name}: {lines} lines in one file, {FILE_LINES} are allowed"
    for name, function in functions(module):
        where = f"{name} (line {function.lineno})"
        if (size := body_lines(function)) > BODY_LINES:
            yield f"{where}: a body of {size} lines, {BODY_LINES} are allowed"
        if (depth := nesting(function)) > NESTING:
            yield f"{where}: {depth} blocks inside each other, {NESTING} are allowed"
        if (count := len(parameters(function))) > PARAMETERS and name not in MIRRORS_RAY:
            yield f"{where}: {count} parameters, {PARAMETERS} are allowed"


def unannotated(module: Module) -> Iterator[str]:
    """Yield one line for each parameter and each return value without a type."""
    for name, function in functions(module):
        where = f"{name} (line {function.lineno})"
        spread = [arg for arg in (function.args.vararg, function.args.kwarg) if arg]
        for arg in [*parameters(function), *spread]:
            if arg.annotation is None:
                yield f"{where}: {arg.arg} has no type"
        if function.returns is None:
            yield f"{where}: what it returns has no type"


def undocumented(package: Package) -> Iterator[str]:
    """Yield one line for each file, public class and public function without a docstring.

    A method needs none where its class implements an interface of the package, a protocol or a base class,
    that documents it: it would only say the same again.
    """
    classes = {node.name: node for module in package for node in _classes(module.tree)}
    for module in package:
        if not ast.get_docstring(module.tree):
            yield f"{module.name}: no docstring"
        for prefix, node in _public_scopes(module.name, module.tree):
            promised = _promised(node, classes) if isinstance(node, ast.ClassDef) else set()
            for child in _public_definitions(node):
                if child.name not in promised and not _is_documented(child):
                    yield f"{prefix}.{child.name} (line {child.lineno}): no docstring"


def _public_scopes(prefix: str, node: Scope) -> Iterator[tuple[str, Scope]]:
    """Yield the module and each public class in it, with dotted names."""
    yield prefix, node
    for child in _public_definitions(node):
        if isinstance(child, ast.ClassDef):
            yield from _public_scopes(f"{prefix}.{child.name}", child)


def _public_definitions(node: Scope) -> Iterator[Function | ast.ClassDef]:
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            yield child


def _is_documented(node: Function | ast.ClassDef) -> bool:
    """Whether there is a docstring, here or at the implementation of an overload, or at a setter's getter."""
    elsewhere = not _decorators(node).isdisjoint({"overload", "override", "setter", "deleter"})
    return elsewhere or ast.get_docstring(node) is not None


def _promised(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """Return the methods that the interfaces of a class document."""
    own = _methods(node).keys() | _aliases(node)
    protocols = [other for other in classes.values() if "Protocol" in _bases(other) and other is not node]
    fulfilled = [other for other in protocols if _methods(other).keys() <= own]
    bases = [classes[name] for name in _bases(node) if name in classes and classes[name] is not node]
    documented = {name for other in [*fulfilled, *bases] for name, told in _methods(other).items() if told}
    return documented.union(*(_promised(base, classes) for base in bases))


def _methods(node: ast.ClassDef) -> dict[str, bool]:
    """Return the names of the public methods, and whether each has a docstring."""
    found = [child for child in _public_definitions(node) if isinstance(child, Function)]
    return {child.name: _is_documented(child) for child in found}


def _aliases(node: ast.ClassDef) -> set[str]:
    """Return what the class body assigns: `resume = start` is a method too."""
    assigned = [child for child in node.body if isinstance(child, ast.Assign)]
    return {ast.unparse(target) for child in assigned for target in child.targets}


def _bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}


def _classes(node: ast.AST) -> Iterator[ast.ClassDef]:
    return (child for child in ast.walk(node) if isinstance(child, ast.ClassDef))


def _decorators(node: Function | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}


def functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Yield every function with its dotted name, methods and nested functions too, overloads not."""
    yield from _functions(module.name, module.tree)


def _functions(prefix: str, node: ast.AST) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef):
            yield from _functions(prefix, child)
            continue
        name = f"{prefix}.{child.name}"
        if isinstance(child, Function) and "overload" not in _decorators(child):
            yield name, child
        yield from _functions(name, child)


def body_lines(function: Function) -> int:
    """Return the number of lines from the first statement to the last, the docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def nesting(node: ast.AST) -> int:
    """Return how many blocks stand inside each other at the deepest point below a node."""
    return max((_depth(child) for child in ast.iter_child_nodes(node)), default=0)


def _depth(node: ast.AST) -> int:
    if isinstance(node, Function | ast.ClassDef | ast.Lambda):
        return 0
    if not isinstance(node, _BLOCKS):
        return nesting(node)
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        below = max((_depth(child) for child in node.body), default=0)
        return max(1 + below, _depth(node.orelse[0]))
    return 1 + nesting(node)


def parameters(function: Function) -> list[ast.arg]:
    """Return the named parameters, without `self` and `cls`."""
    args = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [arg for arg in args if arg.arg not in {"self", "cls"}]
