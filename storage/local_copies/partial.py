"""A copy in the making: one process writes it, others can see how far it is, and whoever comes after a crash goes on.

The file is as long as the blob and its mark, which tells how many of the first bytes had come. A mark is a hint: what
it covers is hashed again, and only the digest of all of it makes a copy.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from storage.durable import sync_folder
from storage.errors import StorageError, StorageUnavailable
from storage.local_copies.disk import disk_refusals
from storage.local_copies.locks import have_alone, is_at

MARK_BYTES: Final = 8


class Partial:
    """The file, which nobody else writes until this is closed."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self._path, self._descriptor, self._size = path, descriptor, size

    @classmethod
    def take(cls, path: Path, size: int) -> Partial | None:
        """The partial file of a copy of `size` bytes, made where there is none; None while somebody else has it."""
        with disk_refusals():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if have_alone(descriptor) and is_at(path, descriptor):
                return cls(path, descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    @property
    def name(self) -> str:
        return self._path.name

    def kept(self) -> int:
        """How many of the first bytes an earlier attempt had come to."""
        found = os.fstat(self._descriptor).st_size
        if found == self._size:  # its mark was cut off, to be published
            return found
        return _mark(self._descriptor, self._size) if found == self._size + MARK_BYTES else 0

    def reserve(self) -> None:
        """Give the file its full size, so that whoever makes room for another copy counts it."""
        with disk_refusals():
            if not self.kept():
                os.ftruncate(self._descriptor, 0)
            os.ftruncate(self._descriptor, self._size + MARK_BYTES)

    def write_at(self, data: bytes, offset: int) -> None:
        """Raises StorageFull."""
        left = memoryview(data)
        with disk_refusals():
            while left:
                written = os.pwrite(self._descriptor, left, offset)
                left, offset = left[written:], offset + written

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes, at least one. Raises StorageUnavailable where the file has been cut meanwhile."""
        with disk_refusals():
            data = os.pread(self._descriptor, size, offset)
        if not data:
            raise StorageUnavailable("a local copy was cut while it was written")
        return data

    def mark(self, hashed: int) -> None:
        self.write_at(hashed.to_bytes(MARK_BYTES, "big"), self._size)

    def sync(self) -> None:
        """Raises StorageFull, StorageUnavailable; the file is gone then: what did not reach the disk can still be read
        from memory, and would pass for whole.
        """
        try:
            with disk_refusals():
                os.fdatasync(self._descriptor)
        except StorageError:
            self.drop()
            raise

    def publish(self, target: Path) -> None:
        """Make it a copy that is trusted: durable first, then under its name."""
        with disk_refusals():
            os.ftruncate(self._descriptor, self._size)
        self.sync()
        with disk_refusals():
            self._path.rename(target)
            sync_folder(target.parent)

    def drop(self) -> None:
        """Remove it; what others have opened meanwhile is theirs no more than ours."""
        self._path.unlink(missing_ok=True)


def progress_of(path: Path) -> tuple[int, int] | None:
    """How many bytes of how many, of a partial file that somebody else may be writing; None where there is none."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size - MARK_BYTES
            return (_mark(file.fileno(), size), size) if size >= 0 else None
    except FileNotFoundError:
        return None


def _mark(descriptor: int, size: int) -> int:
    hashed = int.from_bytes(os.pread(descriptor, MARK_BYTES, size), "big")
    return hashed if hashed <= size else 0
