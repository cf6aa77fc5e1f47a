"""The text of a host, read in one place: what a URL, a model's name and the operator's list may call a machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

from registry.remotes.errors import UrlInvalid

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_MAX_HOST: Final = 253
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY: Final = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")


def parse_host(text: str) -> str:
    """A name in lower case, a dotted quad, or an IPv6 address without brackets: each host has one spelling.

    What resolvers would also take is refused: addresses as one number, in octal or hex, with fewer parts, with a zone,
    and names with a final dot. Raises UrlInvalid.
    """
    host = text.lower()
    try:
        if ":" in host:
            if "%" in host:
                raise ValueError(host)
            return str(IPv6Address(host))
        if len(host) > _MAX_HOST or not _NAME.fullmatch(host):
            raise ValueError(host)
        return str(IPv4Address(host)) if _NUMBER.fullmatch(host.rpartition(".")[2]) else host
    except ValueError:
        raise UrlInvalid(f"not the name or address of a host: {text[:100]!a}") from None


def parse_authority(text: str) -> tuple[str, int | None]:
    """`host[:port]` as its parts; IPv6 addresses stand in brackets. Raises UrlInvalid."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise UrlInvalid(f"not a host or host:port: {text[:100]!a}")
    six = match["six"]
    if six is not None and ":" not in six:
        raise UrlInvalid(f"only IPv6 addresses stand in brackets: {text[:100]!a}")
    return parse_host(six if six is not None else match["host"]), int(match["port"]) if match["port"] else None


@dataclass(frozen=True, slots=True)
class NamedHost:
    """A host that the operator named, `host[:port]`. port: None stands for those of http and https."""

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises UrlInvalid."""
        return cls(*parse_authority(text.strip()))

    def covers(self, host: str, port: int) -> bool:
        ports = DEFAULT_PORTS.values() if self.port is None else (self.port,)
        return host == self.host and port in ports
