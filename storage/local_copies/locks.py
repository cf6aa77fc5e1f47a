"""The kernel's locks on files that several processes share: they end with their holder, however it ends.

Nobody waits in the kernel: a holder that stands still would stop all others.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from storage.errors import StorageUnavailable
from storage.local_copies.disk import disk_refusals

SOON_S: Final = 1.0  # who has a file alone to rename or to remove it is done long before
_POLL_S: Final = 0.005


def share(descriptor: int) -> bool:
    """Say that the file is in use; False while somebody has it alone."""
    return _lock(descriptor, fcntl.LOCK_SH)


def have_alone(descriptor: int) -> bool:
    """Keep all others away from the file; False while somebody has it."""
    return _lock(descriptor, fcntl.LOCK_EX)


def within(seconds: float, attempt: Callable[[], bool], poll_s: float = _POLL_S) -> bool:
    """Try until it succeeds, or time is up."""
    deadline = time.monotonic() + seconds
    while not attempt():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still what `path` names: it may have been renamed or removed before it was locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def drop(path: Path) -> bool:
    """Remove the file; False if somebody has it. One that is gone already is no matter."""
    try:
        with disk_refusals():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not have_alone(descriptor):
            return False
        with disk_refusals():
            if is_at(path, descriptor):
                path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageUnavailable("the folder of local copies takes no locks", reason=str(error.strerror)) from error
    return True
