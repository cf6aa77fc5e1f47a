"""What a client command needs to know before it speaks to a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """server: an http or https URL without a path. key_path: the outbound identity. state_dir: uploads to resume."""

    server: str
    key_path: Path
    state_dir: Path
