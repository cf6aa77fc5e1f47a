"""Where a request comes from, read from its WSGI environment: whose words about it count, and whose do not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, urlsplit

from auth.errors import SettingInvalid
from auth.hosts import address_of, host_of, is_loopback_address, is_loopback_name, is_own_host
from auth.policy import Mode

Environ = Mapping[str, Any]

_FORWARDING: Final = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")
_FORWARDING_PREFIX: Final = "HTTP_X_FORWARDED"
_IPV6_SITE: Final = 64  # bits


@dataclass(frozen=True)
class AccessConfig:
    """How this server is reached. trusted_proxies: addresses or networks. external_url: `scheme://host[:port]` or "".

    Raises SettingInvalid when one of them cannot be read.
    """

    mode: str = Mode.KEYED
    is_loopback_listener: bool = False
    trusted_proxies: tuple[str, ...] = ()
    external_url: str = ""

    def __post_init__(self) -> None:
        if self.mode not in set(Mode):
            raise SettingInvalid(f"access must be one of {', '.join(Mode)}, not {self.mode!r}")
        if self.external_url and (host_of(self.external_authority) is None or not self.external_scheme):
            raise SettingInvalid(f"the external URL must be http(s)://host[:port], not {self.external_url!r}")
        _ = self.proxies

    @cached_property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        try:
            return tuple(ipaddress.ip_network(each, strict=False) for each in self.trusted_proxies)
        except ValueError as error:
            raise SettingInvalid(f"trusted proxies are IP addresses or networks: {error}") from None

    @cached_property
    def external_scheme(self) -> str:
        scheme = urlsplit(self.external_url).scheme
        return scheme if scheme in ("http", "https") else ""

    @cached_property
    def external_authority(self) -> str:
        return urlsplit(self.external_url).netloc

    @cached_property
    def service(self) -> str:
        """Our name as an audience of tokens: the same on every node and for every way to address us."""
        return self.external_authority or "tonnage"


def is_loopback_peer(environ: Environ, proxies: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()) -> bool:
    """Whether a program on this machine talks to us directly, and meant this machine.

    A proxy on this machine must not open the door to its own callers, hence the headers that proxies add; a page whose
    name its owner points at 127.0.0.1 must not either, hence the Host.
    """
    address = str(environ.get("REMOTE_ADDR", ""))
    if not is_loopback_address(address) or _is_among(address, proxies):
        return False
    if any(key in _FORWARDING or key.startswith(_FORWARDING_PREFIX) for key in environ):
        return False
    host = host_of(str(environ.get("HTTP_HOST", "")))
    return host is not None and is_loopback_name(host)


def client_address(environ: Environ, proxies: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()) -> str:
    """Whose request it is, as far as we may believe it: the last hop of X-Forwarded-For that is no trusted proxy."""
    address = str(environ.get("REMOTE_ADDR", ""))
    hops = str(environ.get(f"{_FORWARDING_PREFIX}_FOR", "")).split(",")
    while hops and _is_among(address, proxies) and address_of(hops[-1].strip()) is not None:
        address = hops.pop().strip()
    return address


def site_of(address: str) -> str:
    """The address, or the network that one customer has of IPv6; empty for what is no address."""
    parsed = address_of(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _IPV6_SITE), strict=False))
    return "" if parsed is None else str(parsed)


def external_scheme_and_host(environ: Environ, config: AccessConfig) -> tuple[str, str]:
    """`scheme`, `host[:port]` as the client addressed us; clients refuse a realm on any other host.

    A trusted proxy says both in X-Forwarded-Proto and X-Forwarded-Host. Otherwise the host is the Host header, and the
    scheme that of the external URL if it has this very host, else the connection's.
    """
    is_proxied = _is_among(str(environ.get("REMOTE_ADDR", "")), config.proxies)
    host = (_forwarded(environ, "HOST") if is_proxied else "") or str(environ.get("HTTP_HOST", ""))
    if host_of(host) is None:
        host = config.external_authority or "localhost"
    scheme = _forwarded(environ, "PROTO").lower() if is_proxied else ""
    if scheme not in ("http", "https"):
        is_external = host.lower() == config.external_authority.lower()
        scheme = config.external_scheme if is_external else str(environ.get("wsgi.url_scheme", "http"))
    return scheme, host


def signed_origins(environ: Environ, config: AccessConfig) -> tuple[str, ...]:
    """Every `scheme://host[:port]` a client may have signed: a proxy may hide the scheme, never the host."""
    scheme, host = external_scheme_and_host(environ, config)
    schemes = dict.fromkeys(each for each in (config.external_scheme, scheme, "https", "http") if each)
    return tuple(f"{each}://{host}" for each in schemes)


def is_addressed_to_us(environ: Environ, config: AccessConfig) -> bool:
    """Whether the host and port that the client addressed are this server's.

    Another port of the same machine may be another's server, to whom the client said what it now tells us.
    """
    _, authority = external_scheme_and_host(environ, config)
    host = host_of(authority)
    if host is None:
        return False
    if config.external_authority and authority.lower() == config.external_authority.lower():
        return True
    is_proxied = _is_among(str(environ.get("REMOTE_ADDR", "")), config.proxies)
    named = authority.rpartition("]")[2]
    ports = (named.rpartition(":")[2],) if ":" in named else ("80", "443")
    return is_own_host(host) and (is_proxied or str(environ.get("SERVER_PORT", "")) in ports)


def request_target(environ: Environ) -> str:
    """Path and query byte for byte as they came, for what was signed; rebuilt where the server does not keep them."""
    for key in ("RAW_URI", "REQUEST_URI"):
        raw = environ.get(key)
        if isinstance(raw, str) and raw.startswith("/"):
            return raw
    path = quote(str(environ.get("PATH_INFO", "/")).encode("latin-1", "replace"), safe="/:@!$&'()*+,;=~-._")
    query = str(environ.get("QUERY_STRING", ""))
    return f"{path}?{query}" if query else path


def _forwarded(environ: Environ, what: str) -> str:
    """The last value: the one that the proxy in front of us added, whatever the client sent before it."""
    return str(environ.get(f"{_FORWARDING_PREFIX}_{what}", "")).rpartition(",")[2].strip()


def _is_among(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    parsed = address_of(address)
    return parsed is not None and any(parsed in network for network in networks)
