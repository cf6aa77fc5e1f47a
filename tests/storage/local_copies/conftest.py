"""Local copies of a bucket in memory, in pieces so small that a test has many of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.digest import Digest
from storage.drivers.objects.driver import ObjectDriver
from storage.local_copies import download
from storage.local_copies.copies import CopyLimits, LocalCopies
from storage.local_copies.folder import CopyFolder
from storage.local_copies.source import Wanted
from tests.gated_bucket import GatedBucket

PIECE = 64 * 1024


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)


@pytest.fixture
def bucket() -> GatedBucket:
    return GatedBucket()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def open_copies(bucket: GatedBucket, folder: Path) -> Callable[..., LocalCopies]:
    """As one more process of the node."""

    def open_copies(most_bytes: int = 0, stall_s: float = 60.0, waiting: int = 32) -> LocalCopies:
        limits = CopyLimits(most_bytes, stall_s, waiting)
        return LocalCopies(CopyFolder(folder, most_bytes), ObjectDriver(bucket), limits)

    return open_copies


@pytest.fixture
def stored(bucket: GatedBucket) -> Callable[..., Wanted]:
    """A blob of so many bytes in the bucket."""

    def stored(size: int, seed: int = 1, algorithm: str = "sha256") -> Wanted:
        data = random.Random(seed).randbytes(size)
        key = f"blobs/{seed:02x}/{seed:032x}"
        bucket.objects[f"objects/{key}"] = data
        return Wanted(Digest.of(data, algorithm), size, key)

    return stored


def go_on() -> None:
    """Nobody leaves."""
