"""Which addresses a request of a stranger may make this server connect to.

Decided when a connection is made, on the very address that it is made to: a name is resolved once, and what was checked
is what is connected to. Source: the IANA registries of special-purpose addresses.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Self

from registry.remotes.errors import Unreachable
from registry.remotes.hosts import NamedHost

Resolver = Callable[[str, int], Sequence[str]]  # (host, port) → addresses in text; raises OSError

_MAX_ADDRESSES: Final = 8
_WEB_PORTS: Final = (80, 443)
_FIRST_FREE_PORT: Final = 1024

_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # in no registry: machines that Azure rents out ask their host for secrets there
    )
)  # fmt: skip
_UNICAST_6: Final = IPv6Network("2000::/3")  # outside: mapped and translated IPv4, local, link-local, multicast
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address of anybody's choice inside
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)


class AddressRefused(Unreachable):
    """The host is nowhere that this server connects to at a stranger's request.

    Tried again as often as a host that is not there: the time, too, would tell the one from the other.
    """


def system_resolver(host: str, port: int) -> list[str]:
    """What the machine's own resolver knows."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether anybody's machine may have this address."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _NOT_PUBLIC_4)
    return address in _UNICAST_6 and not any(address in net for net in _NOT_PUBLIC_6)


@dataclass(frozen=True, slots=True)
class Reach:
    """Public addresses, and wherever the hosts lie that the operator named."""

    named: tuple[NamedHost, ...] = ()
    resolve: Resolver = system_resolver

    def seen_from(self, host: str, port: int) -> Self:
        """The reach of a conversation that begins there: a host that nobody named leads to no named one.

        Else a stranger's registry could have us ask an inner host, and learn from what we then say.
        """
        return self if self.names(host, port) else replace(self, named=())

    def names(self, host: str, port: int) -> bool:
        return any(each.covers(host, port) for each in self.named)

    def addresses(self, host: str, port: int) -> list[str]:
        """Where to connect to for `host`, a name or an address as `parse_host` gives it.

        Raises AddressRefused if one of its addresses is not for us; Unreachable, in the same words, if it has none:
        the difference would tell a stranger which inner names there are.
        """
        is_named = self.names(host, port)
        words = f"cannot connect to {host}:{port}: there is no such host, or it has no public address and is not named"
        line = f"{words} in TONNAGE_ALLOWED_HOSTS"
        if not is_named and port not in _WEB_PORTS and port < _FIRST_FREE_PORT:
            raise AddressRefused(line)  # what listens there speaks no HTTP, and might understand ours otherwise
        try:
            found = list(self.resolve(host, port))[:_MAX_ADDRESSES]
        except (OSError, UnicodeError):
            raise Unreachable(line) from None
        if not found:
            raise Unreachable(line)
        if not is_named and not all(map(is_public, found)):
            raise AddressRefused(line)
        return found
