"""How many connections a shim has at once: in all, and from one address.

A connection beyond the bound still gets a response that says so, and probes are served on it, so
that a flood does not make a supervisor restart the shim. Only a few of these are held at a time;
the next ones are closed unread. Addresses of this machine have no bound of their own: they are its
operator, or a proxy that has counted its clients.
"""

import resource
from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

from api_shim.http.listening import is_loopback

Verdict = Literal["admitted", "too_many", "too_many_of_address", "no_room"]
_RESERVED_DESCRIPTORS: Final = 256
"""For Redis, files, logs, and connections that are refused in words."""
_FEWEST_REFUSED: Final = 32
_PREFIX_BITS: Final = 64
"""An IPv6 client usually has a network of this size to itself."""


def most_connections(wished: int) -> int:
    """As many as wished, or as the process may open; its soft limit is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wished + _RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
        return max(1, min(wished, max(soft, raised) - _RESERVED_DESCRIPTORS))
    return wished


class ConnectionLimits:
    """Counts connections, and judges each new one."""

    def __init__(self, most: int, most_per_address: int) -> None:
        """No connection is open; `most_per_address` 0 sets no bound for an address."""
        self.most = most
        self.most_per_address = most_per_address
        self._most_refused = max(_FEWEST_REFUSED, most // 16)
        self._by_source: Counter[str] = Counter()
        self.count = 0

    def enter(self, host: str) -> Verdict:
        """Count a connection from this address, and judge it; `leave` must follow."""
        source = source_of(host)
        self.count += 1
        self._by_source[source] += 1
        if self.count > self.most + self._most_refused:
            return "no_room"
        if self.count > self.most:
            return "too_many"
        if source and 0 < self.most_per_address < self._by_source[source]:
            excess = self._by_source[source] - self.most_per_address
            return "too_many_of_address" if excess <= self._most_refused else "no_room"
        return "admitted"

    def leave(self, host: str) -> None:
        """The connection has ended."""
        source = source_of(host)
        self.count -= 1
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]


def source_of(host: str) -> str:
    """What counts as one address: an IPv4 address, an IPv6 network; empty for this machine."""
    if not host or is_loopback(host):
        return ""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> (128 - _PREFIX_BITS):x}::"
