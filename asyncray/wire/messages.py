"""Every message that crosses a process boundary: its number, its fields, and their types.

A message is a list: its number, then its fields in the order given here. Messages about many things carry
lists, so that a thousand results are one frame and one wake-up.

Rule 1: check() runs on everything that arrives; handlers may rely on the fields it promises.
Rule 2: a peer's message can be wrong in any way; the answer is always ProtocolError, never another error.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from .frames import Message

#: Numbers below belong to the handshake, which checks its own.
FIRST_CHECKED: Final = 10

# --- control: a process and its node ---------------------------------------------------------------------
REGISTER: Final = 10
READY: Final = 11
WANT: Final = 12
GRANT: Final = 13
RETURN: Final = 14
WANTED: Final = 15
LOST: Final = 16
KILL: Final = 17
BLOCKED: Final = 18
RETIRE: Final = 19
KEEP: Final = 20
STOP: Final = 21
LOG: Final = 22
ASK: Final = 23
ANSWER: Final = 24
WARN: Final = 25
LOGGED: Final = 26
DENIED: Final = 27
BROKEN: Final = 28
STOPPED: Final = 29
# --- task: an owner and a worker that it leases -----------------------------------------------------------
DESCRIBE: Final = 40
TASKS: Final = 41
RESULTS: Final = 42
HANDBACK: Final = 43
FORGET: Final = 44
ITEMS: Final = 80
CREDIT: Final = 81
# --- peer: any two processes -------------------------------------------------------------------------------
RECALL: Final = 60
CANCEL: Final = 61
CANCEL_OBJECT: Final = 62
GET: Final = 63
VALUES: Final = 64
BORROW: Final = 65
BORROWED: Final = 66
RELEASE: Final = 67
UNPIN: Final = 68
# --- what waits for what: any two processes; STALLED goes to the driver, through the node -------------------
INQUIRE: Final = 92
REPLY: Final = 93
STALLED: Final = 94
# --- actors ------------------------------------------------------------------------------------------------
ACTOR_WHERE: Final = 100
ACTOR_AT: Final = 101
ACTOR_KILL: Final = 102
ACTOR_LEAVES: Final = 103
NAME_FREE: Final = 104
KEEPER_WANTED: Final = 105
WINDS_UP: Final = 160
WIND_UP: Final = 161
WOUND_UP: Final = 162
# --- light actors: a process and its node, an owner or caller and a host, a caller and an owner -------------
HOST_WANTED: Final = 140
HOST_AT: Final = 141
HOST_LOST: Final = 142
HOST_DENIED: Final = 143
HOST_END: Final = 144
LIGHT_GONE: Final = 145
LIGHT_ENDED: Final = 146
LIGHT_END: Final = 147
LIGHT_WHERE: Final = 148
LIGHT_AT: Final = 149

# --- control: priorities -----------------------------------------------------------------------------------
OUTBID: Final = 87
RANK: Final = 88
RANKED: Final = 89
# --- peer, again -------------------------------------------------------------------------------------------
ENDED: Final = 91
# --- control: a node and a worker ---------------------------------------------------------------------------
ORPHANED: Final = 90

# --- store: a process and its node, or two processes ------------------------------------------------------
NEED: Final = 126
EXTENTS: Final = 127
FULL: Final = 128
GIVE: Final = 129
RECLAIM: Final = 130
GONE: Final = 131
SETTLED: Final = 132
RECYCLE: Final = 133
SPILL: Final = 134
SPILLED: Final = 135
TELL: Final = 136
TOLD: Final = 137

# How a task ended, in RESULTS and VALUES.
OK: Final = 0
ERROR: Final = 1
#: The user's exception is one that the task's retry_exceptions names.
ERROR_RETRY: Final = 2
#: Several returns: the payload is the list of them.
MANY: Final = 3
CANCELLED: Final = 4
#: VALUES only: the value is there, but larger than the asker wanted inline.
ELSEWHERE: Final = 5

# Why tasks come back, in HANDBACK.
RECALLED: Final = 0
#: The worker's task waits for others.
BLOCKS: Final = 1
#: The worker ends after the results that follow.
LEAVING: Final = 2

#: In a worker's output: what follows on this line is the name of the task that writes from there on.
OUTPUT_MARK: Final = b"\0asyncray-task:"

#: How a row of each message may end.
_STATUSES: Final = {"RESULTS": (OK, ERROR, ERROR_RETRY, MANY, CANCELLED), "VALUES": (OK, ERROR, ELSEWHERE)}

_NUMBER = (int, float)
_SIGNED = (float, int)
_SIGNED_OR_NONE = (float, int, type(None))

#: Message number -> name and the types of its fields. ``object`` admits anything.
SCHEMAS: Final[dict[int, tuple[str, tuple[Any, ...]]]] = {
    # worker number, address, process id
    REGISTER: ("REGISTER", (int, str, bytes)),
    # facts about the node, for a driver
    READY: ("READY", (dict,)),
    # class number, description (None when it was sent before), further leases wanted, first waiting task
    WANT: ("WANT", (int, (list, type(None)), int, str)),
    # class number, lease number, worker's address, process id, pid
    GRANT: ("GRANT", (int, int, str, bytes, int)),
    # lease number
    RETURN: ("RETURN", (int,)),
    # whether somebody waits for resources that idle leases hold
    WANTED: ("WANTED", (bool,)),
    # lease number, kind of loss, explanation, number of the call that ran (0: none did, -1: unknown)
    LOST: ("LOST", (int, str, str, int)),
    # lease number, seconds of grace before the kill
    KILL: ("KILL", (int,)),
    # whether the worker's task waits (and its CPU is free) or goes on
    BLOCKED: ("BLOCKED", (bool,)),
    RETIRE: ("RETIRE", ()),
    # a worker asked to retire owns something and stays
    KEEP: ("KEEP", ()),
    # the driver ends
    STOP: ("STOP", ()),
    # "stdout" or "stderr", prefix, lines
    LOG: ("LOG", (str, str, str)),
    # request number, question, argument
    ASK: ("ASK", (int, str, object)),
    # request number, answer
    ANSWER: ("ANSWER", (int, object)),
    # a warning for the user
    WARN: ("WARN", (str,)),
    # bytes of output that the driver has shown
    LOGGED: ("LOGGED", (int,)),
    # class number, reason
    DENIED: ("DENIED", (int, str)),
    # a worker cannot be what its runtime environment asks for: the reason
    BROKEN: ("BROKEN", (str,)),
    STOPPED: ("STOPPED", ()),
    # descriptor number, function id, pickled function, options
    DESCRIBE: ("DESCRIBE", (int, bytes, bytes, dict)),
    # list of [task number, descriptor number, arguments, dependencies, extras]; the extras are what few calls
    # have, by name, or None
    TASKS: ("TASKS", (list,)),
    # list of [task number, status, payload], seconds that the worker spent on them
    RESULTS: ("RESULTS", (list, _NUMBER)),
    # task numbers that were not started, why they come back
    HANDBACK: ("HANDBACK", (list, int)),
    # descriptor numbers that the owner will never use again
    FORGET: ("FORGET", (list,)),
    # task number, number of the first item, payloads, under which number references inside them are held (0:
    # there are none), digest of all items up to here
    ITEMS: ("ITEMS", (int, int, list, int, int)),
    # task number, items of its stream that were read; -1: nobody will read any more
    CREDIT: ("CREDIT", (int, int)),
    RECALL: ("RECALL", ()),
    # task number, force, recursive
    CANCEL: ("CANCEL", (int, bool, bool)),
    # object number, force, recursive
    CANCEL_OBJECT: ("CANCEL_OBJECT", (int, bool, bool)),
    # object numbers, largest value wanted inline (bytes; 0: any size)
    GET: ("GET", (list, int)),
    # list of [object number, status, payload]
    VALUES: ("VALUES", (list,)),
    # request number, object numbers
    BORROW: ("BORROW", (int, list)),
    # request number
    BORROWED: ("BORROWED", (int,)),
    # object number, notes given up, object number, ...
    RELEASE: ("RELEASE", (list,)),
    # task number whose returned references have been registered
    UNPIN: ("UNPIN", (int,)),
    # request number, bytes of the value, extents wanted
    NEED: ("NEED", (int, int, int)),
    # request number, list of [start, length]
    EXTENTS: ("EXTENTS", (int, list)),
    # request number, bytes wanted, then of the store: capacity, taken, longest free piece; what is wrong with
    # the disk, or nothing
    FULL: ("FULL", (int, int, int, int, int, str)),
    # where the extents begin that a process has no use for
    GIVE: ("GIVE", (list,)),
    # number of the round: give what is free, then answer
    RECLAIM: ("RECLAIM", (int,)),
    # number of the round, ids of dead processes, where the extents begin that they had
    GONE: ("GONE", (int, list, list)),
    # number of the round, which of their extents are used here, which extents here held values of the dead
    SETTLED: ("SETTLED", (int, list, list)),
    # where the results lie that their owner has no use for any more
    RECYCLE: ("RECYCLE", (list,)),
    # number of the round, bytes of room to make
    SPILL: ("SPILL", (int, int)),
    # number of the round, bytes of room made, what is wrong with the disk, or nothing
    SPILLED: ("SPILLED", (int, int, str)),
    # number of the question: which objects there are
    TELL: ("TELL", (int,)),
    # number of the question, rows about objects, see client.inventory
    TOLD: ("TOLD", (int, list)),
    # class number, seconds that the best task which waits for what its leases hold is ahead of a new one
    # without priority; None: none waits
    OUTBID: ("OUTBID", (int, _SIGNED_OR_NONE)),
    # class number, seconds that its first waiting task is ahead of a new one without priority
    RANK: ("RANK", (int, _SIGNED)),
    # somebody uses priorities: say how your classes rank
    RANKED: ("RANKED", ()),
    # request number, objects whose tasks' real end is asked for; none of them in the answer
    ENDED: ("ENDED", (int, list)),
    # whoever called for what the worker runs is dead: it has a grace to end
    ORPHANED: ("ORPHANED", ()),
    # request number, question, argument
    INQUIRE: ("INQUIRE", (int, str, object)),
    # request number, answer
    REPLY: ("REPLY", (int, object)),
    # a call has waited for the same for long
    STALLED: ("STALLED", ()),
    # number of the actor's life: where is it?
    ACTOR_WHERE: ("ACTOR_WHERE", (int,)),
    # number of the actor's life, which life this is (from 1), its state, the worker's address, process id and
    # pid while it is alive, the pickled error of its calls when it is dead
    ACTOR_AT: ("ACTOR_AT", (int, int, int, str, bytes, int, (bytes, type(None)))),
    # number of the actor's life, whether it must not start again
    ACTOR_KILL: ("ACTOR_KILL", (int, bool)),
    # why an actor ends by its own wish
    ACTOR_LEAVES: ("ACTOR_LEAVES", (str,)),
    # namespace, name, number of the actor's life: the actor that had it is dead
    NAME_FREE: ("NAME_FREE", (str, str, int)),
    # for the driver: somebody asks for the keeper of detached actors
    KEEPER_WANTED: ("KEEPER_WANTED", ()),
    # a worker owns actors that want to clean up
    WINDS_UP: ("WINDS_UP", ()),
    # the session ends: let them
    WIND_UP: ("WIND_UP", ()),
    # they have
    WOUND_UP: ("WOUND_UP", ()),
    # runtime environment (packed) and index of a host of light actors: where is it?
    HOST_WANTED: ("HOST_WANTED", (bytes, int)),
    # runtime environment and index, the host's address, process id and pid
    HOST_AT: ("HOST_AT", (bytes, int, str, bytes, int)),
    # process id of a host that has ended, kind of its end, explanation
    HOST_LOST: ("HOST_LOST", (bytes, str, str)),
    # runtime environment and index of a host that cannot be had, reason
    HOST_DENIED: ("HOST_DENIED", (bytes, int, str)),
    # process id of a host that does not answer and must be killed; empty: this one has been without actors
    # for a while
    HOST_END: ("HOST_END", (bytes,)),
    # for a caller: numbers of its calls whose actors are not in this host, whether they had begun
    # (none: all that was turned away before an empty LIGHT_END has been told of)
    LIGHT_GONE: ("LIGHT_GONE", (list, bool)),
    # for an owner: list of [number of a light actor's life, which life, why it has ended]; none of them says
    # that the host has heard of what was to end at once
    LIGHT_ENDED: ("LIGHT_ENDED", (list,)),
    # for a host: numbers of actors' lives that are to end, now or when they have done what was called for
    # (none, and not now: a caller asks for an empty LIGHT_GONE)
    LIGHT_END: ("LIGHT_END", (list, bool)),
    # for an owner: numbers of actors' lives, and the host that the caller has lost (empty: none): how do they
    # stand?
    LIGHT_WHERE: ("LIGHT_WHERE", (list, bytes)),
    # for a caller: list of [number of a life, its state, the pickled error of its calls when it is dead]
    LIGHT_AT: ("LIGHT_AT", (list,)),
}

#: The types of whole messages, as they mostly come: one comparison then tells that all is well.
_EXACT: Final = {
    number: (int, *(float if kind is _NUMBER else kind for kind in types))
    for number, (_, types) in SCHEMAS.items()
}


def check(message: Message) -> Message:
    """Return *message* when it is well formed.

    Raises:
        ProtocolError: when its number is unknown, or a field is missing, too much or of the wrong type.
    """
    number = message[0]
    if tuple(map(type, message)) == _EXACT.get(number) and (number != RESULTS or 0 <= message[2] < inf):
        return message
    schema = SCHEMAS.get(number)
    if schema is None:
        raise ProtocolError(f"unknown message number {number}")
    name, types = schema
    if len(message) != len(types) + 1:
        raise ProtocolError(f"{name} has {len(types)} fields, not {len(message) - 1}")
    for position, kind in enumerate(types, 1):
        if not isinstance(message[position], kind):
            raise ProtocolError(f"field {position} of {name} cannot be {type(message[position]).__name__}")
        if kind is _NUMBER and not 0 <= message[position] < inf:
            raise ProtocolError(f"field {position} of {name} cannot be {message[position]}")
    return message


def check_rows(name: str, rows: list[Any], width: int) -> None:
    """Check the rows of a message about many things: lists of *width* that begin with a number.

    Raises:
        ProtocolError: when one is not.
    """
    for row in rows:
        if type(row) is not list or len(row) != width or type(row[0]) is not int:
            raise ProtocolError(f"a row of {name} is not a list of {width} that begins with a number")


def check_status(name: str, status: object, payload: object) -> None:
    """Check how a task or object ended, where it did not simply end well.

    Raises:
        ProtocolError: when the status is none, or a failure comes without its pickled error.
    """
    if type(status) is not int or status not in _STATUSES[name]:
        raise ProtocolError(f"a row of {name} cannot have the status {status!r}")
    if status in (ERROR, ERROR_RETRY) and (payload is None or type(payload) in (bool, int, float, str)):
        raise ProtocolError(f"a failure in {name} comes as a pickled error, not as {type(payload).__name__}")


def check_numbers(name: str, numbers: list[Any]) -> None:
    """Check a list of object or task numbers.

    Raises:
        ProtocolError: when it holds anything else.
    """
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ProtocolError(f"{name} carries something that is not a number of an object or task")


def check_processes(name: str, processes: list[Any]) -> None:
    """Check a list of process ids.

    Raises:
        ProtocolError: when it holds anything else.
    """
    if not all(type(process) is bytes for process in processes):
        raise ProtocolError(f"{name} carries something that is not the id of a process")
