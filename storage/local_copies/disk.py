"""What the filesystem says, as the store's own refusals."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from storage.durable import NO_SPACE
from storage.errors import StorageFull, StorageUnavailable

_BLOCK: Final = 512  # the unit of `st_blocks`, whatever the filesystem's own


def taken_bytes(found: os.stat_result) -> int:
    """What the file takes of the disk: one in the making, or a sparse one, has no more blocks than bytes that came."""
    return found.st_blocks * _BLOCK


@contextmanager
def disk_refusals() -> Iterator[None]:
    """Raises StorageFull, and StorageUnavailable for whatever else goes wrong but that a file is not there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull("no space left on this node's disk for local copies of weights") from error
        reason = os.strerror(error.errno or errno.EIO)
        raise StorageUnavailable(f"the folder of local copies cannot be used: {reason}") from error
