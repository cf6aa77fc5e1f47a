"""Bytes as files of one folder: what was pushed is the very file that is served and mapped."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from storage import layout
from storage.drivers.protocol import Fence, StagedWriter, check_key, hold_soon, no_fence
from storage.durable import NO_SPACE, sync_folder
from storage.errors import KeyUnknown, StorageError, StorageFull, StorageUnavailable

_COPY_BYTES: Final = 1024 * 1024
_HOLD_TRIES: Final = 5
_SWEEP_PAGE: Final = 500
_TEMPORARY: Final = "~"  # no key has one


@contextmanager
def _refusals(key: str) -> Iterator[None]:
    """The kernel's errors as ours. Wraps our own calls only: a source may raise OSError for reasons of its own."""
    try:
        yield
    except FileNotFoundError:
        raise KeyUnknown("no such key", key=key) from None
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull("no space left for the bytes") from error
        raise StorageUnavailable("the filesystem refuses", reason=error.strerror) from error


class _Writer:
    """Unbuffered, so that a refused write leaves nothing behind that could be written later."""

    def __init__(self, key: str, file: BinaryIO, new_in: Path | None = None) -> None:
        self._key = self.handle = key
        self._file = file
        self._new_in = new_in  # the folder whose entry for the file is not durable yet
        self._refusal: StorageError | None = None

    def write(self, data: bytes) -> None:
        with _refusals(self._key):
            written = self._file.write(data)
            while written < len(data):  # the kernel may take less, near a full disk or beyond 2 GiB
                written += self._file.write(data[written:])

    def mark(self) -> int:
        with _refusals(self._key):
            return self._file.tell()

    def sync(self, mark: int | None = None) -> None:  # the file is as durable beyond the mark, and can be cut anywhere
        if self._refusal is not None:
            raise self._refusal
        try:
            with _refusals(self._key):
                os.fsync(self._file.fileno())
                if self._new_in is not None:
                    sync_folder(self._new_in)
                    self._new_in = None
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
        temporary = self._uploads / f"{secrets.token_hex(16)}{_TEMPORARY}"
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

    def changed_at(self, key: str) -> float | None:
        with _refusals(key):
            found = self._path(key).stat()
        return max(found.st_mtime, found.st_ctime)

    def download_url(self, key: str, *, expires_s: int) -> str | None:
        return None

    def local_path(self, key: str) -> Path | None:
        self.stat(key)
        return self._path(key)

    def stage(self, key: str) -> str:
        return check_key(key)  # the file comes with the first bytes

    @contextmanager
    def append(self, handle: str, *, at: int, fence: Fence = no_fence) -> Iterator[StagedWriter]:
        with self._held(handle, may_create=at == 0) as (file, path, is_new):
            self._check(fence, path if is_new else None)
            with _refusals(handle):
                if file.seek(0, os.SEEK_END) < at:
                    raise KeyUnknown("staged bytes are gone", key=handle)
                if path != self._staged(handle):
                    # Published, but the commit died before its row: the session lives on and takes its bytes back.
                    path.rename(self._staged(handle))
                _cut(file, at, handle)
                file.seek(at)
            # who made the file may have died before its name was durable
            yield _Writer(handle, file, self._uploads if at == 0 else None)

    def staged_path(self, handle: str) -> Path | None:
        return self._staged(handle)

    def read_staged(self, handle: str, *, fence: Fence = no_fence) -> BinaryIO:
        staged = self._staged(handle)
        with _refusals(handle):
            try:
                return staged.open("rb", buffering=0)
            except FileNotFoundError:
                return self._path(handle).open("rb", buffering=0)

    def publish(self, handle: str, *, size: int, fence: Fence = no_fence) -> None:
        with self._held(handle, may_create=size == 0) as (file, path, is_new):
            self._check(fence, path if is_new else None)
            with _refusals(handle):
                kept = file.seek(0, os.SEEK_END)
                if path == self._path(handle) and kept == size:
                    sync_folder(path.parent)
                    return  # an earlier attempt came this far, and may have died before its name was durable
                if path == self._path(handle) or kept < size:
                    raise KeyUnknown("staged bytes are gone", key=handle)
                _cut(file, size, handle)
                os.fsync(file.fileno())
            self._move(handle, path, self._path(handle))

    def restage(self, handle: str, key: str, *, size: int, keep: Fence) -> str:
        new, left = self.stage(key), size
        try:
            with self.read_staged(handle) as old, self.append(new, at=0) as writer:
                while left and (data := old.read(min(_COPY_BYTES, left))):
                    keep()
                    writer.write(data)
                    left -= len(data)
                writer.sync()
            if left:
                raise KeyUnknown("staged bytes are gone", key=handle)
        except BaseException:
            self.discard(new)
            raise
        return new

    def sweep_staged(self, is_known: Callable[[Collection[str]], Collection[str]], *, older_than_s: float) -> int:
        before, gone = time.time() - older_than_s, 0
        with _refusals(""), os.scandir(self._uploads) as entries:
            while page := list(islice(entries, _SWEEP_PAGE)):
                old = [entry.name for entry in page if _is_untouched_since(before, entry)]
                known = {name.replace("/", ".") for name in is_known([name.replace(".", "/") for name in old])}
                for name in old:
                    if name not in known:
                        (self._uploads / name).unlink(missing_ok=True)
                        gone += 1
        return gone

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

    def _check(self, fence: Fence, new: Path | None) -> None:
        try:
            fence()
        except BaseException:
            if new is not None:  # its session has gone on elsewhere, or is gone
                new.unlink(missing_ok=True)
            raise

    @contextmanager
    def _held(self, handle: str, *, may_create: bool) -> Iterator[tuple[BinaryIO, Path, bool]]:
        """The staged file, open for writing by nobody else; where it is, published if a commit died; whether it is new.

        The kernel's lock goes with the descriptor, so a dead writer holds nothing. Raises KeyUnknown, StagedBusy.
        """
        for _ in range(_HOLD_TRIES):
            with _refusals(handle):
                found = self._open_for_writing(handle, may_create)
            if found is None:
                continue
            file, path, is_new = found
            with file:
                descriptor = file.fileno()
                hold_soon(lambda held=descriptor: _lock(held, handle), handle)  # type: ignore[misc]
                if _is_at(path, descriptor):  # not moved or replaced while we waited
                    yield file, path, is_new
                    return
        raise KeyUnknown("staged bytes are gone", key=handle)

    def _open_for_writing(self, handle: str, may_create: bool) -> tuple[BinaryIO, Path, bool] | None:
        """None where another writer was about to create it too. Raises FileNotFoundError."""
        staged, published = self._staged(handle), self._path(handle)
        for path in (staged, published):
            try:
                return path.open("r+b", buffering=0), path, False
            except FileNotFoundError:
                if path == published and not may_create:
                    raise
        try:
            return staged.open("x+b", buffering=0), staged, True
        except FileExistsError:
            return None

    def _path(self, key: str) -> Path:
        return self._objects / check_key(key)

    def _staged(self, handle: str) -> Path:
        return self._uploads / check_key(handle).replace("/", ".")  # no key has a dot


def _cut(file: BinaryIO, size: int, handle: str) -> None:
    """Nothing beyond `size`. A file that others know by another name is theirs too: not even its times may change."""
    found = os.fstat(file.fileno())
    if found.st_size > size:
        if found.st_nlink > 1:
            raise KeyUnknown("the staged bytes grew under another name", key=handle)
        file.truncate(size)


def _lock(descriptor: int, handle: str) -> bool:
    with _refusals(handle):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_untouched_since(moment: float, entry: os.DirEntry[str]) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return max(found.st_mtime, found.st_ctime) < moment


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Keys below `folder`, in byte order: a folder sorts as its name with the slash that follows it in a key."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries)
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name)
        else:
            yield prefix + name
