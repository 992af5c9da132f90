"""Lineage: which task made an object, kept so that the task can run again when the object is lost.

A spec is kept while one of its returns is in scope (somebody holds a reference to it), or while another kept
spec needs one of its returns as an argument. So an argument that nobody refers to any more keeps its spec,
and not its value. What is kept is bounded in bytes: the oldest specs are forgotten first.

Rule 1: whether a spec is kept, and whether its task may run again, is decided here and nowhere else.
Rule 2: nothing here runs user code: what is forgotten is handed back, because dropping it can.
Rule 3: a chain of specs may be as long as memory allows: nothing here calls itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .tasks import Task

# Why a task does not run again.
#: It may not run twice: max_retries=0.
DISABLED: Final = 1
#: Its retries are used up.
USED_UP: Final = 2
#: Its spec was forgotten, because all together took too much memory.
EVICTED: Final = 3
#: It was a call of an actor, whose state has changed since.
ACTOR: Final = 4


class Spec:
    """What is remembered of one task.

    Args:
        name: The task's name.
        returns: The numbers of its returns.
        call: All that is needed to call for it again; None where it never will be.
        parents: The specs of its arguments.
        size_bytes: About how much memory it takes.
        retries: Runs that are left; -1 is without end.
        reason: Why it does not run again; 0 where it may.
    """

    __slots__ = (
        "attempt", "call", "children", "in_scope", "name", "parents", "reason", "retries", "returns",
        "running", "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        returns: Sequence[int],
        call: Any,
        *,
        parents: Sequence[Spec] = (),
        size_bytes: int = 0,
        retries: int = 0,
        reason: int = 0,
    ) -> None:
        self.name = name
        self.returns = returns
        self.call = call
        self.parents = parents
        self.size_bytes = size_bytes
        self.retries = retries
        self.reason = reason
        #: Runs that have ended, less one.
        self.attempt = 0
        #: Returns that are in scope.
        self.in_scope = 0
        #: Kept specs that have it among their parents.
        self.children = 0
        #: The run under way that makes its returns again; None iff there is none.
        self.running: Task | None = None

    def place(self, number: int) -> int:
        """Which of what the task makes has a number."""
        return self.returns.index(number)

    def put_back(self, number: int, place: int) -> None:
        """What was dropped is in scope again."""

    def dropped(self, number: int) -> None:
        """One of what the task made is not in scope any more."""


class Lineage:
    """The specs of one owner.

    Args:
        most_bytes: Memory that they may take together.
    """

    __slots__ = ("_kept", "most_bytes", "size_bytes", "specs")

    def __init__(self, most_bytes: int = 0) -> None:
        self.most_bytes = most_bytes
        #: By number, for each return in scope of a task that is remembered.
        self.specs: dict[int, Spec] = {}
        #: Those with a call, oldest first.
        self._kept: dict[Spec, None] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, spec: Spec, numbers: Iterable[int]) -> list[Any]:
        """Remember a new spec for those of its returns that are in scope.

        Returns:
            The calls that had to be forgotten for it.
        """
        for number in numbers:
            self.hold(number, spec)
        if spec.call is None:
            return []
        for parent in spec.parents:
            parent.children += 1
        self._kept[spec] = None
        self.size_bytes += spec.size_bytes
        garbage: list[Any] = []
        while self.size_bytes > self.most_bytes:
            oldest = next(iter(self._kept))
            oldest.reason = EVICTED
            self._forget(oldest, garbage)
        return garbage

    def hold(self, number: int, spec: Spec) -> None:
        """A return of a task that is remembered is in scope, or again."""
        self.specs[number] = spec
        spec.in_scope += 1

    def let_go(self, number: int) -> list[Any]:
        """A return is not in scope any more, or will never be made again. Unknown ones change nothing.

        Returns:
            The calls that nobody needs any more.
        """
        spec = self.specs.pop(number, None)
        garbage: list[Any] = []
        if spec is not None:
            spec.in_scope -= 1
            spec.dropped(number)
            if not spec.in_scope and not spec.children:
                self._forget(spec, garbage)
        return garbage

    def begin(self, spec: Spec) -> int:
        """Take a run of a task; returns why it may not run again, or 0."""
        if spec.call is None:
            return spec.reason or EVICTED
        if spec.retries == 0:
            return USED_UP
        if spec.retries > 0:
            spec.retries -= 1
        spec.attempt += 1
        return 0

    def validate(self) -> None:
        """Assert every invariant; for tests and debugging."""
        in_scope: dict[Spec, int] = {}
        children: dict[Spec, int] = {}
        for number, spec in self.specs.items():
            spec.place(number)
            in_scope[spec] = in_scope.get(spec, 0) + 1
        for spec in self._kept:
            assert spec.call is not None
            for parent in spec.parents:
                children[parent] = children.get(parent, 0) + 1
        for spec in {**self._kept, **in_scope}:
            assert spec.in_scope == in_scope.get(spec, 0)
            assert spec.children == children.get(spec, 0)
        for spec in self._kept:
            assert spec.in_scope or spec.children, spec.name
        assert self.size_bytes == sum(spec.size_bytes for spec in self._kept) <= self.most_bytes

    def _forget(self, spec: Spec, garbage: list[Any]) -> None:
        """Forget a spec, and those that it alone had needed."""
        doomed = [spec]
        while doomed:
            spec = doomed.pop()
            if spec not in self._kept:
                continue
            del self._kept[spec]
            self.size_bytes -= spec.size_bytes
            garbage.append(spec.call)
            parents, spec.parents, spec.call = spec.parents, (), None
            for parent in parents:
                parent.children -= 1
                if not parent.children and not parent.in_scope:
                    doomed.append(parent)
