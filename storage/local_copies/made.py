"""Places for files that a program of ours writes before they become blobs of a bucket."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from storage.local_copies.disk import disk_refusals
from storage.local_copies.locks import have_alone, share

_PREFIX: Final = "made-"
_LEFT_S: Final = 3600.0  # a folder that was made a moment ago may not be locked yet


@contextmanager
def made_file(folder: Path) -> Iterator[Path]:
    """Where a file may be written, in a folder of its own within `folder`; both are gone when the block ends.

    Raises StorageFull, StorageUnavailable.
    """
    own = folder / f"{_PREFIX}{token_hex(8)}"
    with disk_refusals():
        own.mkdir(mode=0o700)
        descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        share(descriptor)
        yield own / "blob"
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(descriptor)


def tidy_made(folder: Path, *, older_than_s: float = _LEFT_S) -> int:
    """Remove what a crash left of such folders; how many there were. Raises StorageUnavailable."""
    gone, before = 0, time.time() - older_than_s
    for own in folder.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError), disk_refusals():
            descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_mtime < before and have_alone(descriptor):
                    shutil.rmtree(own, ignore_errors=True)
                    gone += 1
            finally:
                os.close(descriptor)
    return gone
