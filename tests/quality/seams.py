"""Where the runtime touches the world: reads a clock, draws a random number, opens a socket, ends a process.

A simulation replaces these few rooms and nothing else, so nothing else may touch the world. Time comes from
the event loop, randomness from a seeded generator that is handed in, the network from `net/`, processes from
a spawner.
"""

from __future__ import annotations

import ast
import inspect
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .layers import PRIVATE
from .source import Function, run_time_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from .source import Module, Package

#: The rooms that touch the world, a file or a whole folder, and why each must.
ALLOWED = {
    "asyncray.net": "sockets between processes; a simulation has a network in memory",
    "asyncray.node.spawn": "starts and ends processes; a simulated node is handed another spawner",
    "asyncray.node.remains": "ends what a real node has left; a simulated one leaves nothing",
    "asyncray.node.template": "forks workers; has neither a loop nor a thread",
    "asyncray.programs": "the first and last lines of each real process; a simulation has none",
    "asyncray.node.forks": "the real spawner's wire to its templates: descriptors, wait statuses",
    "asyncray.node.pool": "the real spawner: makes each worker's sockets and pipes; a simulation has another",
    "asyncray.client.bootstrap": "hands a real session its clock",
    "asyncray.client.node_process": "starts the node, before there is anything to simulate",
    "asyncray.worker.main": "the first lines of a worker process: takes its socket, seeds generators",
}

#: What touches the world, by what it touches. A module's name stands for all that is in it.
WORLD = {
    "clock": [
        "time",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "datetime.date.today",
    ],
    "randomness": ["random", "secrets", "uuid", "os.urandom", "os.getrandom"],
    "sockets": [
        "socket",
        "socketserver",
        "asyncio.open_connection",
        "asyncio.open_unix_connection",
        "asyncio.start_server",
        "asyncio.start_unix_server",
    ],
    "processes": [
        "multiprocessing",
        "subprocess",
        "asyncio.create_subprocess_*",
        "concurrent.futures.ProcessPoolExecutor",
        "os._exit",
        "os.abort",
        "os.exec*",
        "os.fork*",
        "os.kill*",
        "os.pidfd_open",
        "os.popen",
        "os.posix_spawn*",
        "os.spawn*",
        "os.system",
        "os.wait*",
        "signal.pidfd_send_signal",
    ],
}

#: Methods of an event loop that touch the world, whatever the loop is called.
LOOP_METHODS = {
    "connect_accepted_socket": "sockets",
    "create_connection": "sockets",
    "create_datagram_endpoint": "sockets",
    "create_server": "sockets",
    "create_unix_connection": "sockets",
    "create_unix_server": "sockets",
    "sock_accept": "sockets",
    "sock_connect": "sockets",
    "subprocess_exec": "processes",
    "subprocess_shell": "processes",
}

#: A generator made from a seed decides the same in every run.
_SEEDED = "random.Random"


def breaches(package: Package) -> Iterator[str]:
    """Yield one line for each place outside the allowed rooms that touches the world."""
    for module in package:
        if not any(_lies_in(module.name, room) for room in ALLOWED):
            yield from touches(module)


def idle_rooms(package: Package) -> Iterator[str]:
    """Yield the allowed rooms that touch nothing: their permission is to be taken back."""
    for room in ALLOWED:
        inside = [module for module in package if _lies_in(module.name, room)]
        if not any(True for module in inside for _ in touches(module)):
            yield room


def touches(module: Module) -> Iterator[str]:
    """Yield one line for each place of a module that touches the world."""
    names = dict(_imported_names(module.tree))
    hints = {id(node) for hint in _type_hints(module.tree) for node in ast.walk(hint)}
    seen: set[tuple[int, str]] = set()
    for node in run_time_nodes(module.tree):
        line = getattr(node, "lineno", 0)
        for what in () if id(node) in hints else _touched(node, names):
            if (line, what) not in seen:
                seen.add((line, what))
                yield f"{module.name}:{line} touches the world: {what} ({_kind(what)})"


def _type_hints(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the annotations: who names the type of a socket does not open one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield node.annotation
        elif isinstance(node, Function) and node.returns:
            yield node.returns


def _touched(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and not node.level:
        found = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in found if _kind(name) and name != _SEEDED)
    elif isinstance(node, ast.Call) and _origin(node.func, names) == _SEEDED:
        if not node.args and not node.keywords:
            yield f"{_SEEDED}() without a seed"
    elif isinstance(node, ast.Attribute | ast.Name):
        name = _origin(node, names)
        if name and name != _SEEDED and _kind(name) and not _is_bare_module(node, name):
            yield name
        elif isinstance(node, ast.Attribute) and node.attr in LOOP_METHODS:
            yield f"loop.{node.attr}"


def _is_bare_module(node: ast.Attribute | ast.Name, name: str) -> bool:
    """Whether the node is the `time` in `time.monotonic`: the attribute, which is a node too, tells more."""
    return isinstance(node, ast.Name) and any(name in patterns for patterns in WORLD.values())


def _kind(name: str) -> str:
    """Return what a dotted name touches; "" for nothing."""
    if name.startswith("loop."):
        return LOOP_METHODS[name.removeprefix("loop.")]
    if name.startswith(_SEEDED):
        return "randomness"
    for kind, patterns in WORLD.items():
        if any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns):
            return kind
    return ""


def _imported_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield what each imported name of a module stands for; imports for the type checker are left out."""
    for node in run_time_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (head, head)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _origin(node: ast.expr, names: dict[str, str]) -> str:
    """Return the dotted name that `t.monotonic` stands for after `import time as t`; "" if it is none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _origin(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _lies_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


#: The rooms whose objects make up a running client, worker, node or head.
_RUNNING = tuple(f"asyncray.{room}" for room in sorted(PRIVATE - {"wire", "state"}))


def parts_of(root: object, rooms: tuple[str, ...] = _RUNNING) -> list[object]:
    """Return an object, and all in the rooms that it holds directly or through others."""
    found: dict[int, object] = {}
    todo = [root]
    while todo:
        value = todo.pop()
        if id(value) not in found and any(_lies_in(type(value).__module__, room) for room in rooms):
            found[id(value)] = value
            todo += [child for held in _attributes(value) for child in _contents(held)]
    return list(found.values())


def holders(modules: Iterable[ModuleType], parts: Iterable[object]) -> Iterator[str]:
    """Yield one line for each global, or attribute of a class, that holds one of the parts."""
    wanted = {id(part) for part in parts}
    for module in modules:
        for name, value in list(vars(module).items()):
            own = inspect.isclass(value) and value.__module__ == module.__name__
            held = [child for inner in vars(value).values() for child in _contents(inner)] if own else []
            for child in [*_contents(value), *held]:
                if id(child) in wanted:
                    yield f"{module.__name__}.{name} holds a {type(child).__name__}"


def _attributes(value: object) -> Iterator[object]:
    yield from getattr(value, "__dict__", {}).values()
    for base in type(value).__mro__:
        slots: Any = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield getattr(value, name, None)


def _contents(value: object) -> Iterator[object]:
    """Yield a value, and what it contains if it is a plain container."""
    yield value
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
