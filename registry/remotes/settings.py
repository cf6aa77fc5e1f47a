"""What a client command, and the server itself, need to know before they speak to another server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.remotes.errors import UrlInvalid
from registry.remotes.hosts import NamedHost
from registry.remotes.http import Origin
from registry.remotes.places import registry_of
from registry.remotes.rate import Limits
from storage.reference import DEFAULT_HOST

MAX_TOKEN_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """server: an http or https URL without a path. key_path: the outbound identity. state_dir: uploads to resume."""

    server: str
    key_path: Path
    state_dir: Path


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How the server goes out.

    upstream: where models without a host come from. named: hosts that the operator let it reach wherever they are.
    tokens: a file for each registry that wants a token or a password. transfers: how many at once in a process.
    rates: bytes a second that all of a process's transfers together bring in, and send out; 0 is no limit.
    """

    upstream: Origin
    named: tuple[NamedHost, ...]
    tokens: tuple[tuple[Origin, Path], ...]
    keys_path: Path
    transfers: int
    rates: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        upstream: str,
        allowed_hosts: tuple[str, ...],
        tokens: tuple[str, ...],
        keys_path: Path,
        transfers: int,
        *,
        rates: tuple[int, int] = (0, 0),
    ) -> RemoteSettings:
        """The settings as an operator writes them. An upstream of their own is named by that. Raises UrlInvalid."""
        home = parse_server(upstream)
        named = [NamedHost.parse(each) for each in allowed_hosts]
        if home.host != DEFAULT_HOST:
            named.append(NamedHost(home.host, home.port))
        return cls(home, tuple(named), tuple(map(_parse_token, tokens)), keys_path, transfers, rates)

    def limits(self) -> Limits:
        """What the clients of one process share."""
        return Limits.of(*self.rates)

    def token_for(self, home: Origin) -> str | None:
        """The token or `user:password` for `home`, and for no other. Raises UrlInvalid if its file has none."""
        path = next((path for origin, path in self.tokens if registry_of(origin) == home), None)
        return read_token(path) if path is not None else None


def parse_server(text: str) -> Origin:
    """`[scheme://]host[:port]`; https where it does not say. Raises UrlInvalid."""
    text = text.strip()
    url = text if "://" in text else f"https://{text}"
    origin = Origin.of(url)
    if url.partition("://")[2].rstrip("/").lower() not in {origin.authority, _with_port(origin)}:
        raise UrlInvalid(f"not a server: {text[:100]!a}; write host, host:port or http://host:port")
    return origin


def read_token(path: Path) -> str:
    """The one line in the file. Raises UrlInvalid."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise UrlInvalid(f"cannot read the token file {path.name}: {error.strerror}") from error
    if not text or not text.isascii() or not text.isprintable():
        raise UrlInvalid(f"{path.name} holds no token: one line of printable ASCII is expected")
    return text


def _with_port(origin: Origin) -> str:
    return f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"


def _parse_token(text: str) -> tuple[Origin, Path]:
    server, equals, path = text.partition("=")
    if not equals or not path.strip():
        raise UrlInvalid(f"not SERVER=FILE: {text[:100]!a}")
    return parse_server(server), Path(path.strip()).expanduser()
