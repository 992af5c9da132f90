"""The first frame of every connection: who calls, for which session, with which token.

Rule 1: nothing that a peer sends is unpickled, and nothing of it is acted on, before its hello is accepted.
Rule 2: until then a frame may be no larger than HELLO_BYTES.
Rule 3: secrets are compared in constant time, and no error repeats one.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..exceptions import AuthenticationError, ProtocolError

if TYPE_CHECKING:
    from .frames import Message

#: Raised with every change of a message; peers of another version are refused with both numbers.
PROTOCOL_VERSION: Final = 1
HELLO: Final = 1
WELCOME: Final = 2
REFUSED: Final = 3
#: Largest frame accepted before the hello.
HELLO_BYTES: Final = 4096

#: What a connection is for.
CONTROL: Final = "control"
PEER: Final = "peer"
TASK: Final = "task"
PURPOSES: Final = frozenset({CONTROL, PEER, TASK})


@dataclass(frozen=True, slots=True)
class Credentials:
    """What all processes of one session share."""

    session_id: bytes
    token: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end."""

    process_id: bytes
    #: Where the process listens; empty for one that does not.
    address: str
    pid: int


@dataclass(frozen=True, slots=True)
class Hello:
    """An accepted first frame."""

    purpose: str
    identity: Identity


def hello(credentials: Credentials, purpose: str, identity: Identity) -> Message:
    """The message that opens a connection."""
    return [
        HELLO,
        PROTOCOL_VERSION,
        credentials.session_id,
        credentials.token,
        purpose,
        identity.process_id,
        identity.address,
        identity.pid,
    ]


def check_hello(message: Message, credentials: Credentials) -> Hello:
    """Accept or refuse a connection's first message.

    Raises:
        ProtocolError: when it is no hello, or one of another protocol version.
        AuthenticationError: when the session or the token is not ours.
    """
    if message[0] != HELLO or len(message) < 2:
        raise ProtocolError(f"a connection must begin with a hello, not with message number {message[0]}")
    if message[1] != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the peer speaks protocol version {message[1]!r}; this process speaks {PROTOCOL_VERSION}"
        )
    if len(message) != 8 or not _well_typed(message):
        raise ProtocolError("a hello has the wrong fields")
    _, _, session_id, token, purpose, process_id, address, pid = message
    if not hmac.compare_digest(session_id, credentials.session_id):
        raise AuthenticationError("the peer belongs to another session")
    if not hmac.compare_digest(token, credentials.token):
        raise AuthenticationError("the peer's token is wrong")
    if purpose not in PURPOSES:
        raise ProtocolError(f"a connection's purpose is one of {sorted(PURPOSES)}, not {purpose!r}")
    return Hello(purpose, Identity(process_id, address, pid))


def welcome() -> Message:
    """The answer to an accepted hello."""
    return [WELCOME, PROTOCOL_VERSION]


def refused(reason: str) -> Message:
    """The last message before a connection is closed for a reason."""
    return [REFUSED, reason]


def check_refusal(message: Message) -> None:
    """Notice that a message is the last one, which says why the other end closes the connection.

    Raises:
        ProtocolError: when it is.
    """
    if message[0] == REFUSED:
        reason = message[1] if len(message) > 1 else "it does not say why"
        raise ProtocolError(f"the other end closed the connection: {reason}")


def _well_typed(message: Message) -> bool:
    return (
        all(isinstance(field, bytes) for field in (message[2], message[3], message[5]))
        and isinstance(message[4], str)
        and isinstance(message[6], str)
        and isinstance(message[7], int)
    )
