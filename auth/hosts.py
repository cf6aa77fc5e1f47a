"""Names and addresses of machines: which mean this one, and how a Host header may look."""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import Final

_AUTHORITY: Final = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}))(?::[0-9]{1,5})?"
)

# Domains that only the local network hands out; any other could be a stranger's `<our hostname>.example.com`.
_LOCAL_DOMAINS: Final = (".local", ".lan", ".internal", ".home.arpa")


def host_of(authority: str) -> str | None:
    """The host of `host[:port]`, lower case, an IPv6 address without its brackets; None if it is no such thing."""
    match = _AUTHORITY.fullmatch(authority)
    return match["host"].strip("[]").lower().rstrip(".") if match is not None else None


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address `text` spells, an IPv4 address mapped into IPv6 as itself; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def is_loopback_address(text: str) -> bool:
    address = address_of(text)
    return address is not None and address.is_loopback


def is_loopback_name(host: str) -> bool:
    """Whether no resolver can have pointed `host` anywhere but to the client's own machine."""
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)


@lru_cache(maxsize=1024)
def is_own_host(host: str) -> bool:
    """Whether `host` names the machine we run on: its hostname, or an address of its own."""
    if is_loopback_name(host):
        return True
    if address_of(host) is not None:
        return _is_own_address(host)
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    return host in {own, short, *(f"{short}{domain}" for domain in _LOCAL_DOMAINS)}


def _is_own_address(address: str) -> bool:
    """An address can be bound exactly where it is configured."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return address not in ("0.0.0.0", "::")  # noqa: S104  # binding these always succeeds and names no machine
