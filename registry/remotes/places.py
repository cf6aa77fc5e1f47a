"""Where a model's name points: a registry, a path and a tag there; and a repository here.

Source: the Ollama registry protocol, "Names" and "http / https / insecure".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from registry.remotes.errors import RemoteError
from registry.remotes.hosts import DEFAULT_PORTS
from registry.remotes.http import Origin
from storage.errors import NameInvalid
from storage.reference import DEFAULT_NAMESPACE, ModelName

# Names by which people know a registry, and what is the registry.
_REGISTRIES: Final = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")


class InsecureProtocol(RemoteError):
    """The name asks for plain http, the request does not."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """`<namespace>/<model>` in the letters that were typed: other registries may tell them apart by case."""

    text: str

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.text):
            raise NameInvalid("invalid model name", name=self.text[:255])

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Place:
    """`name` is the model here; the rest says where it is elsewhere."""

    server: Origin
    path: RemotePath
    name: ModelName

    def __str__(self) -> str:
        return f"{self.server}/{self.path}:{self.name.tag}"


def registry_of(named: Origin) -> Origin:
    """The registry that is called so, which may have another address."""
    host = _REGISTRIES.get(named.host) if named.port == DEFAULT_PORTS[named.scheme] else None
    return replace(named, host=host) if host else named


def find_place(text: str, name: ModelName, upstream: Origin, *, insecure: bool) -> Place:
    """What `text`, which was parsed to `name`, points to. A name without a host, or of the default one, is upstream's.

    insecure: plain http, unless the name says https. Raises InsecureProtocol, NameInvalid, UrlInvalid.
    """
    scheme, mark, rest = text.strip().rpartition("://")
    scheme = scheme.lower()
    if mark and scheme not in {"http", "https"}:
        raise NameInvalid("invalid model name", name=text[:255])
    if scheme == "http" and not insecure:
        raise InsecureProtocol("insecure protocol http")
    *before, last = rest.split("/")
    path = RemotePath(f"{before[-1] if before else DEFAULT_NAMESPACE}/{last.partition(':')[0]}")
    wanted = scheme or ("http" if insecure else "")
    if name.host is not None:
        return Place(registry_of(Origin.of(f"{wanted or 'https'}://{name.host}")), path, name)
    if not wanted or wanted == upstream.scheme:
        return Place(registry_of(upstream), path, name)
    return Place(registry_of(Origin.of(f"{wanted}://{upstream.authority}")), path, name)
