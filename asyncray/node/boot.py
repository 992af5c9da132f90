"""What a session is started with: the first thing that a node reads from its driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack

from ..config import Config
from ..wire.handshake import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Everything that a node must know."""

    config: Config
    credentials: Credentials
    driver_pid: int
    driver_process_id: bytes
    #: Units by name, as in resources.Resources.
    resources: dict[str, int]
    #: Its GPUs, as CUDA_VISIBLE_DEVICES names them; elsewhere they go by their places in this list.
    gpus: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    preload: list[str] = field(default_factory=list)
    #: The driver's runtime environment, packed; workers are started ahead for it.
    environment: bytes = b""
    namespace: str = ""
    loop: str = "auto"
    #: Whether the driver shows what workers write.
    log_to_driver: bool = True
    #: Workers started ahead, at most one for each CPU of the node; None is just as many.
    start_ahead: int | None = None
    #: Bytes of the object store, and the descriptor of its memory, which every process inherits; 0: none.
    store_bytes: int = 0
    store_fd: int = -1
    #: Where objects are put when memory is short; "": the usual place for temporary files.
    spill_directory: str = ""

    def pack(self) -> bytes:
        """As bytes."""
        data: bytes = msgpack.packb(
            {
                "config": self.config.to_wire(),
                "session_id": self.credentials.session_id,
                "token": self.credentials.token,
                "driver_pid": self.driver_pid,
                "driver_process_id": self.driver_process_id,
                "resources": self.resources,
                "gpus": self.gpus,
                "labels": self.labels,
                "preload": self.preload,
                "environment": self.environment,
                "namespace": self.namespace,
                "loop": self.loop,
                "log_to_driver": self.log_to_driver,
                "start_ahead": self.start_ahead,
                "store_bytes": self.store_bytes,
                "store_fd": self.store_fd,
                "spill_directory": self.spill_directory,
            }
        )
        return data

    @classmethod
    def unpack(cls, data: bytes) -> Boot:
        """Undo `pack`."""
        fields: dict[str, Any] = msgpack.unpackb(data)
        credentials = Credentials(fields.pop("session_id"), fields.pop("token"))
        config = Config.from_wire(fields.pop("config"))
        return cls(config=config, credentials=credentials, **fields)

    def for_worker(self, number: int, mode: str, environment: bytes, gpus: tuple[int, ...]) -> dict[str, Any]:
        """What sets one worker apart from the others, who all know this; plain values."""
        names = [self.gpus[gpu] for gpu in gpus]
        return {"number": number, "mode": mode, "environment": environment, "gpus": names}

    def facts(self, gpus: list[str]) -> dict[str, Any]:
        """What user code in a worker with these GPUs may ask of it."""
        return {"resources": self.resources, "labels": self.labels, "gpus": gpus}
