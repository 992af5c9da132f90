"""Identities: who made a thing, and its number there.

A process has a random id. What it makes is that id plus a count, so a new object id costs no randomness and
two processes never collide. The owner of an object can be read off its id.
"""

from collections.abc import Callable

#: Bytes of a process's id.
PROCESS_ID_BYTES = 16
#: Bytes of an object's id: the process, an 8-byte number, four zero bytes in reserve. Ray's length.
OBJECT_ID_BYTES = 28

_RESERVE = bytes(4)


def new_process_id(random_bytes: Callable[[int], bytes]) -> bytes:
    """A new 16-byte id.

    Args:
        random_bytes: Gives n random bytes: `os.urandom`, or a seeded generator's `randbytes` in simulation.

    Raises:
        ValueError: when `random_bytes` gives another length.
    """
    return _checked(random_bytes(PROCESS_ID_BYTES), PROCESS_ID_BYTES, "process id")


def object_binary(process_id: bytes, number: int) -> bytes:
    """The 28-byte id of object `number` of a process.

    Raises:
        ValueError: when `process_id` is not 16 bytes.
        OverflowError: when `number` is negative or needs more than 8 bytes.
    """
    return _checked(process_id, PROCESS_ID_BYTES, "process id") + number.to_bytes(8, "big") + _RESERVE


def parse_object_binary(binary: bytes) -> tuple[bytes, int]:
    """The process id and the number that `object_binary` was given.

    Raises:
        ValueError: when `binary` is not 28 bytes, or its last four are not zero.
    """
    if _checked(binary, OBJECT_ID_BYTES, "object id")[24:] != _RESERVE:
        raise ValueError(f"object id {binary.hex()} does not end in four zero bytes")
    return binary[:PROCESS_ID_BYTES], int.from_bytes(binary[PROCESS_ID_BYTES:24], "big")


def short(binary: bytes) -> str:
    """A few characters for reprs and logs: eight hex digits, and the number after them for an object's id."""
    if len(binary) != OBJECT_ID_BYTES:
        return binary[:4].hex()
    process_id, number = binary[:4], int.from_bytes(binary[PROCESS_ID_BYTES:24], "big")
    return f"{process_id.hex()}:{number}"


def _checked(binary: bytes, length: int, what: str) -> bytes:
    if len(binary) != length:
        raise ValueError(f"a {what} has {length} bytes, not {len(binary)}: {binary!r}")
    return binary
