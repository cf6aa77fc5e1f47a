"""Bytes as files of one folder: what was pushed is the very file that is served and mapped."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from storage import layout
from storage.drivers.protocol import StagedWriter, check_key
from storage.durable import sync_folder
from storage.errors import KeyUnknown, StorageError, StorageFull, StorageUnavailable

_COPY_BYTES: Final = 1024 * 1024
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def _refusals(key: str) -> Iterator[None]:
    """The kernel's errors as ours. Wraps our own calls only: a source may raise OSError for reasons of its own."""
    try:
        yield
    except FileNotFoundError:
        raise KeyUnknown("no such key", key=key) from None
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull("no space left for the bytes") from error
        raise StorageUnavailable("the filesystem refuses", reason=error.strerror) from error


class _Writer:
    """Unbuffered, so that a refused write leaves nothing behind that could be written later."""

    def __init__(self, key: str, file: BinaryIO) -> None:
        self._key = key
        self._file = file
        self._refusal: StorageError | None = None

    def write(self, data: bytes) -> None:
        with _refusals(self._key):
            written = self._file.write(data)
            while written < len(data):  # the kernel may take less, near a full disk or beyond 2 GiB
                written += self._file.write(data[written:])

    def sync(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        try:
            with _refusals(self._key):
                os.fsync(self._file.fileno())
        except StorageError as refusal:
            self._refusal = refusal  # the kernel tells once, and calls the lost pages clean the next time
            raise


class FilesystemDriver:
    """A `Driver` below one data folder. The handle of staged bytes is their key."""

    def __init__(self, data: Path) -> None:
        self._objects = layout.objects_folder(data)
        self._uploads = layout.uploads_folder(data)
        for folder in (self._objects, self._uploads):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, key: str, source: BinaryIO) -> int:
        path, size = self._path(key), 0
        temporary = self._uploads / f"{secrets.token_hex(16)}~"  # no key has a tilde
        try:
            with _refusals(key):
                file = temporary.open("xb", buffering=0)
            with file:
                writer = _Writer(key, file)
                while data := source.read(_COPY_BYTES):
                    writer.write(data)
                    size += len(data)
                writer.sync()
            self._move(key, temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return size

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        with _refusals(key):
            file = self._path(key).open("rb", buffering=0)
            file.seek(start)
            return file

    def stat(self, key: str) -> int:
        with _refusals(key):
            return self._path(key).stat().st_size

    def delete(self, key: str) -> None:
        with _refusals(key):
            self._path(key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> Iterator[str]:
        return (key for key in _walk(self._objects, "") if key.startswith(prefix))

    def download_url(self, key: str, *, expires_s: int) -> str | None:
        return None

    def local_path(self, key: str) -> Path | None:
        self.stat(key)
        return self._path(key)

    def stage(self, key: str) -> str:
        path = self._staged(key)
        with _refusals(key):
            path.open("xb").close()
            sync_folder(path.parent)
        return key

    @contextmanager
    def append(self, handle: str, *, at: int) -> Iterator[StagedWriter]:
        with _refusals(handle):
            file = self._open_staged(handle)
        with file:
            with _refusals(handle):
                if file.seek(0, os.SEEK_END) < at:
                    raise KeyUnknown("staged bytes are gone", key=handle)
                file.truncate(at)
                file.seek(at)
            yield _Writer(handle, file)

    def read_staged(self, handle: str) -> BinaryIO:
        staged = self._staged(handle)
        with _refusals(handle):
            try:
                return staged.open("rb", buffering=0)
            except FileNotFoundError:
                return self._path(handle).open("rb", buffering=0)

    def publish(self, handle: str, *, size: int) -> None:
        staged, path = self._staged(handle), self._path(handle)
        with _refusals(handle):
            try:
                descriptor = os.open(staged, os.O_RDWR)
            except FileNotFoundError:
                if path.stat().st_size != size:
                    raise KeyUnknown("staged bytes are gone", key=handle) from None
                return  # an earlier attempt came this far
            try:
                if os.fstat(descriptor).st_size < size:
                    raise KeyUnknown("staged bytes are gone", key=handle)
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._move(handle, staged, path)

    def discard(self, handle: str) -> None:
        with _refusals(handle):
            self._staged(handle).unlink(missing_ok=True)
            self._path(handle).unlink(missing_ok=True)

    def _move(self, key: str, source: Path, target: Path) -> None:
        """Rename, and make the new name survive a power cut: the caller's next step is a row that relies on it."""
        with _refusals(key):
            if not target.parent.is_dir():
                self._make_folders(target.parent)
            source.rename(target)
            sync_folder(target.parent)  # the old name may come back, which only leaves something to sweep

    def _make_folders(self, folder: Path) -> None:
        for parent in (*reversed(folder.relative_to(self._objects).parents), folder.relative_to(self._objects)):
            (self._objects / parent).mkdir(mode=0o700, exist_ok=True)
            sync_folder((self._objects / parent).parent)

    def _open_staged(self, handle: str) -> BinaryIO:
        staged = self._staged(handle)
        try:
            return staged.open("r+b", buffering=0)
        except FileNotFoundError:
            # Published, but the commit died before its row: the session lives on and takes its bytes back.
            self._path(handle).rename(staged)
            return staged.open("r+b", buffering=0)

    def _path(self, key: str) -> Path:
        return self._objects / check_key(key)

    def _staged(self, handle: str) -> Path:
        return self._uploads / check_key(handle).replace("/", ".")  # no key has a dot


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Keys below `folder`, in byte order: a folder sorts as its name with the slash that follows it in a key."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries)
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name)
        else:
            yield prefix + name
