"""What a task asks for and what a node has, in fixed point.

Quantities are whole numbers of 1/10000, so sums are exact and nothing leaks over a million tasks. Memory
counts in bytes.
"""

import math
from collections.abc import Iterator, Mapping

from .exceptions import InternalError
from .validation import Rule, Verdict, is_text, number, shown, whole

#: Units in one CPU, one GPU, one byte, one of anything.
UNITS = 10_000
#: No quantity is as large (as bytes, 100 TB): its units must fit into 64 bits, and so must sums of them.
_MOST = 10**14

_QUANTITY = number(at_least=0)
_BYTES = whole(at_least=0, note=" (bytes)")
_HAS_A_KEYWORD = {
    "CPU": "num_cpus",
    "GPU": "num_gpus",
    "memory": "memory",
    "object_store_memory": "object_store_memory",
}


def to_units(name: str, quantity: object) -> int:
    """A quantity in units of 1/10000, rounded down, so that six tasks of `num_cpus=1/6` fit on one CPU.

    Args:
        name: The option it was given for.
        quantity: A finite number: zero, or at least 0.0001.

    Raises:
        TypeError: when it is not a number.
        ValueError: when it is negative, not finite, a fraction below 0.0001, or more than 64 bits can count.
    """
    value: float = _QUANTITY.check(name, quantity)
    if 0 < value < 1 / UNITS:
        raise ValueError(f"{name} must be 0 or a number >= 0.0001, not {shown(quantity)}")
    if value >= _MOST:
        raise ValueError(f"{name} must be below {_MOST}, not {shown(quantity)}")
    if isinstance(value, int):
        return value * UNITS
    # 0.0003 * 10000 is 2.9999999999999996 in floating point, and means 3.
    return math.floor(value * UNITS + 1e-6)


class Resources(Mapping[str, int]):
    """An immutable vector of resources: units (1/10000) by name, without zeros. Equal vectors hash the same.

    Args:
        units: Units by name, each >= 0.

    Raises:
        ValueError: when a quantity is negative.
    """

    __slots__ = ("_hash", "_units")

    def __init__(self, units: Mapping[str, int] | None = None) -> None:
        self._units = {name: amount for name, amount in sorted((units or {}).items()) if amount}
        self._hash = hash(tuple(self._units.items()))
        if any(amount < 0 for amount in self._units.values()):
            raise ValueError(f"resources cannot be negative: {self.to_floats()}")

    @classmethod
    def from_options(
        cls,
        num_cpus: float = 0,
        num_gpus: float = 0,
        memory: int = 0,
        resources: Mapping[str, float] | None = None,
    ) -> "Resources":
        """The vector for the options of these names.

        Raises:
            TypeError: when a quantity is not a number, or `resources` not a dict with strings for keys.
            ValueError: when a quantity is negative or a fraction below 0.0001, when GPUs above one are not
                whole, or when `resources` names what has a keyword of its own.
        """
        custom: dict[str, float] = CUSTOM_RESOURCES.check("resources", resources or {})
        units = {name: to_units(name, quantity) for name, quantity in custom.items()}
        units["CPU"] = to_units("num_cpus", num_cpus)
        units["GPU"] = to_units("num_gpus", num_gpus)
        units["memory"] = to_units("memory", _BYTES.check("memory", memory))
        if units["GPU"] > UNITS and units["GPU"] % UNITS:
            raise ValueError(f"num_gpus must be a whole number when above 1, not {num_gpus}")
        return cls(units)

    @classmethod
    def from_wire(cls, units: Mapping[str, int]) -> "Resources":
        """Undo `to_wire`."""
        return cls(units)

    def to_wire(self) -> dict[str, int]:
        """Units by name."""
        return dict(self._units)

    def to_floats(self) -> dict[str, float]:
        """Quantities by name as users read them: CPUs, GPUs, bytes."""
        return {name: amount / UNITS for name, amount in self._units.items()}

    def fits(self, available: Mapping[str, int]) -> bool:
        """Whether all of it can be taken from `available` (units by name; what is not named is zero)."""
        return all(available.get(name, 0) >= amount for name, amount in self._units.items())

    def add(self, other: "Resources") -> "Resources":
        """The sum."""
        return Resources({name: self.get(name, 0) + other.get(name, 0) for name in {**self, **other}})

    def subtract(self, other: "Resources") -> "Resources":
        """What is left without `other`.

        Raises:
            ValueError: when `other` does not fit.
        """
        return Resources({name: self.get(name, 0) - other.get(name, 0) for name in {**self, **other}})

    def only(self, *names: str) -> "Resources":
        """The part with these names: what a blocked task gives back is `only("CPU")`."""
        return Resources({name: amount for name, amount in self._units.items() if name in names})

    def __getitem__(self, name: str) -> int:
        return self._units[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resources):
            return NotImplemented
        return self._hash == other._hash and self._units == other._units

    def __reduce__(self) -> tuple[type["Resources"], tuple[dict[str, int]]]:
        return Resources, (self._units,)  # hashes of strings differ between processes

    def __repr__(self) -> str:
        return f"Resources({describe(self)})"


class NodeResources:
    """What a node has and what of it is free.

    Invariant: `available[name] <= total[name]` for every name. Below zero means oversubscribed.

    Args:
        total: What the node has.
    """

    __slots__ = ("available", "total")

    def __init__(self, total: Resources) -> None:
        self.total = total
        #: Units by name.
        self.available: dict[str, int] = dict(total)

    def feasible(self, demand: Resources) -> bool:
        """Whether the node could ever grant it."""
        return demand.fits(self.total)

    def acquire(self, demand: Resources, *, force: bool = False) -> bool:
        """Take all of it, or nothing.

        Args:
            demand: What to take.
            force: Take it even where it is not free: a task that gave its CPU away to block resumes now.

        Returns:
            Whether it was taken.
        """
        if not force and not demand.fits(self.available):
            return False
        for name, amount in demand.items():
            self.available[name] = self.available.get(name, 0) - amount
        return True

    def release(self, demand: Resources) -> None:
        """Give back what was acquired.

        Raises:
            InternalError: when more would be free than there is; nothing is given back then.
        """
        after = {name: self.available.get(name, 0) + amount for name, amount in demand.items()}
        if any(amount > self.total.get(name, 0) for name, amount in after.items()):
            raise InternalError(f"released {demand!r} that was not acquired from {self!r}")
        self.available.update(after)

    def __repr__(self) -> str:
        return f"<NodeResources {describe(self.available)} free of {describe(self.total)}>"


def _accept_custom(resources: object) -> object:
    if not isinstance(resources, Mapping) or not all(isinstance(name, str) for name in resources):
        return Verdict.WRONG_TYPE
    for name, quantity in resources.items():
        if not is_text(name):
            return Verdict.NO_TEXT
        if name in _HAS_A_KEYWORD:
            raise ValueError(
                f"resources cannot have {name!r}; use the keyword {_HAS_A_KEYWORD[name]}= for it"
            )
        to_units(f"resources[{name!r}]", quantity)
    return dict(resources) if all(resources) else Verdict.IMPOSSIBLE


#: The option `resources=`.
CUSTOM_RESOURCES = Rule("a dict of names that are not empty to numbers", _accept_custom)


def describe(units: Mapping[str, int]) -> str:
    """Units by name as a reader wants them: "CPU: 2, GPU: 0.5"."""
    return ", ".join(f"{name}: {amount / UNITS:.15g}" for name, amount in units.items())
