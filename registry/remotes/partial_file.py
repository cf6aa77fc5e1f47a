"""A file that a command fills over several runs, in a folder that others may write to as well."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from registry.remotes.errors import LocalFileUnfit

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is found out, not waited for


@contextmanager
def held(path: Path, job: str, *, mode: int) -> Iterator[BinaryIO]:
    """The file, unbuffered and open for us alone: the kernel's lock goes with the descriptor.

    job: what may hold it too, as people call it. mode: of a new one, within the umask; never writable for others.
    Raises LocalFileUnfit while another run holds it, and for one that somebody else may have put there or may change.
    """
    try:
        handle = _open(path, mode & ~_WRITABLE_BY_OTHERS)
    except OSError as error:
        raise LocalFileUnfit(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(handle, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(handle), path.stat())  # not one that was renamed as we opened it
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise LocalFileUnfit(f"another {job} is writing {path}")
        yield file


def share(handle: int) -> None:
    """Let others write to the file, now that it is whole: those that may read it, and whom the umask admits."""
    mask = os.umask(0o077)  # it cannot be read without being set
    os.umask(mask)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    writers = (mode >> 1) & _WRITABLE_BY_OTHERS & ~mask
    if writers:
        with suppress(PermissionError):  # a disk that knows no modes
            os.fchmod(handle, mode | writers)


def _open(path: Path, mode: int) -> int:
    """A handle of a new file, or of a fit one that is there. Raises LocalFileUnfit, OSError."""
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        handle = os.open(path, _FLAGS)
    problem = _problem(os.fstat(handle))
    if problem is not None:
        os.close(handle)
        raise LocalFileUnfit(f"{path} {problem}; remove it, then start again")
    return handle


def _problem(found: os.stat_result) -> str | None:
    """Why what is written there would not be ours alone."""
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_nlink != 1:
        return "has another name too, under which it would be overwritten"
    if found.st_mode & _WRITABLE_BY_OTHERS:
        return "can be written to by other users"
    return None
