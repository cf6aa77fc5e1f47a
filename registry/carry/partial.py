"""A file on its way: written under another name, and taken up again by comparing what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from registry.carry.errors import CarryError
from registry.carry.headers import read_exactly
from registry.remotes.errors import LocalFileUnfit
from registry.remotes.partial_file import held
from storage.durable import sync_folder


class Resumed:
    """Writes to `file` only what is not there already.

    As long as what is there is what would be written, it is read instead; from the first difference on it is thrown
    away. So nothing in the file need be believed, and the bytes of two runs cannot be mixed.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """file: that at `path`, unbuffered, open for reading and writing."""
        self._file, self._path = file, path
        self._left = file.seek(0, os.SEEK_END)
        self.position = file.seek(0)
        self.kept = 0

    def write(self, data: bytes) -> None:
        """Raises CarryError where the disk refuses."""
        with self._refusals():
            same = self._compare(data) if self._left else 0
            self.position += same
            self.kept += same
            rest = memoryview(data)[same:]
            while rest:
                taken = self._file.write(rest)
                self.position += taken
                rest = rest[taken:]

    def finish(self, target: Path, *, replaces: bool) -> None:
        """End the file here, make it durable, and give it its name. Raises CarryError.

        replaces: whether another file may have to give the name up.
        """
        with self._refusals():
            self._cut()
            os.fsync(self._file.fileno())
            if replaces or not self._link(target):
                self._path.replace(target)
            sync_folder(target.parent)

    def _link(self, target: Path) -> bool:
        """Give the file a name that nothing has, also not since a moment ago; False on a disk without hard links."""
        try:
            os.link(self._path, target)
        except OSError as error:
            if os.path.lexists(target):
                raise CarryError(f"{target} came to exist meanwhile; {self._path} is kept") from error
            return False
        self._path.unlink()
        return True

    def _compare(self, data: bytes) -> int:
        """How many bytes of `data` are there; all of them or up to the file's end, or none."""
        there = read_exactly(self._file, min(len(data), self._left))
        if data.startswith(there):
            self._left -= len(there)
            return len(there)
        self._cut()
        return 0

    def _cut(self) -> None:
        self._file.seek(self.position)
        self._file.truncate()
        self._left = 0

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CarryError(f"cannot write {self._path}: {error.strerror}; what is written is kept") from error


@contextmanager
def partial_of(target: Path) -> Iterator[Resumed]:
    """What will be `target` once it is finished; what a failure leaves of it is kept for the next run.

    Raises CarryError while another run writes it, where the disk refuses, and where it is not ours alone.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        with held(partial, "export", mode=0o600) as file:
            yield Resumed(file, partial)
    except LocalFileUnfit as error:
        raise CarryError(str(error)) from error
