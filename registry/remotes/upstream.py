"""A repository elsewhere that the operator named: by a mirror, not by a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.remotes.hosts import NamedHost
from registry.remotes.http import Origin
from storage.reference import RepositoryName


@dataclass(frozen=True, slots=True)
class Upstream:
    """`path` at `server`. token_path: a file with what `server` wants to see."""

    server: Origin
    path: RepositoryName
    token_path: Path | None = None

    @property
    def named(self) -> NamedHost:
        """The host is within reach wherever it lies: the operator said so."""
        return NamedHost(self.server.host, self.server.port)

    def __str__(self) -> str:
        return f"{self.server}/{self.path}"
