"""Messages that are well framed and wrong: anything at all, and what is almost right."""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import strategies as st

from asyncray.wire import messages as m
from tests.net.rigs import PAGE, PEER, UNITS


def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is right, so often that what comes behind it is heard, too."""
    return st.integers(0, 15).flatmap(lambda which: good if which else bad)


# --- fields -----------------------------------------------------------------------------------------------

FEW = st.integers(0, 8) | st.integers(0, 20)
NUMBERS = mostly(FEW, st.integers(-2, 0) | st.sampled_from([2**31, 2**63 - 1, 2**64 - 1, -(2**63)]))
ATOMS = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
ANYTHING = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
WORKERS = [b"w" * 16, b"v" * 16, b"h" * 16]
PROCESSES = st.sampled_from([b"", b"o" * 16, PEER.process_id, *WORKERS, b"0000000000000001", b"x"])
PLACES_OF = st.sampled_from(["", "peer"])
ADDRESSES = mostly(st.tuples(PROCESSES, PLACES_OF, NUMBERS).map(list), ANYTHING)
PICKLED: list[Any] = [1, ([], {}), ([1], {}), ValueError("x"), (1, 2, 3)]
PICKLES = st.sampled_from([b"", b"junk", *(pickle.dumps(value, 5) for value in PICKLED)])
#: Where extents of a store begin, or almost.
STARTS = mostly(
    st.sampled_from([0, PAGE, 2 * PAGE, 3 * PAGE]), st.sampled_from([64, 1 << 20, 1 << 30]) | NUMBERS
)
SIZES = mostly(st.sampled_from([PAGE, 2 * PAGE]), st.sampled_from([1, 1 << 20]) | NUMBERS)
PARTS = st.lists(st.integers(0, 64) | SIZES, max_size=2)
STORED = st.tuples(STARTS, SIZES, st.integers(0, 64) | SIZES, PARTS, st.lists(ADDRESSES, max_size=1)).map(
    list
)
ENCODED = st.tuples(
    PICKLES, mostly(st.just(0), st.integers(-1, 2)), mostly(st.lists(ADDRESSES, max_size=2), ANYTHING)
).map(list)
PAYLOADS = mostly(ATOMS | PICKLES | PICKLES | ENCODED | STORED, ANYTHING)
ARGUMENTS = ANYTHING | PAYLOADS | PAYLOADS.map(lambda payload: [payload])
PLACES = st.lists(
    st.tuples(st.integers(-3, 3) | st.text(max_size=2) | ANYTHING, PAYLOADS | ARGUMENTS).map(list), max_size=2
)
LIFE = st.integers(-1, 6)
LIGHTS = mostly(st.integers(1, 2) | LIFE | st.tuples(PROCESSES, LIFE).map(list), ANYTHING)
SHAPES = (
    st.tuples(
        st.just("Thing"),
        st.dictionaries(st.sampled_from(["m", "g"]) | ATOMS, st.sampled_from(["", "io"]) | ATOMS, max_size=2),
        st.booleans(),
        st.integers(-1, 3) | NUMBERS,
        st.dictionaries(st.sampled_from(["io", "x"]) | ATOMS, st.integers(-1, 2) | ANYTHING, max_size=2),
        PICKLES,
    ).map(list)
    | ANYTHING
)
NAMES = mostly(st.none() | st.just(["space", "name"]), st.lists(ATOMS, max_size=3) | ANYTHING)
ACTORS = st.fixed_dictionaries(
    {},
    optional={
        "where": ADDRESSES,
        "shape": SHAPES,
        "name": NAMES,
        "life": mostly(NUMBERS, ANYTHING),
    },
)
MADE = st.fixed_dictionaries(
    {
        "where": st.just([PEER.process_id, "peer", 1]),
        "shape": st.sampled_from(
            [["A", {}, False, 1, {}, b""], ["A", {}, True, 2, {"io": 1}, b""], ["A", {}, False, 2, {}, b""]]
        ),
        "name": st.none(),
        "life": FEW,
    }
)
ODD_EXTRAS = ANYTHING | st.fixed_dictionaries(
    {},
    optional={
        "light": LIGHTS,
        "actor": ACTORS | ANYTHING,
        "name": NAMES,
        "life": mostly(NUMBERS, ANYTHING),
        "again": st.booleans() | ANYTHING,
        "stream": st.lists(NUMBERS, min_size=3, max_size=3) | ANYTHING,
        "whole": st.booleans() | ANYTHING,
        "forsaken": st.booleans(),
        "remaining": st.floats() | NUMBERS,
        "carried": st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2) | ANYTHING,
    },
)
EXTRAS = mostly(
    st.fixed_dictionaries({"actor": MADE})
    | st.fixed_dictionaries({"light": LIGHTS}, optional={"again": st.just(True), "whole": st.just(True)})
    | st.fixed_dictionaries({"light": LIGHTS}, optional={"life": FEW, "name": NAMES}),
    ODD_EXTRAS,
)
STATES = mostly(st.integers(0, 5), st.integers(-1, 7) | ANYTHING)
SITES = st.tuples(
    st.binary(max_size=3), NUMBERS, PLACES_OF, NUMBERS, st.lists(PROCESSES, max_size=2), PLACES_OF
)
ROWS: dict[str, st.SearchStrategy[Any]] = {
    "TASKS": st.tuples(
        mostly(FEW, NUMBERS),
        mostly(st.integers(1, 7), ANYTHING),
        mostly(st.none(), ARGUMENTS),
        mostly(st.none(), PLACES | ANYTHING),
        mostly(EXTRAS, st.none()),
    ),
    "RESULTS": st.tuples(NUMBERS, st.just(m.OK), st.none() | PICKLES)
    | st.tuples(NUMBERS, st.sampled_from([m.OK, m.ERROR, m.CANCELLED]), PAYLOADS)
    | st.tuples(NUMBERS, st.just(m.MANY), st.lists(PAYLOADS, max_size=3))
    | st.tuples(NUMBERS, st.integers(0, 6) | ANYTHING, PAYLOADS),
    "VALUES": st.tuples(NUMBERS, mostly(st.integers(0, 5), ANYTHING), PAYLOADS),
    "LIGHT_ENDED": st.tuples(
        NUMBERS, mostly(st.integers(-1, 3), ANYTHING), mostly(st.text(max_size=3), ANYTHING)
    ),
    "LIGHT_AT": st.tuples(NUMBERS, STATES, mostly(st.none() | PICKLES, ANYTHING)),
    "EXTENTS": st.tuples(STARTS, SIZES),
    "TOLD": SITES,
}
#: What the lists in a message hold, by its name and the field's place.
LISTS: dict[tuple[str, int], st.SearchStrategy[Any]] = {
    ("GONE", 1): PROCESSES,
    ("ITEMS", 2): PAYLOADS,
    **dict.fromkeys([("GONE", 2), ("GIVE", 0), ("SETTLED", 1), ("SETTLED", 2), ("RECYCLE", 0)], STARTS),
}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "returns": st.integers(0, 2) | ANYTHING,
        "max_calls": st.integers(0, 2) | ANYTHING,
        "retry": st.booleans() | PICKLES | ANYTHING,
        "resources": st.dictionaries(st.text(max_size=3), st.floats(), max_size=2) | ANYTHING,
        "refs": st.lists(ADDRESSES, max_size=2) | ANYTHING,
        "name": st.text(max_size=3) | ANYTHING,
        "constructs": st.booleans() | ANYTHING,
        "light": st.booleans() | SHAPES,
        "method": st.sampled_from(["m", "g", "__ray_terminate__"]) | ANYTHING,
        "group": st.sampled_from(["", "io"]) | ANYTHING,
        "stream": NUMBERS | ANYTHING,
        "stream_bytes": NUMBERS | ANYTHING,
        "per_yield": st.integers(-1, 3) | ANYTHING,
        "environment": st.binary(max_size=2) | ANYTHING,
        "host": NUMBERS | ANYTHING,
    },
)
UNITS_BY_NAME = st.dictionaries(
    st.sampled_from(["CPU", "GPU", "x"]),
    st.sampled_from([0, 1, UNITS, 2 * UNITS, 15_000, -1]) | ATOMS,
    max_size=2,
)
ENVIRONMENTS = st.sampled_from([b"", b"\x80", b"\xc1", b"\x81\xa8env_vars\x90"])
DESCRIPTIONS = st.tuples(
    st.sampled_from(["sync", "async", "host", "other"]) | ANYTHING,
    UNITS_BY_NAME | ANYTHING,
    ENVIRONMENTS | ANYTHING,
    st.booleans() | ANYTHING,
).map(list)
QUESTIONS = [
    "available_resources", "workers", "store", "waiting", "objects", "keeper", "wind_up", "claim_name",
    "find_name", "list_names", "calls", "survey",
]  # fmt: skip
WORDS = ["", "worker", "peer", "runtime_env: bad", "stdout", "killed", "died", "retired", "environment"]
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    str: st.sampled_from([*WORDS, *QUESTIONS]),
    bytes: PROCESSES | PROCESSES | PICKLES | ENVIRONMENTS,
    bool: st.booleans(),
    dict: OPTIONS | st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2),
    list: DESCRIPTIONS | st.lists(NUMBERS | ANYTHING, max_size=3),
    object: NUMBERS
    | ANYTHING
    | st.lists(NUMBERS, max_size=2)
    | st.tuples(st.just("a"), st.just("b"), NUMBERS, PICKLES).map(list),
    m._NUMBER: st.floats(0, 10) | NUMBERS,
    m._SIGNED: st.floats() | NUMBERS,
    m._SIGNED_OR_NONE: st.floats() | NUMBERS | st.none(),
    (list, type(None)): DESCRIPTIONS | st.none(),
    (bytes, type(None)): PICKLES | st.none(),
}

# --- messages ---------------------------------------------------------------------------------------------


def lists_of(name: str, at: int) -> st.SearchStrategy[Any]:
    """Rows as the message has them, and others."""
    if name == "TOLD":
        return mostly(st.tuples(NUMBERS, ROWS[name].map(list)).map(list), st.lists(ANYTHING, max_size=2))
    if name in ROWS:
        return mostly(st.lists(ROWS[name].map(list), max_size=3), FIELDS[list])
    return mostly(
        st.lists(LISTS.get((name, at), NUMBERS), max_size=3), st.lists(NUMBERS | ANYTHING, max_size=3)
    )


def message_of(number: int) -> st.SearchStrategy[list[Any]]:
    """A message with fields of the right types."""
    name, types = m.SCHEMAS[number]
    fields = [lists_of(name, at) if kind is list else FIELDS[kind] for at, kind in enumerate(types)]
    return st.tuples(st.just(number), *fields).map(list)


WELL_TYPED = st.sampled_from(sorted(m.SCHEMAS)).flatmap(message_of)
MESSAGES = (
    WELL_TYPED
    | st.tuples(st.integers(-1, max(m.SCHEMAS) + 2)).map(list)
    | st.lists(ANYTHING).map(lambda rest: [3, *rest])
)
#: What each receiver handles.
PEERS = [
    m.GET, m.VALUES, m.BORROW, m.BORROWED, m.RELEASE, m.UNPIN, m.CANCEL_OBJECT, m.RECYCLE,
    m.ENDED, m.INQUIRE, m.REPLY, m.ACTOR_WHERE, m.ACTOR_AT, m.ACTOR_KILL, m.LIGHT_WHERE, m.LIGHT_AT,
]  # fmt: skip
TO_NODE = [
    m.WANT, m.RANK, m.RETURN, m.KILL, m.BLOCKED, m.KEEP, m.ASK, m.LOGGED, m.REGISTER, m.BROKEN, m.STALLED,
    m.NEED, m.GIVE, m.SETTLED, m.SPILLED, m.TOLD, m.NAME_FREE, m.HOST_WANTED, m.HOST_END, m.WINDS_UP,
    m.WOUND_UP,
]  # fmt: skip
TO_DRIVER = [
    m.GRANT, m.LOST, m.WANTED, m.DENIED, m.ANSWER, m.OUTBID, m.RANKED, m.STALLED, m.KEEPER_WANTED, m.HOST_AT,
    m.HOST_LOST, m.HOST_DENIED, m.WIND_UP, m.EXTENTS, m.FULL, m.RECLAIM, m.GONE, m.SPILL, m.TELL,
]  # fmt: skip
FROM_WORKER = [m.RESULTS, m.HANDBACK, m.ITEMS, m.ACTOR_LEAVES]
FROM_HOST = [m.RESULTS, m.ITEMS, m.LIGHT_GONE, m.LIGHT_ENDED]
TO_WORKER = [m.DESCRIBE, m.TASKS, m.FORGET, m.RECYCLE, m.CREDIT]
TO_HOST = [m.TASKS, m.TASKS, m.TASKS, m.LIGHT_END, *TO_WORKER]
WORKERS_PEERS = [*PEERS, m.RECALL, m.CANCEL, m.CANCEL, m.CANCEL]


def said_on(*expected: list[int]) -> st.SearchStrategy[Any]:
    """Things to say, each on one of several connections: mostly a message that is expected there."""

    def on(which: int) -> st.SearchStrategy[Any]:
        message = st.sampled_from(expected[which]).flatmap(message_of)
        buffers = st.lists(st.binary(max_size=3), max_size=2)
        return st.tuples(st.just(which), mostly(message, MESSAGES), buffers, st.booleans())

    return st.lists(st.integers(0, len(expected) - 1).flatmap(on), max_size=20)
