"""Every tunable, with its unit and its reason; the only reader of environment variables.

`ASYNCRAY_INLINE_LIMIT_BYTES=0` in the environment sets `inline_limit_bytes`, and so on for each field.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from .validation import Rule, number, shown, unknown, whole

_PREFIX = "ASYNCRAY_"
_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All tunables of a session. The driver makes it once; every process of the session gets the same one."""

    #: Bytes up to which a value travels in the message and lives in its owner's memory. Ray's limit.
    inline_limit_bytes: int = 100 * _KIB
    #: Bytes of the largest frame accepted; a longer one closes its connection. A signed 32-bit length.
    max_frame_bytes: int = 2**31 - 1

    #: Seconds without progress after which a worker's unstarted tasks are recalled, to run elsewhere.
    recall_after_s: float = 0.010
    #: Seconds an owner keeps the lease of an idle worker: the next call of a loop then costs no grant.
    lease_keep_s: float = 0.5
    #: Seconds after which an idle worker retires, where there are more of them than CPUs.
    worker_idle_s: float = 1.0
    #: Coroutines of `async def` tasks that share one worker and its CPU at a time.
    max_coroutines_per_worker: int = 1000
    #: Tasks sent ahead to one worker, at most: bounds what a recall moves and what a crash repeats.
    max_pipeline: int = 512
    #: Seconds of work to send ahead to one worker: enough to hide a round trip, too little to hold tasks up.
    pipeline_target_s: float = 0.004

    #: Seconds a process may take to start before it counts as failed: slow disks, big preloads.
    start_timeout_s: float = 60.0
    #: Seconds after which a call that still waits for the same has the session look for tasks that wait for
    #: each other; 0 is never. As long as people wait before they wonder; a look costs milliseconds.
    wait_check_s: float = 5.0
    #: Seconds that `explain` and `wait_graph` take at most; who has not answered by then is named.
    explain_timeout_s: float = 2.0
    #: Seconds that cancelled or stopping work has for its cleanup before its worker is killed.
    cancel_grace_s: float = 2.0

    #: Seconds of waiting that are worth one level of priority, so that nobody waits for ever: with -100 to
    #: 100 a task is overtaken by those that come within 3 hours and 20 minutes, and by no later ones.
    priority_ageing_s: float = 60.0

    #: Fraction of the memory in use above which the newest retriable task is killed, before the kernel acts.
    memory_threshold: float = 0.95
    #: Bytes that count as all of the memory; 0 is the machine's, or its control group's. Tests lower it.
    memory_limit_bytes: int = 0
    #: Seconds between two looks at the memory in use.
    memory_poll_s: float = 0.25
    #: Bytes reckoned for a further worker when memory sets the ceiling of worker processes. Twice what an
    #: idle one adds; 200 blocked levels of nesting then fit in 4 GiB.
    worker_memory_estimate_bytes: int = 16 * _MIB

    #: Fraction of the object store in use above which objects that nobody reads are put on disk.
    spill_threshold: float = 0.8
    #: Fraction of the disk in use above which nothing more is put there.
    disk_threshold: float = 0.95
    #: Seconds that a put waits for room in a full store, when nothing more can be put on disk: somebody may
    #: be about to free some.
    store_patience_s: float = 2.0

    #: Bytes of memory that an owner's notes may take of how to make objects in the store again; above it the
    #: oldest are forgotten. Ray's limit.
    max_lineage_bytes: int = 1024 * _MIB

    #: Seconds that memory of the object store lies unused before it goes back to the system: with a process
    #: that has used it for so long to twice as long, and with the node again.
    store_idle_s: float = 10.0

    #: 1: remember which line of the program made each object, for memory_summary; it costs microseconds each.
    record_call_sites: int = 0

    #: Bytes from which an argument passed by value is worth a hint that names `put`.
    large_argument_hint_bytes: int = _MIB
    #: Times the same large argument is passed before that hint.
    large_argument_hint_count: int = 3
    #: Bytes of a pickled function above which there is a warning: it has probably captured data.
    function_warn_bytes: int = 10 * _MIB
    #: Bytes of a pickled function above which it is refused.
    function_max_bytes: int = 100 * _MIB

    #: Bytes of worker output that wait for the driver, per worker; a worker that has filled them is slowed.
    log_buffer_bytes: int = _MIB

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when a value is impossible.
        """
        for name, rule in RULES.items():
            # Past the frozen __setattr__, to keep the resolved form: a float where 1 was given for seconds.
            object.__setattr__(self, name, rule.check(name, getattr(self, name)))
        if self.function_warn_bytes > self.function_max_bytes:
            raise ValueError(
                f"function_warn_bytes must be <= function_max_bytes ({self.function_max_bytes}), "
                f"not {self.function_warn_bytes}"
            )

    @property
    def batch_bytes(self) -> int:
        """Bytes of values after which a frame about many of them is sent, and another begun."""
        return min(16 * _MIB, self.max_frame_bytes // 8)

    @property
    def largest_value_bytes(self) -> int:
        """Bytes of the largest value that fits into a frame, whatever was gathered there before it."""
        return self.max_frame_bytes - 2 * self.batch_bytes

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> "Config":
        """Defaults, changed by environment variables, changed by `overrides`.

        Args:
            environ: The environment; None is this process's. Variables of other names are ignored.
            **overrides: Values by field name.

        Raises:
            TypeError: when an override is of the wrong type.
            ValueError: when a variable or an override is impossible, or an override unknown.
        """
        given = _read(os.environ if environ is None else environ)
        given.update(_known(overrides))
        return cls(**given)  # type: ignore[arg-type]

    def to_wire(self) -> dict[str, int | float]:
        """Every field by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, fields: Mapping[str, object]) -> "Config":
        """Undo `to_wire`.

        Raises:
            TypeError: when a value is of the wrong type.
            ValueError: when a field is unknown, or its value impossible.
        """
        return cls(**_known(fields))  # type: ignore[arg-type]


_SIZE = whole(at_least=0)
_COUNT = whole(at_least=1)
_DELAY = number(at_least=0)
_PERIOD = number(above=0)

#: What each field takes.
RULES: Mapping[str, Rule] = {
    "inline_limit_bytes": whole(at_least=0, at_most=10 * _MIB),
    "max_frame_bytes": whole(at_least=64 * _KIB, at_most=2**31 - 1),
    "recall_after_s": _DELAY,
    "lease_keep_s": _DELAY,
    "worker_idle_s": _DELAY,
    "max_coroutines_per_worker": _COUNT,
    "max_pipeline": _COUNT,
    "pipeline_target_s": _DELAY,
    "start_timeout_s": _PERIOD,
    "wait_check_s": _DELAY,
    "explain_timeout_s": _PERIOD,
    "cancel_grace_s": _DELAY,
    "priority_ageing_s": _PERIOD,
    "memory_threshold": number(above=0, at_most=1),
    "memory_limit_bytes": _SIZE,
    "memory_poll_s": _PERIOD,
    "worker_memory_estimate_bytes": _COUNT,
    "spill_threshold": number(above=0, at_most=1),
    "disk_threshold": number(above=0, at_most=1),
    "store_patience_s": _DELAY,
    "max_lineage_bytes": _SIZE,
    "store_idle_s": _PERIOD,
    "record_call_sites": whole(at_least=0, at_most=1),
    "large_argument_hint_bytes": _SIZE,
    "large_argument_hint_count": _COUNT,
    "function_warn_bytes": _SIZE,
    "function_max_bytes": _SIZE,
    "log_buffer_bytes": whole(at_least=4 * _KIB),
}


def _read(environ: Mapping[str, str]) -> dict[str, object]:
    """The fields that `environ` sets, checked here so that an error names the variable."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    variables = {name: _PREFIX + name.upper() for name in defaults}
    return {
        name: _parse(variable, environ[variable], type(defaults[name]), RULES[name])
        for name, variable in variables.items()
        if variable in environ
    }


def _parse(variable: str, written: str, kind: type, rule: Rule) -> object:
    label = f"environment variable {variable}"
    try:
        value = kind(written)
    except ValueError:
        raise ValueError(f"{label} must be {rule.allowed}, not {shown(written)}") from None
    return rule.check(label, value)


def _known(fields: Mapping[str, object]) -> dict[str, object]:
    for name in fields:
        if name not in RULES:
            raise ValueError(unknown("configuration field", name, RULES, {}))
    return dict(fields)
