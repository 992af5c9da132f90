"""Which host the next light actor of this process is made in.

The first host is used until it has FEW actors of this process, then the next is made, up to one for each CPU;
from then on they are filled evenly.
"""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from ..resources import UNITS
from ..runtime_env import RuntimeEnv
from .environments import pack_environment

if TYPE_CHECKING:
    from .host_calls import HostCalls
    from .lights import Lights

#: Actors of one process in a host before the next host is made.
FEW: Final = 100
_used: Final = attrgetter("used")


class Filling:
    """The hosts that one process fills. Callable from any thread."""

    def __init__(self, lights: Lights) -> None:
        self._lights = lights
        #: Runtime environments as hosts are told apart by them, by what actors ask for.
        self._environments: dict[RuntimeEnv, bytes] = {}
        #: The hosts that are being filled, by environment.
        self._hosts: dict[bytes, list[HostCalls]] = {}

    def host_for(self, environment: RuntimeEnv) -> HostCalls:
        """The host of the next actor that this process makes."""
        packed = self._environments.get(environment)
        if packed is None:
            packed = pack_environment(RuntimeEnv.merge(self._lights.session.environment, environment))
            self._environments[environment] = packed
        with self._lights.owner.lock:
            hosts = self._hosts.setdefault(packed, [])
            emptiest = min(hosts, key=_used, default=None)
            if emptiest is not None and emptiest.used < FEW:
                return next(host for host in hosts if host.used < FEW)
            if emptiest is not None and len(hosts) >= self._most_hosts:
                return emptiest
            hosts.append(self._next_host(packed, len(hosts)))
            return hosts[-1]

    @cached_property
    def _most_hosts(self) -> int:
        units: int = self._lights.session.facts.get("resources", {}).get("CPU", 0)
        return max(1, units // UNITS)

    def _next_host(self, packed: bytes, count: int) -> HostCalls:
        """A host that is not being filled; the first is the one that this process is, if it is any."""
        me = self._lights.session.identity.process_id
        mine = (h.index for h in self._lights.hosts.values() if (h.environment, h.process_id) == (packed, me))
        return self._lights.host((packed, (next(mine, 0) + count) % self._most_hosts))
