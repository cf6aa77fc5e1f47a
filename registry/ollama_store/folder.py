"""The models folder of an Ollama installation, as it lies on the disk: read, never written, nothing in it believed.

`manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<hex>`. Source: the Ollama registry protocol, "On-disk
store". A daemon may be at work in it: files come and go, and one with its last name may still be incomplete. Links are
not followed: every name is opened within the folder that was opened before it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.ollama_store.errors import FileUnfit, FolderUnfit, NoFile
from registry.remotes.text import one_line
from storage.digest import Digest
from storage.manifest import MAX_MANIFEST

_LEVELS: Final = 4
_MAX_ENTRIES: Final = 100_000
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is found out, not waited for
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_REASONS: Final = {
    errno.ELOOP: "is a symbolic link, and none is followed",
    errno.ENOTDIR: "is no folder",
    errno.ENOENT: "is gone",
    errno.ENXIO: "is no regular file",  # but a socket
}


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """host, namespace, model and tag as they are spelt there, and the exact bytes."""

    parts: tuple[str, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is no model, and why; printable."""

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What may well be a model, or a folder of some, and why it cannot be known; printable."""

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A blob's file, open for reading. folder: the handle of the one that it lies in. stat: when it was opened."""

    folder: int
    name: str
    handle: int
    stat: os.stat_result

    @property
    def is_unchanged(self) -> bool:
        """Whether nobody has written to it since."""
        now = os.fstat(self.handle)
        return (now.st_size, now.st_mtime_ns) == (self.stat.st_size, self.stat.st_mtime_ns)


class OllamaFolder:
    """Open with `opened`."""

    def __init__(self, manifests: int, blobs: int) -> None:
        self._manifests, self._blobs = manifests, blobs
        self._seen = 0

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[OllamaFolder]:
        """The folder at `path`, or below it under the name `models`. Raises FolderUnfit."""
        with ExitStack() as held:
            try:
                root = _open_folder(held, path)
            except OSError as error:
                raise FolderUnfit(f"cannot open {one_line(str(path))}: {error.strerror}") from error
            inner = _inner_folders(held, root)
            if inner is None:
                raise FolderUnfit(
                    f"{one_line(str(path))} holds no folders `manifests` and `blobs`; "
                    "name the one that OLLAMA_MODELS names"
                )
            yield cls(*inner)

    def models(self) -> Iterator[ManifestFile | Skipped | Unreadable]:
        """Everything below `manifests`, by name. Raises FolderUnfit for more than can be meant."""
        self._seen = 0
        try:
            yield from self._below(self._manifests, ())
        except OSError as error:
            raise FolderUnfit(f"`manifests` cannot be read: {error.strerror}") from error

    @contextmanager
    def blob(self, digest: Digest) -> Iterator[BlobFile]:
        """The file that is called so, whatever is in it. Raises FileUnfit."""
        handle, name = -1, ""
        for joint in "-:":  # the latter in the oldest installations
            name = f"{digest.algorithm}{joint}{digest.encoded}"
            with suppress(FileNotFoundError):
                handle = _open_file(self._blobs, name)
                break
        if handle < 0:
            raise FileUnfit("is not there; pull it again")
        try:
            yield BlobFile(self._blobs, name, handle, os.fstat(handle))
        finally:
            os.close(handle)

    def _below(self, folder: int, above: tuple[str, ...]) -> Iterator[ManifestFile | Skipped | Unreadable]:
        for name in self._names(folder):
            parts = (*above, name)
            if name.startswith("."):  # no model's, but a file manager's
                continue
            try:
                if len(parts) == _LEVELS:
                    yield ManifestFile(parts, _read(folder, name))
                    continue
                with ExitStack() as held:
                    yield from self._below(_open_folder(held, name, folder), parts)
            except NoFile as error:
                yield Skipped(spelt(parts), str(error))
            except FileUnfit as error:
                yield Unreadable(spelt(parts), str(error))
            except OSError as error:
                yield (Skipped if error.errno in _REASONS else Unreadable)(spelt(parts), _reason(error))

    def _names(self, folder: int) -> list[str]:
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self._seen += 1
                if self._seen > _MAX_ENTRIES:
                    raise FolderUnfit(f"more than {_MAX_ENTRIES} files and folders below `manifests`")
                names.append(entry.name)
        return sorted(names)


def spelt(parts: tuple[str, ...]) -> str:
    """The path below `manifests` as one printable line: a file's name may be any bytes."""
    return one_line(os.fsencode("/".join(parts)).decode("utf-8", "replace"))


def _read(folder: int, name: str) -> bytes:
    """Raises FileUnfit, also for more than a manifest may have."""
    with os.fdopen(_open_file(folder, name), "rb") as file:
        raw = file.read(MAX_MANIFEST + 1)
    if len(raw) > MAX_MANIFEST:
        raise FileUnfit("is too large for a manifest")
    return raw


def _open_file(folder: int, name: str) -> int:
    """A regular file's handle. Raises FileUnfit, NoFile, FileNotFoundError."""
    try:
        handle = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise (NoFile if error.errno in _REASONS else FileUnfit)(_reason(error)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NoFile("is no regular file")
    return handle


def _inner_folders(held: ExitStack, root: int) -> tuple[int, int] | None:
    """Those of manifests and of blobs; None where they are not."""
    for folder in (".", "models"):
        with suppress(OSError):
            inner = _open_folder(held, folder, root)
            return _open_folder(held, "manifests", inner), _open_folder(held, "blobs", inner)
    return None


def _open_folder(held: ExitStack, name: Path | str, within: int | None = None) -> int:
    """Its handle, closed with `held`. Only the one that has no folder of ours around it may be a link."""
    handle = os.open(name, _FOLDER if within is None else _FOLDER | os.O_NOFOLLOW, dir_fd=within)
    held.callback(os.close, handle)
    return handle


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or f"cannot be read: {error.strerror}"
