"""The key of every stored thing; nobody else spells a key."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

BLOBS: Final = "blobs/"

_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]*(?:/[a-z0-9][a-z0-9_-]*)*")
_MAX_KEY: Final = 200  # fits a column, and a file name when the slashes are folded


def new_blob_key() -> str:
    """A key that was never used before and says nothing about the bytes.

    Not the digest: a late delete of old bytes then cannot hit a new upload of the same ones.
    """
    generation = secrets.token_hex(16)
    return f"{BLOBS}{generation[:2]}/{generation}"


def is_key(text: str) -> bool:
    """No dots, no empty components: a key cannot leave the folder it is resolved in."""
    return len(text) <= _MAX_KEY and _KEY.fullmatch(text) is not None


def objects_folder(data: Path) -> Path:
    return data / "objects"


def uploads_folder(data: Path) -> Path:
    """On the same filesystem as the objects, so that publishing is a rename."""
    return data / "uploads"


def cache_folder(data: Path) -> Path:
    """Local copies of blobs that lie in a bucket."""
    return data / "cache"
