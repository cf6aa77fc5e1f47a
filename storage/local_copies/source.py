"""What is copied, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from storage.digest import Digest
from storage.drivers.objects.bucket import Body


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob, and where its bytes are. May be asked for only where a repository of the caller's holds it."""

    digest: Digest
    size: int
    key: str


class Source(Protocol):
    """Where the bytes are."""

    def open_range(self, key: str, start: int, size: int) -> Body:
        """`size` bytes from `start` on, which must lie within. Raises KeyUnknown, StorageUnavailable."""
